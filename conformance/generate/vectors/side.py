"""Streams of models that take side indices (4.8, 6.12), and files of such models at their bounds."""
import random

from ..encoder import Stream
from ..models import Model
from .common import CODED, PLAIN, SIDE, SIDE_LINEAR, some, source, vector, wide


def begin(seed, model=SIDE, **options):
    s = Stream(model(), **options)
    s.side_random = random.Random(seed)
    return s, source(seed)


def draw(s, count):
    """Side indices, V among them."""
    return [s.side_random.randint(0, s.model.vocabulary) for _ in range(count)]


@vector("side-stream", "all side indices from the stream, for frames and batches",
        "SIDE-1 SIDE-2 SIDE-3 CHECK-3 CTRL-10", "side")
def _():
    s, src = begin(400, check=1)
    s.side_indices(draw(s, 4))
    some(s, src, 4)
    s.side_indices(draw(s, 1))
    some(s, src, 1)
    s.side_indices(draw(s, 9))
    s.batch(src.frames(s.model, 5))
    s.batch(src.frames(s.model, 4), lanes=2)
    s.end()
    assert not s.answers
    return s


@vector("side-caller", "all side indices from the caller", "SIDE-1 SIDE-3 CHECK-3", "side")
def _():
    s, src = begin(401, check=2)
    some(s, src, 4)
    s.batch(src.frames(s.model, 5))
    some(s, src, 1)
    s.end()
    assert [(first, len(side)) for first, side in s.answers] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 5), (9, 1)]
    return s


@vector("side-mixed", "frames of one batch whose side indices come from the stream and then from the caller",
        "SIDE-3 CTRL-10 CHECK-3", "side")
def _():
    s, src = begin(402, check=2)
    s.side_indices(draw(s, 5))
    some(s, src, 2)
    s.batch(src.frames(s.model, 7), lanes=3)
    some(s, src, 1)
    s.side_indices(draw(s, 2))
    s.batch(src.frames(s.model, 3))
    s.end()
    assert [(first, len(side)) for first, side in s.answers] == [(5, 4), (9, 1), (12, 1)]
    return s


@vector("side-lanes", "a batch of several lanes: age goes across them", "SIDE-3 BATCH-3 DEC-2", "side-linear")
def _():
    s, src = begin(403, SIDE_LINEAR, check=1)
    s.batch(src.frames(s.model, 12), lanes=5)
    s.side_indices(draw(s, 6))
    s.batch(src.frames(s.model, 6), lanes=6)
    s.end()
    return s


@vector("side-ages", "several ages over rewinds and a reset, without checks", "NET-6 DEC-5 CTRL-10", "side-linear")
def _():
    s, src = begin(404, SIDE_LINEAR)
    s.side_indices(draw(s, 4))
    some(s, src, 6)
    s.rewind(3)
    some(s, src, 1)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.checkpoint()
    s.reset()
    some(s, src, 4)
    s.rewind(s.start + 1)
    some(s, src, 2)
    s.rewind(s.start)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.end()
    return s


@vector("side-rewound", "the caller is asked again for frames that a rewind took away, and says something else",
        "SIDE-3 NET-6 DEC-9", "side")
def _():
    s, src = begin(405, check=1)
    s.known = [7, 299, 3, 4, 300, 12]
    some(s, src, 4)
    s.rewind(2)
    some(s, src, 2)
    s.checkpoint()
    s.end()
    assert s.answers == [[0, [7]], [1, [299]], [2, [3]], [3, [4]], [2, [300]], [3, [12]]]
    return s


@vector("side-rewind-drops", "a rewind drops the side indices that are left", "CTRL-10", "side")
def _():
    s, src = begin(406, check=1)
    s.side_indices(draw(s, 8))
    some(s, src, 4)
    s.rewind(3)
    some(s, src, 2)
    s.rewind(4)
    s.side_indices(draw(s, 3))
    s.rewind(2)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.end()
    return s


@vector("side-reset-drops", "a context reset drops the side indices that are left", "CTRL-10", "side")
def _():
    s, src = begin(407, check=1)
    s.side_indices(draw(s, 8))
    some(s, src, 3)
    s.reset(1)
    some(s, src, 2)
    s.side_indices(draw(s, 1))
    s.reset()
    s.side_indices(draw(s, 1))
    some(s, src, 2)
    s.end()
    return s


@vector("side-switch", "a switch to another model that takes side indices drops those that are left",
        "SIDE-1 CTRL-10 DEC-7", "side side-linear")
def _():
    s, src = begin(408, check=1)
    s.side_indices(draw(s, 5))
    some(s, src, 3)
    s.switch(SIDE_LINEAR())
    some(s, src, 3)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.switch(SIDE(), 1)
    s.side_indices(draw(s, 2))
    some(s, src, 2)
    s.end()
    return s


