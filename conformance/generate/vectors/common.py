"""What the vectors share: the list of them, the models, varied contents, and edits of a stream's parts."""
import copy
import random

from ..coder import CODED, PLAIN, REPEAT, wide  # noqa: F401
from ..encoder import Stream
from ..models import Model, Tensors

VECTORS = []
MODELS = {}


def vector(name, description, rules, models="a", **options):
    def register(make):
        VECTORS.append((name, description, rules.split(), models.split(), options, make))
        return make

    return register


def bad_file(model, seed, name, code, rules, text, change, others=()):
    """A broken file of a model, from a function: `change(tensors)` breaks it. The stream is whole."""

    def file():
        t = Tensors(model().tensors)
        change(t)
        return t.file()

    @vector(name, text, rules, "", code=code, others=list(others), model_file=file)
    def _():
        s, src = Stream(model()), source(seed)
        some(s, src, 1)
        s.end()
        s.fault_offset, s.fault_kinds = 0, []
        return s


def build_b():
    return Model("b", 22, e=10, c=3, widths=(6,), window=3)


def build_models():
    """Every valid model the vectors use, by name."""
    made = [
        Model("a", 11, e=12, c=4, q=3, widths=(8, 12), heads=[2, 4], window=5,
              scales=((0.6, 0), (1.5, 1), (3, 2), (6, 6), (12, 3))),
        build_b(),
        Model("extreme", 33, e=36, c=5, q=2, widths=(16, 8), heads=[5, 4], window=4,
              w=(-32767, 32767), y=(-32767, 32767), scales=((2, 0), (30, 4)), extreme=True),
        Model("narrow", 44, e=6, c=2, widths=(2, 2, 2), heads=[2, 1, 2], window=1, w=(0, 3),
              y=(-1, 0), scales=((0.5, 0),), lean=True),
        Model("mapped", 66, e=10, c=3, q=2, widths=(6,), window=3, mapped=True),
        Model("sparse", 67, e=40, c=2, q=2, widths=(), sparse=True),
        # Broken files of it are small.
        Model("sparse-small", 68, e=4, c=1, widths=(), scales=((1, 0),), sparse=True),
        Model("linear", 77, e=10, c=3, q=2, widths=()),
        Model("wide", 55, e=8300, c=1, widths=(1,), y=(-32767, 32767), scales=((1, 0),), lean=True),
        Model("side", 88, e=10, c=4, q=2, widths=(8,), heads=[2], window=4, side=(1, 300, 2),
              side_tables=((0, 1), (20, 60), (5, 20))),
        Model("side-linear", 99, e=8, c=3, q=2, widths=(), side=(3, 5, 4), side_tables=((0, 1), (1, 4))),
        # Broken files of it are small.
        Model("side-small", 111, e=2, c=1, widths=(), side=(1, 300, 2), side_tables=((0, 1), (20, 60), (5, 20))),
        Model("predict", 122, e=9, c=2, q=2, widths=(), predicts=(2, 3)),
        Model("predict-four", 133, e=7, c=2, widths=(), predicts=(4, 0)),
        Model("predict-side", 144, e=5, c=2, widths=(), side=(2, 5, 1), side_tables=((0, 1), (1, 4)), predicts=(1, 2)),
        Model("predict-small", 155, e=2, c=1, widths=(), predicts=(1, 1)),
    ]
    MODELS.update((m.name, m) for m in made)
    return MODELS




class Source:
    """W and Y that vary, with escapes now and then."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def w(self, m):
        rnd = self.random
        row = [round(rnd.gauss(0, 6)) for _ in range(m.c)]
        if rnd.random() < 0.15:
            row[rnd.randrange(m.c)] = rnd.choice([m.w_min, m.w_max])
        return [max(m.w_min, min(m.w_max, x)) for x in row]

    def y(self, m, spread=3, escapes=0.1):
        rnd = self.random

        def make(means):
            row = [round(x / 64 + rnd.gauss(0, spread)) for x in means]
            if rnd.random() < escapes:
                row[rnd.randrange(m.e)] = rnd.choice([m.y_min, m.y_max])
            return [max(m.y_min, min(m.y_max, x)) for x in row]

        return make

    def frame(self, m, **options):
        return self.w(m), self.y(m, **options)

    def frames(self, m, n, **options):
        return [self.frame(m, **options) for _ in range(n)]


def source(seed=1):
    return Source(seed)


def some(s, src, n, **options):
    for _ in range(n):
        s.frame(*src.frame(s.model, **options))


A = lambda: MODELS["a"]
B = lambda: MODELS["b"]
SIDE = lambda: MODELS["side"]
SPARSE_SMALL = lambda: MODELS["sparse-small"]
SIDE_LINEAR = lambda: MODELS["side-linear"]
SIDE_SMALL = lambda: MODELS["side-small"]
PREDICT = lambda: MODELS["predict"]
PREDICT_FOUR = lambda: MODELS["predict-four"]
PREDICT_SIDE = lambda: MODELS["predict-side"]


def lowest(m, q=0):
    """The W and Y whose payload is empty: every symbol is the low escape, every d is 0."""
    w = [m.hyper_prior[q * m.c + c][0] - 1 for c in range(m.c)]
    assert min(w) >= m.w_min
    return w


def empty_frame(s):
    m = s.model
    w = lowest(m, s.quality)
    s.context.seen, kept = [list(x) for x in s.context.seen], s.context.seen
    means, scales = s.context.next(w, s.quality, m.s)
    s.context.seen = kept
    y = []
    for mean, scale in zip(means, scales):
        f = m.fraction_bits[scale]
        q = mean if f == 6 else (mean + 2 ** (5 - f)) >> (6 - f)
        y.append((q >> f) + m.target[m.base[scale] + (q & (2**f - 1))][0] - 1)
    assert min(y) >= m.y_min
    s.frame(w, y)


def of_length(s, size):
    """W and Y of a frame of the model "extreme" whose joined payload has `size` bytes, all coded."""
    m = s.model
    for far in range(m.e):
        for step in range(16):
            def y(means, far=far, step=step):
                near = [max(m.y_min, min(m.y_max, x // 64)) for x in means]
                ends = [m.y_min if x > 0 else m.y_max for x in near]
                between = near[far] + 2**step * (1 if ends[far] > 0 else -1)
                return ends[:far] + [max(m.y_min, min(m.y_max, between))] + near[far + 1 :]

            w = [0] * m.c
            trial = copy.deepcopy(s)
            if len(trial.payload([trial.new_frame(w, y)])) == size:
                return w, y
    raise AssertionError


def flip(name, bit=0):
    def edit(parts):
        for part in parts:
            if part[0] == name:
                part[1] = bytes([part[1][0] ^ 1 << bit]) + part[1][1:]

    return edit


def replace(name, value):
    def edit(parts):
        for part in parts:
            if part[0] == name:
                part[1] = value

    return edit


def bad(name, code, rules, text, models="a", container=True, conceal=None, **options):
    """`make(s, src)` breaks a rule; three frames stand before it, two and an end behind."""

    def register(make):
        @vector(name, text, rules, models, code=code, container=container, conceal=conceal)
        def _():
            s = Stream(MODELS[models.split()[0]], **options)
            src = source(sum(name.encode()))
            some(s, src, 3)
            make(s, src)
            if not s.messages or s.kinds[-1:] not in (["end"], ["seek_index"]):
                some(s, src, 2)
                s.end()
            return s

        return make

    return register