@vector("side-quality", "a quality switch and a checkpoint leave the side indices that are left",
        "CTRL-10 DEC-6 DEC-8", "side")
def _():
    s, src = begin(409, check=2)
    s.side_indices(draw(s, 6))
    some(s, src, 2)
    s.set_quality(1)
    some(s, src, 1)
    s.checkpoint()
    s.extension(27, b"grease")
    some(s, src, 4)
    s.set_quality(0)
    some(s, src, 1)
    s.end()
    return s


@vector("side-left-end", "side indices that are left at the end are no error", "CTRL-10", "side")
def _():
    s, src = begin(410)
    s.side_indices(draw(s, 5))
    some(s, src, 2)
    s.end()
    return s


@vector("side-none", "frames without a side index: V, from the stream and from the caller", "SIDE-4 SIDE-2 NET-6",
        "side-linear")
def _():
    s, src = begin(411, SIDE_LINEAR, check=1)
    none = s.model.vocabulary
    s.side_indices([none, 2, none, none, none])
    s.batch(src.frames(s.model, 3))
    some(s, src, 2)
    s.known = [none, 0, none, 4]
    some(s, src, 1)
    s.batch(src.frames(s.model, 3), lanes=2)
    s.end()
    return s


@vector("side-modes", "coded and plain runs of the upper and lower parts, in several widths, and every kind of escape",
        "SIDE-2 MODE-1 MODE-2 SEAL-1", "side")
def _():
    s, src = begin(412, check=1)
    several = [0, 19, 20, 79, 80, 255, 256, 260, 261, 280, 281, 300]
    for modes in ((CODED, CODED), (CODED, PLAIN), (PLAIN, CODED), (PLAIN, PLAIN), (wide(16), wide(16)),
    (wide(8), wide(9))):
        s.side_indices(several, modes)
        s.batch(src.frames(s.model, len(several)), lanes=2)
    s.side_indices([0, 3, 1], (PLAIN, wide(3)))
    some(s, src, 3)
    s.end()
    return s


@vector("side-exact", "exact frames: their checks cover the side index", "CHECK-3 SIDE-3 CTRL-8", "side")
def _():
    s, src = begin(413, check=2)
    hidden = bytes(range(2 * s.model.e))
    s.side_indices(draw(s, 2))
    s.exact(*src.frame(s.model), 1, hidden)
    some(s, src, 1)
    s.exact(*src.frame(s.model), 2, hidden)
    some(s, src, 2)
    s.checkpoint()
    s.end()
    return s


@vector("side-layered", "hyper-priors wait for side indices; targets need none, early and late ones too",
        "SIDE-3 CHECK-3 DEC-22", "side")
def _():
    s, src = begin(414, layered=True, check=1)
    s.side_indices(draw(s, 3))
    some(s, src, 2)
    s.target(1)
    s.batch(src.frames(s.model, 4), lanes=2)
    s.target(0)
    s.target(0, "late")
    s.target(2, count=4, lanes=2)
    some(s, src, 1)
    s.target(6, "early")
    s.forward()
    s.kept("usable", 6)
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e))
    s.end()
    return s


@vector("side-layered-conceal", "frames are concealed at the end; their means come from side indices", "SIDE-3 DEC-13",
        "side-linear", conceal="end")
def _():
    s, src = begin(415, SIDE_LINEAR, layered=True, check=1)
    s.side_indices(draw(s, 4))
    some(s, src, 6)
    s.target(4)
    s.target(0)
    s.target(2)
    s.conceal(1, 3, 5)
    s.end(unverifiable=True)
    return s


@vector("side-layered-overdue", "chunks that wait for overdue targets, and for side indices after them",
        "SIDE-3 DEC-14", "side", conceal="overdue")
def _():
    s, src = begin(416, layered=True, check=1, horizon=3)
    some(s, src, 3)
    s.target(1)
    s.conceal(0)
    some(s, src, 2)
    s.side_indices(draw(s, 1))
    s.conceal(2, 3)
    s.batch(src.frames(s.model, 2))
    for i in (4, 5, 6):
        s.target(i)
    some(s, src, 3)
    s.conceal(7)
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e))
    s.conceal(8, 9)
    s.batch(src.frames(s.model, 3))
    s.target(11, count=3)
    s.end(unverifiable=True)
    return s


@vector("side-checkpoints", "W digests that cover side indices, with checks of width 0", "DEC-8 DEC-9 SIDE-3", "side")
def _():
    s, src = begin(417)
    some(s, src, 2)
    s.checkpoint()
    s.side_indices(draw(s, 4))
    s.batch(src.frames(s.model, 3))
    s.checkpoint()
    s.rewind(4)
    some(s, src, 2)
    s.checkpoint()
    s.reset()
    some(s, src, 1)
    s.end()
    return s


@vector("side-join", "joining at a reset: side indices that were left before it are not missed",
        "SIDE-1 JOIN-3 CTRL-10", "side")
def _():
    s, src = begin(418, check=2)
    s.side_indices(draw(s, 6))
    some(s, src, 2)
    s.join()
    s.reset(1)
    some(s, src, 2)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.checkpoint()
    s.end()
    return s


@vector("side-join-switch", "joining at a model switch", "SIDE-1 JOIN-2", "side-linear")
def _():
    s, src = begin(419, check=1)
    some(s, src, 2)
    s.join()
    s.switch(SIDE_LINEAR())
    some(s, src, 3)
    s.end()
    return s


@vector("side-messages", "side indices in messages, layered, with an identity", "MSG-3 SIDE-2 CHECK-3", "side")
def _():
    s, src = begin(420, binding="messages", layered=True, check=1, identity=b"side one")
    s.side_indices(draw(s, 3))
    some(s, src, 2)
    s.batch(src.frames(s.model, 3), lanes=2)
    s.target(2, count=3)
    s.target(0, count=2)
    s.side_indices(draw(s, 2), (PLAIN, PLAIN))
    s.exact(*src.frame(s.model), 1, bytes(2 * s.model.e))
    some(s, src, 2)
    s.target(7)
    s.end(unverifiable=True)
    s.target(6)
    s.unverifiable.clear()
    return s


@vector("side-file", "a file with side indices", "FILE-1 SIDE-2", "side")
def _():
    s, src = begin(421, file=True)
    s.side_indices(draw(s, 2))
    some(s, src, 3)
    s.reset()
    some(s, src, 1)
    s.end()
    s.seek_index()
    return s


@vector("side-count", "as many side indices as max frames per chunk allows, more than the target horizon", "CTRL-10",
        "side")
def _():
    s, src = begin(422, layered=True, horizon=2, max_frames=7)
    s.side_indices(draw(s, 7))
    for i in range(7):
        some(s, src, 1)
        s.target(i)
    s.end()
    return s


@vector("side-known", "what the stream says holds, whatever the caller knows", "SIDE-3", "side")
def _():
    s, src = begin(423, check=2)
    s.known = [5, 6]
    some(s, src, 2)
    s.side_indices([6, 5])
    some(s, src, 2)
    s.end()
    return s


# -- models at their bounds ----------------------------------------------------------------------


def of_model(name, rules, text, seed, side, side_tables, change=None):
    """`make(s, src)` fills a stream of a small model of its own."""

    def build():
        m = Model(name, seed, e=6, c=3, widths=(), side=side, side_tables=side_tables)
        if change:
            change(m)
            m.tensors = m.to_tensors()
            m.fingerprint = m.tensors.fingerprint()
        return m

    def register(make):
        @vector(name, text, rules, "", model_file=lambda: build().tensors.file())
        def _():
            s, src = begin(seed, build, check=1)
            make(s, src)
            s.end()
            return s

        return make

    return register


@of_model("side-vocabulary-255", "MODEL-13 SIDE-2",
          "V = 255: one upper part, and 255 says that there is no side index", 424, (2, 255, 1), ((0, 1), (0, 256)))
def _(s, src):
    s.side_indices([0, 254, 255, 255])
    some(s, src, 4)
    s.known = [255, 254]
    s.batch(src.frames(s.model, 2))


@of_model("side-vocabulary-256", "MODEL-13 SIDE-2",
          "V = 256: two upper parts, the second for 256 alone, which says that there is none",
          425, (2, 256, 1), ((0, 2), (0, 256), (255, 1)))
def _(s, src):
    s.side_indices([0, 255, 256, 256])
    some(s, src, 4)
    s.side_indices([256, 255], (PLAIN, PLAIN))
    s.known = [256]
    s.batch(src.frames(s.model, 3))


@of_model("side-ages-16", "MODEL-13 NET-6", "sixteen ages of the largest rows, V = 1", 426, (16, 1, 2),
          ((0, 1), (0, 2)), lambda m: m.embedding.__setitem__(slice(None), [[[127, -127]] for _ in range(16)]))
def _(s, src):
    s.known = [0] * 18 + [1, 0, 0] + [1] * 17
    some(s, src, 2)
    s.batch(src.frames(s.model, 20), lanes=3)
    s.reset()
    some(s, src, 3)
    s.rewind(s.index - 2)
    s.batch(src.frames(s.model, 17))
