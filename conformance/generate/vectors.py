"""The vectors. Each function makes one stream; a broken one breaks exactly one rule."""
import random
import struct

from .encoder import Stream
from .models import Model, Tensors, pack, wrap
from .wire import bits_to_bytes, crc, le, varint

VECTORS = []
MODELS = {}


def vector(name, description, rules, models="a", **options):
    def register(make):
        VECTORS.append((name, description, rules.split(), models.split(), options, make))
        return make

    return register


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
        Model("wide", 55, e=4300, c=1, widths=(1,), y=(-32767, 32767), scales=((1, 0),), lean=True),
    ]
    MODELS.update((m.name, m) for m in made)
    return MODELS


# -- contents -----------------------------------------------------------------------------------


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

# -- valid: joined ------------------------------------------------------------------------------


@vector("empty", "a header and an end chunk", "END-1 CTRL-2")
def _():
    s = Stream(A())
    s.end()
    return s


@vector("joined-frames", "one-frame chunks without checks", "DEC-1 DEC-2 DEC-3 NET-1 NET-2 NET-3")
def _():
    s, src = Stream(A()), source(1)
    some(s, src, 14)
    s.end()
    return s


@vector("joined-check8", "one-frame chunks with checks of one byte", "CHECK-1")
def _():
    s, src = Stream(A(), check=1, quality=2), source(2)
    some(s, src, 9)
    s.end()
    return s


@vector("joined-check16", "one-frame chunks with checks of two bytes", "CHECK-1")
def _():
    s, src = Stream(A(), check=2), source(3)
    some(s, src, 9)
    s.end()
    return s


@vector("check-00-becomes-ff", "checks with a zero byte, replaced by FF", "CHECK-1", "b")
def _():
    s, src = Stream(B(), check=1, max_rewind=0), source(4)
    found = 0
    while found < 2 and s.index < 400:
        before = s.size()
        state = (len(s.messages), len(s.kinds), s.index)
        index = s.index
        w, y = src.frame(s.model)
        s.frame(w, y)
        body = s.data()[s.marks["payload0"] :]
        if crc(le(index, 8) + le(0, 4) + b"\xc0" + body) & 255 == 0:
            found += 1
        elif index > 6:  # not wanted: take it back
            del s.messages[state[0] :], s.kinds[state[1] :], s.timeline[index:]
            s.context.rewind(index)
            s.index = s.coded = s.highest = index
            assert s.size() == before
    assert found == 2
    s.end()
    return s


@vector("medium-form", "bodies of 128 bytes and more", "CHUNK-3 ENT-2", "extreme")
def _():
    s, src = Stream(MODELS["extreme"], check=2), source(5)
    rnd = src.random
    for _ in range(4):
        s.frame([rnd.randint(-32767, 32767) for _ in range(5)],
                [rnd.choice([-32767, 32767, rnd.randint(-32767, 32767)]) for _ in range(36)])
    assert s.data()[s.marks["length"]] & 0xC0 == 0x80
    s.end()
    return s


@vector("long-form", "a one-frame chunk of kind C0", "CHUNK-3", "wide")
def _():
    s, src = Stream(MODELS["wide"], check=1), source(6)
    s.frame([0], [src.random.choice([-32767, 32767]) for _ in range(4300)])
    assert s.kinds == ["frame"] and s.data()[s.marks["kind"]] == 0xC0
    s.frame([3], lambda means: [x // 64 for x in means])
    s.end()
    return s


@vector("extreme-model", "saturation everywhere: bounds, clamps, escapes of every length",
        "MODEL-4 NET-1 NET-2 NET-3 NET-4", "extreme")
def _():
    s, src = Stream(MODELS["extreme"]), source(7)
    rnd = src.random
    for i in range(12):
        w = [rnd.choice([-32767, 32767, 0, rnd.randint(-32767, 32767)]) for _ in range(5)]
        if i == 4:
            w = [0] * 5
        s.frame(w, lambda means: [max(-32767, min(32767, x // 64 + rnd.choice([-1, 1]) * 2 ** rnd.randint(0, 15)))
                                  for x in means])
    s.set_quality(1)
    for _ in range(4):
        s.frame([rnd.randint(-9, 9) for _ in range(5)], src.y(s.model))
    s.end()
    return s


@vector("narrow-model", "tables of one value, window 1, widths 2, ranges next to zero", "MODEL-9 MODEL-8",
        "narrow")
def _():
    s, rnd = Stream(MODELS["narrow"]), random.Random(8)
    for _ in range(20):
        s.frame([rnd.randint(0, 3) for _ in range(2)], [rnd.randint(-1, 0) for _ in range(6)])
    s.end()
    return s


def lowest(m, q=0):
    """The W and Y whose payload is empty: every symbol is the low escape, every d is 0."""
    w = [m.hyper_prior[q * m.c + c][0] - 1 for c in range(m.c)]
    assert min(w) >= m.w_min
    return w


@vector("empty-payload", "a frame that costs no byte", "SEAL-1 SEAL-2")
def _():
    s, src = Stream(A()), source(9)
    some(s, src, 2)
    empty_frame(s)
    assert s.data()[-1] == 0
    some(s, src, 2)
    s.end()
    return s


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


@vector("batch", "a batch of one lane", "BATCH-3 DEC-2")
def _():
    s, src = Stream(A(), check=1), source(10)
    s.batch(src.frames(s.model, 7))
    some(s, src, 1)
    s.batch(src.frames(s.model, 2))
    s.end()
    return s


@vector("batch-lanes", "batches of several lanes", "BATCH-3 LANE-1 LANE-2 DEC-2")
def _():
    s, src = Stream(A(), check=2), source(11)
    s.batch(src.frames(s.model, 10), lanes=3)
    s.batch(src.frames(s.model, 11), lanes=4)
    s.end()
    return s


@vector("batch-lane-per-frame", "as many lanes as frames, of very different lengths", "BATCH-2 LANE-1")
def _():
    s, src = Stream(A()), source(12)
    frames = src.frames(s.model, 12, spread=1, escapes=0)
    for i in (0, 5, 6, 11):
        frames[i] = (frames[i][0], src.y(s.model, spread=120))
    s.batch(frames, lanes=12)
    s.end()
    return s


@vector("batch-empty-lanes", "lanes without a byte", "LANE-1 SEAL-1", "narrow")
def _():
    s = Stream(MODELS["narrow"])
    # The tables' low escape stands below the range, so a lane is empty when no value needs a byte.
    rows = [([0, 0], [0] * 6)] * 4 + [([3, 0], [-1] * 6)] * 2 + [([0, 0], [0] * 6)] * 2
    s.batch(rows, lanes=8)
    s.end()
    return s


@vector("batch-large", "a batch of 64 frames in 13 lanes", "LANE-1 NET-3", "b")
def _():
    s, src = Stream(B()), source(14)
    s.batch(src.frames(s.model, 64), lanes=13)
    s.checkpoint()
    s.end()
    return s


@vector("quality", "quality switches; the context goes on", "DEC-6 NET-5")
def _():
    s, src = Stream(A(), quality=1), source(15)
    some(s, src, 3)
    s.set_quality(2)
    some(s, src, 3)
    s.set_quality(0)
    s.batch(src.frames(s.model, 5), lanes=2)
    s.set_quality(0)
    s.checkpoint()
    s.end()
    return s


@vector("model-switch", "to another model and back", "DEC-7 MODEL-11 CTRL-5", "a b")
def _():
    s, src = Stream(A(), check=2), source(16)
    some(s, src, 4)
    s.switch(B())
    some(s, src, 4)
    s.checkpoint()
    s.switch(A(), 2)
    some(s, src, 3)
    s.reset(1)
    some(s, src, 2)
    s.end()
    return s


@vector("reset", "context resets, with another quality too", "CTRL-3 CTRL-5 DEC-5 NET-6")
def _():
    s, src = Stream(A(), check=2), source(17)
    s.reset()
    some(s, src, 4)
    s.reset(2)
    s.reset()
    some(s, src, 3)
    s.end()
    return s


@vector("checkpoints", "checkpoints; two at one index", "DEC-8 CTRL-2")
def _():
    s, src = Stream(A()), source(18)
    s.checkpoint()
    some(s, src, 3)
    s.checkpoint()
    s.checkpoint()
    some(s, src, 2)
    s.checkpoint()
    s.end()
    return s


@vector("rewind", "rewinds, one behind another, to the limit", "CTRL-4 CTRL-5 DEC-5 NET-6")
def _():
    s, src = Stream(A(), check=2, max_rewind=6), source(19)
    some(s, src, 8)
    s.rewind(5)
    some(s, src, 2)
    s.rewind(4)
    s.rewind(2)  # 8 - 2 is the limit
    some(s, src, 9)
    s.rewind(10)
    s.end()
    return s


@vector("rewind-checkpoint", "rewinds across a checkpoint, to one, and behind one", "DEC-9 DEC-5")
def _():
    s, src = Stream(A()), source(20)
    some(s, src, 3)
    s.checkpoint()
    some(s, src, 3)
    s.checkpoint()
    some(s, src, 2)
    s.rewind(7)
    s.checkpoint()
    some(s, src, 1)
    s.rewind(6)
    s.checkpoint()
    some(s, src, 2)
    s.rewind(4)
    some(s, src, 1)
    s.checkpoint()
    s.rewind(1)
    s.end()
    return s


@vector("rewind-quality", "a rewind leaves the quality in force; a rewind to the context's start",
        "DEC-5")
def _():
    s, src = Stream(A(), check=1), source(21)
    some(s, src, 3)
    s.reset()
    some(s, src, 3)
    s.set_quality(2)
    some(s, src, 1)
    s.rewind(3)
    some(s, src, 3)
    s.end()
    return s


def halves(rnd, n):
    return struct.pack(f"<{n}e", *(rnd.choice([0.5, -2.25, 65504.0, 6e-8, -0.0, 1 / 3]) for _ in range(n)))


@vector("exact", "exact frames of every dtype", "CTRL-6 CTRL-8")
def _():
    s, src = Stream(A()), source(22)
    some(s, src, 2)
    rnd = src.random
    s.exact(*src.frame(s.model), 0, struct.pack("<12f", *(rnd.gauss(0, 5) for _ in range(12))))
    s.exact(*src.frame(s.model), 1, halves(rnd, 12))
    some(s, src, 1)
    s.exact(*src.frame(s.model), 2, struct.pack("<12H", *(rnd.randrange(0x3000, 0x4800) for _ in range(12))))
    s.checkpoint()
    some(s, src, 2)
    s.end()
    return s


@vector("exact-check", "an exact frame with a check (kind C9 over the payload)", "CHECK-1 CTRL-6")
def _():
    s, src = Stream(A(), check=2), source(23)
    some(s, src, 2)
    s.exact(*src.frame(s.model), 1, halves(src.random, 12))
    some(s, src, 2)
    s.end()
    return s


@vector("extensions", "ignorable extensions, known to nobody and grease", "CTRL-7")
def _():
    s, src = Stream(A()), source(24)
    s.extension(27, b"")
    some(s, src, 1)
    s.extension(5, b"\0\1\2")
    s.extension(27 + 31 * 1000, bytes(300))
    some(s, src, 1)
    s.extension(2**32 - 1, b"x")
    s.end()
    return s


@vector("header-fields", "optional fields: producer, grease, an unknown one; host digest", "HDR-7")
def _():
    s, src = Stream(A(), host=bytes(range(32)),
                    optional=[(2, "a conformance generator".encode()), (40, b"\xff\0"),
                              (5002, b""), (40 + 62 * 999, bytes(200))]), source(25)
    some(s, src, 1)
    s.end()
    return s


@vector("format-version-2", "a later format version that version 1 readers may read", "HDR-2")
def _():
    s, src = Stream(A(), head=replace("format", b"\2")), source(26)
    some(s, src, 2)
    s.end()
    return s


@vector("limits-large", "the largest limits a header may declare", "HDR-3 VARINT-1")
def _():
    s, src = Stream(A(), max_frames=2**20, max_bytes=2**30, max_rewind=2**20, version=2**32 - 1), source(27)
    some(s, src, 1)
    s.batch(src.frames(s.model, 3), lanes=2)
    s.end()
    return s


@vector("limit-exact", "a chunk of exactly max chunk bytes, a batch of exactly max frames",
        "CHUNK-2 BATCH-1")
def _():
    s, src = Stream(A(), max_frames=3, max_bytes=64), source(28)
    s.batch(src.frames(s.model, 3, spread=1, escapes=0))
    s.extension(1, bytes(64 - 1 - 4))
    some(s, src, 1)
    s.end()
    return s


# -- valid: file and messages -------------------------------------------------------------------


@vector("file", "a file with a seek index over resets and a model switch", "FILE-1 FILE-2", "a b",
        )
def _():
    s, src = Stream(A(), file=True), source(30)
    some(s, src, 3)
    s.reset()
    some(s, src, 2)
    s.switch(B())
    some(s, src, 2)
    s.reset()
    s.end()
    s.seek_index()
    return s


@vector("file-empty-index", "a file whose seek index is empty", "FILE-1")
def _():
    s, src = Stream(A(), file=True), source(31)
    some(s, src, 1)
    s.end()
    s.seek_index([])
    return s


@vector("messages", "every joined chunk as a message", "MSG-1 MSG-2 MSG-3")
def _():
    s, src = Stream(A(), binding="messages", check=1), source(32)
    some(s, src, 3)
    s.batch(src.frames(s.model, 5), lanes=2)
    s.checkpoint()
    s.set_quality(1)
    s.exact(*src.frame(s.model), 0, struct.pack("<12f", *range(12)))
    s.reset()
    some(s, src, 2)
    s.rewind(s.index - 1)
    s.extension(27, b"\0")
    some(s, src, 1)
    s.end()
    return s


@vector("messages-empty", "an empty message is a frame", "MSG-2 SEAL-1")
def _():
    s, src = Stream(A(), binding="messages"), source(33)
    empty_frame(s)
    assert s.messages[-1] == b""
    some(s, src, 2)
    s.end()
    return s


@vector("messages-layered", "layered mode in messages", "MSG-3 CHECK-2")
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(34)
    some(s, src, 2)
    s.target(0)
    s.batch(src.frames(s.model, 3))
    s.target(1, count=3)
    s.target(4)
    s.end()
    return s


# -- valid: layered -----------------------------------------------------------------------------


@vector("layered", "each target right behind its hyper-prior", "DEC-2")
def _():
    s, src = Stream(A(), layered=True), source(40)
    for i in range(6):
        some(s, src, 1)
        s.target(i)
    s.end()
    return s


@vector("layered-batches", "batches and target batches with lanes of their own", "BATCH-3 LANE-1")
def _():
    s, src = Stream(A(), layered=True, check=1, horizon=12), source(41)
    s.batch(src.frames(s.model, 9), lanes=2)
    s.target(0, count=9, lanes=4)
    s.batch(src.frames(s.model, 4), lanes=4)
    some(s, src, 1)
    s.target(9, count=2)
    s.target(11, count=3, lanes=2)
    s.end()
    return s


@vector("layered-reordered", "targets in any order; a checkpoint that waits for them", "DEC-10")
def _():
    s, src = Stream(A(), layered=True), source(42)
    some(s, src, 4)
    s.target(2)
    s.checkpoint()
    some(s, src, 2)
    s.target(5)
    s.target(0)
    s.checkpoint()
    s.target(3)
    s.target(1)
    some(s, src, 1)
    s.target(4)
    s.target(6)
    s.checkpoint()
    s.end()
    return s


@vector("layered-never", "lost targets stay missing at the end", "DEC-17 DEC-8")
def _():
    s, src = Stream(A(), layered=True), source(43)
    some(s, src, 5)
    s.target(4)
    s.target(0)
    s.target(2)
    s.end(unverifiable=True)
    return s


@vector("layered-conceal-end", "lost targets are concealed at the end", "DEC-13 DEC-17", conceal="end")
def _():
    s, src = Stream(A(), layered=True), source(44)
    some(s, src, 5)
    s.target(4)
    s.target(0)
    s.target(2)
    s.conceal(1, 3)
    s.end(unverifiable=True)
    return s


@vector("layered-conceal-overdue", "overdue frames are concealed; their target comes late", "DEC-13 DEC-14",
        conceal="overdue")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(45)
    some(s, src, 3)
    s.target(1)
    some(s, src, 1)  # 0, 2, 3 are pending
    s.conceal(0)
    some(s, src, 1)
    s.target(0, "late", of=[s.timeline[0]])
    s.conceal(2, 3)
    s.batch(src.frames(s.model, 2))  # 4, 5, 6
    for i in (4, 5, 6):
        s.target(i)
    s.checkpoint(unverifiable=True)
    some(s, src, 1)
    s.target(7)
    s.checkpoint()
    s.end()
    return s


@vector("layered-late", "targets twice, and of an epoch that is past", "DEC-16")
def _():
    s, src = Stream(A(), layered=True), source(46)
    some(s, src, 3)
    s.target(0)
    s.target(0, "late")
    s.target(1)
    old = s.timeline[2]
    s.reset()
    s.target(2, "late", of=[old])
    some(s, src, 2)
    s.target(3)
    s.target(4)
    s.checkpoint()
    s.end()
    return s


def flip(name, bit=0):
    def edit(parts):
        for part in parts:
            if part[0] == name:
                part[1] = bytes([part[1][0] ^ 1 << bit]) + part[1][1:]

    return edit


@vector("layered-damaged", "targets with a wrong check, a wrong epoch and a corrupt payload",
        "CHECK-2 DEC-12", conceal="end")
def _():
    s, src = Stream(A(), layered=True), source(47)
    some(s, src, 5)
    s.target(0, "damaged", after=flip("payload0", 3))
    s.target(0)
    s.target(1, "damaged", after=flip("check"))
    s.target(2, "damaged", payload=lambda p: [b"\xff" * 8])
    s.target(2, "damaged", payload=lambda p: [p[0] + b"\0"])
    s.target(2)
    s.target(3)
    s.target(4)
    s.conceal(1)
    s.end(unverifiable=True)
    return s


def drop(first, last=None):
    """Takes parts out of a body."""

    def edit(parts):
        del parts[first:last]

    return edit


@vector("layered-damaged-body", "targets whose bodies cannot be read", "CHECK-2 CHUNK-5 BATCH-1 BATCH-2 LANE-1")
def _():
    s, src = Stream(A(), layered=True, max_frames=6), source(120)
    s.batch(src.frames(s.model, 4))
    for first in (0, 1, 2):  # cut before the index, the epoch, the check
        s.target(0, "damaged", after=drop(first))
    s.target(0, "damaged", after=replace("check", b"\1"), payload=lambda p: [b""])
    many = {"count": 4, "lanes": 2}
    s.target(0, "damaged", after=drop(2), **many)
    s.target(0, "damaged", after=replace("frames", b"\0"), **many)
    s.target(0, "damaged", after=replace("frames", varint(64)), **many)
    s.target(0, "damaged", after=replace("frames", b"\xff"), **many)
    s.target(0, "damaged", after=replace("lanes", varint(4)), **many)
    s.target(0, "damaged", after=replace("table", bytes(9)), **many)
    s.target(0, "damaged", after=drop(4), **many)
    s.target(0, **many)
    s.end()
    return s


@vector("layered-damaged-lane", "a target batch whose second lane is corrupt changes nothing", "DEC-12")
def _():
    s, src = Stream(A(), layered=True), source(48)
    s.batch(src.frames(s.model, 4))
    s.target(0, "damaged", count=4, lanes=2, payload=lambda p: [p[0], b"\xff" * 9])
    s.target(0, count=4, lanes=2)
    s.end()
    return s


@vector("layered-rewind", "a rewind drops pending frames; the epoch tells old targets", "DEC-16 CTRL-5")
def _():
    s, src = Stream(A(), layered=True), source(49)
    some(s, src, 4)
    s.target(0)
    old = s.timeline[2]
    s.rewind(2)
    s.target(2, "damaged", of=[old])  # there is no index 2 below the next frame's
    s.target(1, "late", epoch=1)  # its hyper-prior was coded in epoch 0
    s.target(1)
    some(s, src, 3)
    s.target(2, "late", of=[old])
    s.target(2)
    s.target(4)
    s.target(3)
    s.checkpoint()
    s.end()
    return s


@vector("layered-rewind-horizon", "frames that a rewind drops make room below the horizon", "DEC-14 DEC-16",
        conceal="end")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(52)
    some(s, src, 3)
    s.rewind(1)
    some(s, src, 2)
    s.target(0)
    s.target(2)
    s.conceal(1)
    s.end(unverifiable=True)
    return s


@vector("layered-rewind-end", "frames that a rewind drops are not pending at the end", "DEC-16 DEC-17",
        conceal="end")
def _():
    s, src = Stream(A(), layered=True), source(54)
    some(s, src, 3)
    s.rewind(1)
    s.conceal(0)
    s.end(unverifiable=True)
    return s


@vector("layered-horizon-age", "the oldest pending frame is overdue although few are pending", "DEC-14",
        conceal="overdue")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(55)
    some(s, src, 1)
    for i in (1, 2):
        some(s, src, 1)
        s.target(i)
    s.conceal(0)
    some(s, src, 1)
    s.target(3)
    s.end(unverifiable=True)
    return s


@vector("messages-target-behind-end", "targets that the end chunk has overtaken", "MSG-5 DEC-10")
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(56)
    some(s, src, 4)
    s.target(1)
    s.end()
    s.target(2, count=2)
    s.target(1, "late")
    s.target(0)
    return s


@vector("layered-epoch-wrap", "an epoch above 255, and a target of the epoch 256 before", "CTRL-5 CHECK-2")
def _():
    s, src = Stream(A(), layered=True, check=2), source(53)
    for _ in range(258):
        s.reset()
    some(s, src, 2)
    s.target(1, "damaged", epoch=s.epoch - 256)
    s.target(1)
    s.target(0, "late", epoch=s.epoch - 1)
    s.target(0)
    s.end()
    return s


@vector("layered-quality", "a quality switch and an exact frame while targets are pending",
        "CTRL-8 DEC-6")
def _():
    s, src = Stream(A(), layered=True, quality=1), source(50)
    some(s, src, 2)
    s.set_quality(2)
    some(s, src, 1)
    s.exact(*src.frame(s.model), 2, bytes(range(64, 88)))
    s.target(2)
    s.target(1)
    s.target(0)
    s.end()
    return s


@vector("layered-reset-pending", "a reset while targets are pending", "DEC-16 DEC-8")
def _():
    s, src = Stream(A(), layered=True), source(51)
    some(s, src, 3)
    s.target(1)
    s.checkpoint(unverifiable=True)
    s.reset()
    some(s, src, 1)
    s.target(3)
    s.end()
    return s


# -- invalid: header ----------------------------------------------------------------------------


def replace(name, value):
    def edit(parts):
        for part in parts:
            if part[0] == name:
                part[1] = value

    return edit


def bad_header(name, code, part, rules, edit=None, text="", binding="stream", **options):
    @vector(name, text or f"the header's field {part}", rules, code=code, container=True)
    def _():
        s = Stream(A(), binding=binding, head=edit, fault=part, **options)
        s.end()
        return s


bad_header("bad-magic", 201, "start", "HDR-1", replace("magic", b"MSP\x9f"))
bad_header("bad-version-0", 203, "format", "HDR-2", replace("format", b"\0"))
bad_header("bad-reader-version-0", 203, "least", "HDR-2", replace("least", b"\0"))
bad_header("bad-reader-version-2", 202, "least", "HDR-2",
           lambda p: [replace("format", b"\2")(p), replace("least", b"\2")(p)])
bad_header("bad-header-length-low", 103, "length", "HDR-3", replace("length", varint(38)))
bad_header("bad-header-length-high", 103, "length", "HDR-3", replace("length", varint(4097)))
bad_header("bad-header-length-form", 101, "length", "VARINT-1", replace("length", varint(43, 2)))
bad_header("bad-header-crc", 204, "crc", "HDR-4", replace("crc", b"\1\2\3\4"))
bad_header("bad-flags-mode", 205, "flags", "HDR-5", replace("flags", b"\2"))
bad_header("bad-flags-check", 205, "flags", "HDR-5", replace("flags", b"\x0c"))
bad_header("bad-flags-reserved", 205, "flags", "HDR-5", replace("flags", b"\x40"))
bad_header("bad-flags-file-messages", 205, "flags", "HDR-10", replace("flags", b"\x20"),
           binding="messages")
bad_header("bad-tracks", 206, "tracks", "HDR-6", replace("tracks", b"\2"))
bad_header("bad-max-frames", 103, "max_frames", "VARINT-3", replace("max_frames", b"\0"))
bad_header("bad-max-bytes", 103, "max_bytes", "VARINT-3", replace("max_bytes", varint(63)))
bad_header("bad-max-rewind", 103, "max_rewind", "VARINT-3", replace("max_rewind", varint(2**20 + 1)))
bad_header("bad-model-version", 103, "version", "VARINT-3", replace("version", varint(2**32)))
bad_header("bad-model-version-reserved", 102, "version", "VARINT-2", replace("version", b"\xff\0"))
bad_header("bad-horizon", 103, "horizon", "VARINT-3", replace("horizon", varint(2**16 + 1)), layered=True)
bad_header("bad-optional-order", 207, "id1", "HDR-7", optional=[(102, b""), (40, b"")])
bad_header("bad-optional-twice", 207, "id1", "HDR-7", optional=[(40, b""), (40, b"")])
bad_header("bad-optional-critical", 208, "id0", "HDR-7", optional=[(3, b"x")])
bad_header("bad-optional-length", 209, "size1", "HDR-8", replace("size1", varint(9)),
           optional=[(2, b"ab"), (40, b"x")])
bad_header("bad-header-short", 209, "host", "HDR-8", replace("flags", b"\x10"))


@vector("bad-first-message", "the first message ends without the byte 00", "MSG-1", code=401, container=True,
        )
def _():
    s = Stream(A(), binding="messages", first_tail=b"", fault="behind")
    return s


# -- invalid: container -------------------------------------------------------------------------


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


def typed(kind, body, **names):
    """A chunk of raw bytes, with its marks."""
    return [["kind", bytes([kind])], ["length", varint(len(body))], ["body", body]]


@bad("bad-kind", 301, "CHUNK-1", "a reserved kind")
def _(s, src):
    s.put(typed(0xD0, b"abc"), "kind")


@bad("bad-kind-ff", 301, "CHUNK-1", "kind FF")
def _(s, src):
    s.put(typed(0xFF, b""), "kind")


@bad("bad-kind-target", 304, "CHUNK-4", "a target in joined mode")
def _(s, src):
    s.put(typed(0xC2, bytes(6)), "kind")


@bad("bad-kind-seek", 305, "CHUNK-4", "a seek index before the end", file=True)
def _(s, src):
    s.put(typed(0xCB, b"\0" + le(crc(b"\xcb\0"), 4)), "kind")


@bad("bad-length-typed", 302, "CHUNK-2", "a body above the limit", max_bytes=300)
def _(s, src):
    s.extension(27, bytes(301 - 1 - 4), fault="length")


@bad("bad-length-huge", 302, "CHUNK-2", "a length of 2^56 - 1")
def _(s, src):
    s.put([["kind", b"\xe0"], ["length", varint(2**56 - 1)]], "length")


@bad("bad-length-frame", 302, "CHUNK-2", "a one-frame chunk of medium form above the limit", max_bytes=120,
     max_frames=4)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: bytes([7]) * 130, fault="length")


@bad("bad-length-before-form", 302, "CHUNK-2 CHUNK-3", "kind C0 for a short body that is above the limit",
     max_bytes=120, max_frames=4)
def _(s, src):
    s.put([["kind", b"\xc0"], ["length", varint(200)]], "length")


@bad("bad-length-form", 101, "VARINT-1", "a length that is not written shortest")
def _(s, src):
    body = b"\x1b" + le(crc(b"\xe0\x1b"), 4)
    s.put([["kind", b"\xe0"], ["length", varint(5, 3)], ["body", body]], "length")


@bad("bad-length-reserved", 102, "VARINT-2", "a length that begins with FF")
def _(s, src):
    s.put([["kind", b"\xe0"], ["length", b"\xff" + bytes(8)]], "length")


@bad("bad-frame-form", 303, "CHUNK-3", "kind C0 for a short body")
def _(s, src):
    def lead(n):
        return [["kind", b"\xc0"], ["length", varint(n)]]

    frame = s.new_frame(*src.frame(s.model))
    payload = s.payload([frame])
    s.put([*lead(len(payload)), ["payload", payload]], "length")


@bad("bad-frame-form-16511", 303, "CHUNK-3", "kind C0 for a body of 16,511 bytes")
def _(s, src):
    s.put([["kind", b"\xc0"], ["length", varint(16511)], ["payload", bytes(16510) + b"\1"]], "length")


@bad("bad-body-short", 306, "CHUNK-5", "a checkpoint that ends inside its Y digest")
def _(s, src):
    s.checkpoint(edit=lambda p: replace("y_digest", b"\1\2")(p), fault="y_digest")


@bad("bad-body-no-crc", 306, "CHUNK-5", "a control chunk too short for its crc")
def _(s, src):
    s.put(typed(0xC7, b"\1\2\3"), "body")


@bad("bad-body-long", 306, "CHUNK-5", "a byte behind the last field of a quality switch")
def _(s, src):
    s.set_quality(0, edit=lambda p: p.insert(1, ["extra", b"\0"]), fault="extra")


@bad("bad-body-empty-check", 306, "CHUNK-5", "a one-frame chunk without room for its check", check=2)
def _(s, src):
    s.put([["lead", b"\1"], ["body", b"\7"]], "body")


@bad("bad-varint-body", 101, "VARINT-1", "an index that is not written shortest")
def _(s, src):
    s.checkpoint(edit=replace("index", varint(3, 2)), fault="index")


@vector("bad-data-behind-end", "a byte behind the end", "CHUNK-7", code=307, container=True)
def _():
    s, src = Stream(A()), source(60)
    some(s, src, 1)
    s.end()
    s.raw(b"\0", "raw")
    return s


@vector("bad-message-behind-end", "a message behind the end", "MSG-5", code=307, container=True)
def _():
    s, src = Stream(A(), binding="messages"), source(61)
    some(s, src, 1)
    s.end()
    s.raw(b"\x55", "raw")
    return s


@vector("bad-message-behind-layered-end", "a hyper-prior message behind the end", "MSG-5", code=307,
        container=True)
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(62)
    some(s, src, 1)
    s.end()
    s.frame(*src.frame(s.model), fault="start")
    return s


@vector("bad-target-behind-end", "a target behind the end of a byte stream", "CHUNK-7", code=307,
        container=True)
def _():
    s, src = Stream(A(), layered=True), source(63)
    some(s, src, 1)
    s.end(unverifiable=True)
    s.target(0, fault="start")
    return s


@bad("bad-message-short", 308, "MSG-3", "the message 00", binding="messages")
def _(s, src):
    s.raw(b"\0", "raw")


@bad("bad-message-c0", 303, "MSG-3", "kind C0 as a message", binding="messages")
def _(s, src):
    s.raw(b"\xc0\7\0", "raw")


@bad("bad-message-kind", 301, "MSG-3", "a typed message whose kind is below C0", binding="messages")
def _(s, src):
    s.raw(b"\x12\7\0", "raw")


@bad("bad-message-header", 301, "MSG-4", "a second stream header", binding="messages")
def _(s, src):
    s.raw(s.messages[0], "raw")


@bad("bad-message-seek", 305, "CHUNK-4", "a seek index as a message", binding="messages")
def _(s, src):
    s.raw(b"\xcb\0" + le(crc(b"\xcb\0"), 4) + b"\0", "raw")


@bad("bad-message-target", 304, "CHUNK-4", "a target as a message in joined mode", binding="messages")
def _(s, src):
    s.raw(b"\xc2\0\0\0\1\1\0", "raw")


@bad("bad-message-length", 302, "CHUNK-2", "a message above the limit", binding="messages", max_bytes=120)
def _(s, src):
    s.raw(b"\7" * 121, "raw")


@bad("bad-batch-frames", 309, "BATCH-1", "a batch of more frames than the header allows", max_frames=4)
def _(s, src):
    s.batch(src.frames(s.model, 5), fault="frames")


@bad("bad-batch-horizon", 309, "BATCH-1", "a hyper-prior batch of more frames than the horizon",
     layered=True, horizon=4)
def _(s, src):
    s.batch(src.frames(s.model, 5), fault="frames")


@bad("bad-batch-one", 310, "BATCH-1", "a batch of one frame")
def _(s, src):
    s.batch(src.frames(s.model, 1), fault="frames")


@bad("bad-batch-lanes", 311, "BATCH-2", "more lanes than frames")
def _(s, src):
    s.batch(src.frames(s.model, 3), edit=replace("lanes", varint(3)), fault="lanes")


@bad("bad-lane-exponent", 312, "LANE-1", "25 zero bits in the lane table")
def _(s, src):
    s.batch(src.frames(s.model, 4), lanes=2, edit=replace("table", bytes(5)), fault="table")


@bad("bad-lane-negative", 312, "LANE-1", "a lane of negative length")
def _(s, src):
    def edit(parts):
        behind = sum(len(piece) for name, piece in parts if name.startswith("payload"))
        replace("table", s.closed_table(behind, [(0, 2), (2, 4)], [-1, 0], 4))(parts)

    s.batch(src.frames(s.model, 4), lanes=2, edit=edit, fault="table")


@bad("bad-lane-sum", 312, "LANE-1", "lanes longer than the body")
def _(s, src):
    def edit(parts):
        behind = sum(len(piece) for name, piece in parts if name.startswith("payload"))
        replace("table", s.closed_table(behind, [(0, 2), (2, 4)], [behind + 1, 0], 4))(parts)

    s.batch(src.frames(s.model, 4), lanes=2, edit=edit, fault="table")


@bad("bad-lane-padding", 313, "LANE-2", "the closing one bit does not end its byte")
def _(s, src):
    def edit(parts):
        table = next(piece for name, piece in parts if name == "table")
        assert table[-1] & 3 == 1  # one padding bit at least
        replace("table", table[:-1] + bytes([table[-1] | 2]))(parts)

    frames = src.frames(s.model, 6)
    s.batch(frames, lanes=2, edit=edit, fault="table")


@bad("bad-exact-dtype", 314, "CTRL-6", "an exact frame of dtype 3")
def _(s, src):
    s.exact(*src.frame(s.model), 3, bytes(24), fault="dtype")


@bad("bad-exact-length", 306, "CTRL-6", "an exact frame whose frame exceeds the body")
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(24), edit=replace("frame_length", varint(127)), fault="frame_length")


@bad("bad-extension-critical", 315, "CTRL-7", "an unknown critical extension")
def _(s, src):
    s.extension(4, b"ab", kind=0xF0, fault="id")


@bad("bad-extension-crc", 403, "CTRL-1 CTRL-7", "an ignorable extension with a wrong crc")
def _(s, src):
    s.extension(27, b"ab", after=flip("crc"), fault="crc")


@bad("bad-extension-id", 103, "VARINT-3", "an extension id of 2^32")
def _(s, src):
    s.extension(2**32, b"ab", fault="id")


def bad_file(name, code, rules, text, entries=None, **options):
    @vector(name, text, rules, code=code, container=True)
    def _():
        s, src = Stream(A(), file=True), source(70)
        some(s, src, 2)
        s.reset()
        some(s, src, 2)
        s.reset()
        s.end()
        s.seek_index(entries(s) if entries else None, **options)
        return s


bad_file("bad-footer-offset", 316, "FILE-1", "a footer that points elsewhere",
         footer=flip("footer_offset"), footer_fault="footer_offset")
bad_file("bad-footer-magic", 316, "FILE-1", "a footer without its magic",
         footer=flip("footer_magic"), footer_fault="footer_magic")
bad_file("bad-footer-cut", 401, "FILE-1", "a footer cut short",
         footer=lambda p: p.__setitem__(1, ["footer_magic", b"MSP"]), footer_fault="behind")
bad_file("bad-footer-behind", 307, "FILE-1", "a byte behind the footer",
         footer=lambda p: p.append(["extra", b"\0"]), footer_fault="extra")
bad_file("bad-seek-same", 317, "FILE-2", "an offset that does not ascend",
         entries=lambda s: [s.seek[0], (4, s.seek[0][1])], fault="offset1")
bad_file("bad-seek-beyond", 317, "FILE-2", "an offset at the seek index itself",
         entries=lambda s: [s.seek[0], (4, s.size())], fault="offset1")
bad_file("bad-seek-crc", 403, "CTRL-1", "a seek index with a wrong crc", after=flip("crc"), fault="crc")
bad_file("bad-seek-count", 306, "CHUNK-5", "a seek index that counts an entry too many",
         edit=replace("count", varint(3)), fault="crc")


@vector("bad-file-no-index", "no seek index behind the end of a file", "FILE-1", code=305, container=True)
def _():
    s, src = Stream(A(), file=True), source(71)
    some(s, src, 1)
    s.end()
    s.raw(b"MSPX", "raw")
    return s


def cut(name, text, keep, **options):
    """`keep(s)` is the length that is left of a whole stream."""

    @vector(name, text, "CHUNK-6 END-1", code=401, container=True)
    def _():
        s, src = Stream(A(), **options), source(72)
        for _ in range(2):
            some(s, src, 1)
        s.checkpoint()
        kinds = list(s.kinds)
        before = s.size()
        s.end()
        n = keep(s, before)
        left = s.data()[:n]
        assert len(left) < s.size()
        s.fault_kinds = kinds if n >= before else []
        s.messages = [left]
        s.fault_offset = n
        return s


cut("bad-cut-empty", "no byte at all", lambda s, before: 0)
cut("bad-cut-magic", "cut inside the magic", lambda s, before: 3)
cut("bad-cut-header", "cut inside the header's crc", lambda s, before: len(s.messages[0]) - 1)
cut("bad-cut-no-end", "cut before the end chunk", lambda s, before: before)
cut("bad-cut-length", "cut behind the end chunk's kind", lambda s, before: before + 1)
cut("bad-cut-end", "the end chunk's last byte is missing", lambda s, before: s.size() - 1)


@vector("bad-messages-no-end", "messages without an end chunk", "CHUNK-6", code=401, container=True)
def _():
    s, src = Stream(A(), binding="messages"), source(73)
    some(s, src, 2)
    s.broken(s.size())
    return s


@bad("bad-check8", 402, "CHECK-1", "a check of one byte that differs", check=1)
def _(s, src):
    s.frame(*src.frame(s.model), after=flip("check", 4), fault="check")


@bad("bad-check16-payload", 402, "CHECK-1", "a batch with one bit flipped in its payload", check=2)
def _(s, src):
    s.batch(src.frames(s.model, 4), lanes=2, after=flip("payload1", 2), fault="check")


@bad("bad-control-crc", 403, "CTRL-1", "a reset with one bit flipped in its epoch")
def _(s, src):
    s.reset(after=flip("epoch"), fault="crc")


@bad("bad-checkpoint-index", 404, "CTRL-2", "a checkpoint at another index")
def _(s, src):
    s.checkpoint(edit=replace("index", varint(2)), fault="index")


@bad("bad-reset-index", 404, "CTRL-3", "a reset at another index")
def _(s, src):
    s.reset(edit=replace("index", varint(4)), fault="index")


@bad("bad-reset-epoch", 406, "CTRL-3", "a reset that leaves an epoch out")
def _(s, src):
    s.reset(edit=replace("epoch", varint(2)), fault="epoch")


@bad("bad-switch-index", 404, "CTRL-3", "a model switch at another index", "a b")
def _(s, src):
    s.switch(B(), edit=replace("index", varint(4)), fault="index")


@bad("bad-switch-epoch", 406, "CTRL-3", "a model switch that leaves an epoch out", "a b")
def _(s, src):
    s.switch(B(), edit=replace("epoch", varint(2)), fault="epoch")


@bad("bad-checkpoints-waiting", 318, "DEC-18", "one checkpoint more than may wait for a target",
     container=False, layered=True, horizon=3)
def _(s, src):
    for _ in range(4):
        s.checkpoint()
    s.checkpoint(fault="index")


@bad("bad-reset-model", 502, "CTRL-3", "a reset of another model")
def _(s, src):
    s.reset(edit=flip("prefix"), fault="prefix")


@bad("bad-end-total", 405, "CTRL-2", "an end chunk that does not count a rewound frame")
def _(s, src):
    s.rewind(2)
    s.end(edit=replace("coded", varint(2)), fault="coded")


@bad("bad-rewind-next", 407, "CTRL-4", "a rewind to the next frame")
def _(s, src):
    s.rewind(3, fault="index")


@bad("bad-rewind-context", 407, "CTRL-4", "a rewind behind a reset")
def _(s, src):
    s.reset()
    some(s, src, 2)
    s.rewind(2, fault="index")


@bad("bad-rewind-far", 408, "CTRL-4", "rewinds that together go too far", max_rewind=3)
def _(s, src):
    some(s, src, 2)
    s.rewind(3)
    some(s, src, 1)
    s.rewind(1, fault="index")


# -- invalid: with a model ----------------------------------------------------------------------


@bad("bad-w-digest", 409, "DEC-8", "a checkpoint with another W digest", container=False)
def _(s, src):
    s.checkpoint(edit=flip("w_digest"), fault="w_digest")


@bad("bad-y-digest", 410, "DEC-8", "a checkpoint with another Y digest", container=False)
def _(s, src):
    s.checkpoint(edit=flip("y_digest"), fault="y_digest")


@bad("bad-y-digest-end", 410, "DEC-8", "an end chunk with another Y digest", container=False)
def _(s, src):
    s.checkpoint()
    some(s, src, 1)
    s.end(edit=flip("y_digest"), fault="y_digest")


@bad("bad-y-digest-not-restarted", 410, "DEC-8", "a Y digest that goes on across a checkpoint",
     container=False)
def _(s, src):
    s.checkpoint()
    some(s, src, 2)
    s.checkpoints[-1] = 0
    s.checkpoint(fault="y_digest")


@vector("bad-y-digest-late", "a Y digest found wrong when the last target comes", "DEC-10", code=410)
def _():
    s, src = Stream(A(), layered=True), source(80)
    some(s, src, 3)
    s.target(0)
    s.checkpoint(edit=flip("y_digest"))
    at = s.marks["y_digest"]
    s.target(2)
    s.broken(at)
    kinds = list(s.kinds)
    s.target(1)
    s.fault_kinds = kinds
    s.end()
    return s


@vector("bad-model", "a stream of another model", "MODEL-11", "b", code=501)
def _():
    s, src = Stream(A(), fault="fingerprint"), source(81)
    some(s, src, 2)
    s.end()
    return s


@bad("bad-switch-model", 501, "DEC-7", "a switch to a model that is not there", container=False)
def _(s, src):
    s.switch(B(), fault="fingerprint")


@vector("bad-quality-header", "a quality the model does not have, in the header", "DEC-6", code=504)
def _():
    s, src = Stream(A(), head=replace("quality", b"\3"), fault="quality"), source(82)
    some(s, src, 2)
    s.end()
    return s


@bad("bad-quality", 504, "DEC-6", "a quality the model does not have, in a switch", container=False)
def _(s, src):
    s.set_quality(3, fault="quality")


@bad("bad-quality-reset", 504, "DEC-6", "a quality the model does not have, in a reset", container=False)
def _(s, src):
    s.reset(edit=replace("quality", b"\3"), fault="quality")


@bad("bad-quality-model", 504, "DEC-6", "a quality the other model does not have", "a b", container=False)
def _(s, src):
    s.switch(B(), 1, fault="quality")


@bad("bad-exact-hidden", 503, "CTRL-6", "a hidden state of another width", container=False)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(22), fault="hidden")


@bad("bad-payload-corrupt", 601, "ENT-1", "a payload whose number is above every interval",
     container=False, check=2)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\xff" * 8, fault="payload0")


@bad("bad-seal-zero", 602, "SEAL-2", "a payload that ends in 00", container=False)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: p + b"\0", fault="payload0")


@bad("bad-seal-only-zero", 602, "SEAL-2", "an empty payload written as 00", container=False)
def _(s, src):
    original = s.payload
    s.payload = lambda frames, **o: original(frames, **o) + b"\0"
    empty_frame(s)
    s.payload = original
    assert s.data()[-1:] == b"\0"
    s.broken("payload0")
    s.fault_kinds = s.kinds[:-1]


@bad("bad-seal-long", 602, "SEAL-2", "a payload one byte longer than needed, of the same symbols",
     container=False)
def _(s, src):
    def longer(p):
        assert s.coder.inside(p + b"\1")
        return p + b"\1"

    s.frame(*src.frame(s.model), payload=longer, fault="payload0")


@bad("bad-seal-not-smallest", 602, "SEAL-2", "the second smallest of the shortest payloads",
     container=False)
def _(s, src):
    def candidate(coder, p):
        p = p[:-1] + bytes([p[-1] + 1 & 255])
        return p if p[-1] and coder.inside(p) else None

    w, y = trial(s, src, candidate)
    s.frame(w, y, payload=lambda p: candidate(s.coder, p), fault="payload0")


@bad("bad-seal-above-empty", 602, "SEAL-2", "the smallest number above 0 of its length, for an empty payload",
     container=False)
def _(s, src):
    original = s.payload

    def above(frames, **options):
        assert original(frames, **options) == b""
        coder = s.coder
        n = 1
        while not coder.inside(bytes(n - 1) + b"\1"):
            n += 1
        return bytes(n - 1) + b"\1"

    s.payload = above
    empty_frame(s)
    s.payload = original
    s.broken("payload0")
    s.fault_kinds = s.kinds[:-1]


@bad("bad-seal-beyond-words", 602, "SEAL-2", "a payload of more bytes than the words a decoder reads",
     container=False)
def _(s, src):
    def beyond(p):
        p = p.ljust(2 * s.coder.words, b"\0") + b"\1"
        assert s.coder.inside(p)
        return p

    s.frame(*src.frame(s.model), payload=beyond, fault="payload0")


@bad("bad-seal-smaller", 602, "SEAL-2", "a smaller number than the canonical one, in a longer string",
     container=False)
def _(s, src):
    def candidate(coder, p):
        n = len(p) + 1
        longer = -(-coder.low * 256**n // (1 << 16 * coder.words))
        longer = longer.to_bytes(n, "big")
        return longer if longer[-1] and longer < p and coder.inside(longer) else None

    w, y = trial(s, src, candidate)
    s.frame(w, y, payload=lambda p: candidate(s.coder, p), fault="payload0")


def trial(s, src, good):
    """A frame for which `good(coder, payload)` holds."""
    for _ in range(200):
        copy_of = Stream(s.model)
        copy_of.context.seen = [list(x) for x in s.context.seen]
        w, y = src.frame(s.model)
        p = copy_of.payload([copy_of.new_frame(w, y)])
        if good(copy_of.coder, p):
            return w, copy_of.timeline[-1].y
    raise AssertionError


@bad("bad-seal-lane", 602, "SEAL-2 DEC-3", "the second of three lanes ends in 00", container=False)
def _(s, src):
    s.batch(src.frames(s.model, 6), lanes=3, payload=lambda p: [p[0], p[1] + b"\0", p[2]],
            fault="payload1")


@bad("bad-value-w", 603, "ENT-2", "a W below w_min", container=False)
def _(s, src):
    w, y = src.frame(s.model)
    s.frame([w[0], s.model.w_min - 1, *w[2:]], y, fault="payload0")


@bad("bad-value-y", 603, "ENT-2", "a Y above y_max", container=False)
def _(s, src):
    w, y = src.frame(s.model)

    def beyond(means):
        return [s.model.y_max + 1, *y(means)[1:]]

    s.frame(w, beyond, fault="payload0")


@bad("bad-hyper-prior-seal", 602, "SEAL-2", "a hyper-prior payload that ends in 00", container=False,
     layered=True)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: p + b"\0", fault="payload0")


@bad("bad-overdue", 806, "DEC-14", "a hyper-prior above the horizon; the caller conceals nothing",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.frame(*src.frame(s.model), fault="start")


@bad("bad-overdue-exact", 806, "DEC-14 CTRL-8", "an exact frame above the horizon; the caller conceals nothing",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e), fault="start")


@vector("layered-exact-overdue", "an exact frame, and a batch behind a gap, make pending frames overdue",
        "DEC-14 CTRL-8", conceal="overdue")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(121)
    some(s, src, 3)
    s.target(1)
    s.conceal(0)
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e))
    some(s, src, 1)
    s.conceal(2)
    s.target(4)
    some(s, src, 3)
    s.target(6)
    s.conceal(5, 7)
    s.batch(src.frames(s.model, 3))
    s.target(8, count=3)
    s.end(unverifiable=True)
    return s


@vector("bad-overdue-age", "a hyper-prior more than the horizon above the only pending frame", "DEC-14",
        code=806)
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(64)
    some(s, src, 1)
    for i in (1, 2):
        some(s, src, 1)
        s.target(i)
    s.frame(*src.frame(s.model), fault="start")
    s.end()
    return s


@vector("bad-y-digest-behind-end", "the end's Y digest found wrong by a target behind it", "MSG-5 DEC-10",
        code=410)
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(65)
    some(s, src, 2)
    s.target(1)
    s.end(edit=flip("y_digest"))
    at = s.marks["y_digest"]
    s.broken(at)
    s.target(0)
    return s


# -- invalid: models ----------------------------------------------------------------------------


def bad_model(name, code, rules, text):
    def register(change):
        @vector(name, text, rules, "", code=code, model_file=change)
        def _():
            s, src = Stream(B()), source(90)
            some(s, src, 1)
            s.end()
            s.fault_offset = 0
            s.fault_kinds = []
            return s

        return change

    return register


def copy():
    return Tensors(B().tensors)


def set_values(t, name, change):
    dtype, shape, data = t[name]
    form = {"I8": "b", "U8": "B", "I16": "h", "U16": "H", "I32": "i", "I64": "q", "F32": "f"}[dtype]
    size = struct.calcsize("<" + form)
    values = list(struct.unpack(f"<{len(data) // size}{form}", data))
    change(values)
    t[name] = (dtype, shape, pack(dtype, values))


def value_change(name, at, value):
    def change():
        t = copy()
        set_values(t, name, lambda v: v.__setitem__(at, value))
        return t.file()

    return change


def header_change(edit):
    """`edit` gets the header's text and the data."""

    def change():
        file = B().tensors.file()
        n = int.from_bytes(file[:8], "little")
        return edit(file[8 : 8 + n].decode(), file[8 + n :])

    return change


N = "decoder.network."
bad_model("model-cut", 701, "MODEL-1", "the last byte is missing")(lambda: B().tensors.file()[:-1])
bad_model("model-tail", 701, "MODEL-1", "a byte behind the last tensor")(lambda: B().tensors.file() + b"\0")
bad_model("model-header-length", 701, "MODEL-1", "a header longer than the file")(
    lambda: le(2**40, 8) + B().tensors.file()[8:])
bad_model("model-json", 701, "MODEL-1", "a header that is no JSON")(
    header_change(lambda text, data: wrap(text.replace("]", "", 1), data)))
bad_model("model-duplicate", 701, "MODEL-1", "a name that stands twice")(
    header_change(lambda text, data: wrap(
        text.replace("{", '{"extra":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                     '"extra":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', 1), data)))
bad_model("model-hole", 701, "MODEL-1", "a byte between header and tensors that nobody owns")(
    lambda: shifted())
bad_model("model-overlap", 701, "MODEL-1", "a tensor over the bytes of another")(
    header_change(lambda text, data: wrap(
        text.replace("{", '{"extra":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},', 1), data)))


def shifted():
    t = copy()
    t["extra"] = ("U8", [8], bytes(8))
    file = t.file(order=["extra", *B().tensors])
    n = int.from_bytes(file[:8], "little")
    text = file[8 : 8 + n].decode().replace('"extra":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},', "")
    return wrap(text.rstrip(), file[8 + n :])


@bad_model("model-missing", 702, "MODEL-2", "no exp table")
def _():
    t = copy()
    del t[N + "exp"]
    return t.file()


@bad_model("model-shape", 703, "MODEL-2", "an exp table of 1,023 entries")
def _():
    t = copy()
    dtype, _, data = t[N + "exp"]
    t[N + "exp"] = (dtype, [1023], data[:-2])
    return t.file()


@bad_model("model-dtype", 703, "MODEL-2", "a window of dtype U8")
def _():
    t = copy()
    t[N + "window"] = ("U8", [1], b"\3")
    return t.file()


@bad_model("model-boundaries", 703, "MODEL-6", "a boundary too many")
def _():
    t = copy()
    name = "decoder.target.boundaries"
    dtype, shape, data = t[name]
    t[name] = (dtype, [shape[0] + 1], data + b"\xff\xff")
    return t.file()


@bad_model("model-unknown", 704, "MODEL-2", "a tensor decoder.extra")
def _():
    t = copy()
    t["decoder.extra"] = ("U8", [1], b"\0")
    return t.file()


bad_model("model-format", 705, "MODEL-3", "model format 2")(value_change("decoder.config", 0, 2))
bad_model("model-reserved", 705, "MODEL-3", "a reserved element of the configuration")(
    value_change("decoder.config", 11, 1))
bad_model("model-w-range", 705, "MODEL-3", "w_max below zero")(value_change("decoder.config", 6, -1))
bad_model("model-exp", 708, "MODEL-5", "exp[0] is 4,094")(value_change(N + "exp", 0, 4094))
bad_model("model-activation", 708, "MODEL-5", "an activation of -32,768")(
    value_change(N + "activation", 9, -32768))
bad_model("model-weight", 708, "MODEL-5", "a weight of -128")(
    value_change(N + "blocks.0.up.weight", 5, -128))
bad_model("model-shift-0", 708, "MODEL-5", "a shift of 0")(value_change(N + "blocks.0.q.shift", 1, 0))
bad_model("model-multiplier", 708, "MODEL-5", "a multiplier of 32,768")(
    value_change(N + "output.multiplier", 3, 32768))
bad_model("model-norm", 708, "MODEL-5", "a norm numerator above 2^46")(
    value_change(N + "blocks.0.norm2", 0, 2**46 + 1))
bad_model("model-position", 708, "MODEL-5", "a position bias above 2^20")(
    value_change(N + "blocks.0.position", 2, 2**20 + 1))
bad_model("model-step", 708, "MODEL-10", "a step of zero")(value_change("decoder.quality.step", 4, 0.0))
bad_model("model-offset", 708, "MODEL-10", "an offset that is infinite")(
    value_change("decoder.quality.offset", 2, float("inf")))
bad_model("model-row-bound", 706, "MODEL-4", "a bias one above its row's bound")(
    lambda: row_bound_broken())
bad_model("model-table-order", 707, "MODEL-6", "two equal boundaries")(
    lambda: equal_boundaries())
bad_model("model-table-w", 707, "MODEL-8", "a table of W that begins below w_min")(
    value_change("decoder.hyper_prior.first", 1, -41))
bad_model("model-table-y", 707, "MODEL-9", "a table of Y without the value 0")(
    value_change("decoder.target.first", 3, 1))


def row_bound_broken():
    row = B().net["blocks"][0]["down"]["weight"][2]
    bias = -(32767 * (65535 - sum(abs(w) for w in row)) + 1)
    return value_change(N + "blocks.0.down.bias", 2, bias)()


def equal_boundaries():
    t = copy()
    set_values(t, "decoder.hyper_prior.boundaries", lambda v: v.__setitem__(1, v[0]))
    return t.file()


# -- valid: models ------------------------------------------------------------------------------


def good_model(name, rules, text, model=B):
    def register(change):
        @vector(name, text, rules, "", model_file=change)
        def _():
            s, src = Stream(model()), source(91)
            some(s, src, 3)
            s.end()
            return s

        return change

    return register


@good_model("model-other-names", "MODEL-11", "other tensors, metadata and another order: the same fingerprint")
def _():
    t = copy()
    t["host.extra"] = ("BF16", [3, 2], bytes(range(12)))
    t["empty"] = ("F32", [0, 7], b"")
    t["scalar"] = ("I64", [], bytes(8))
    order = sorted(t, key=lambda n: n[::-1])
    return t.file({"made by": "nobody", "decoder.config": "text"}, order)


def tight():
    """Model b with a bias exactly at its row's bound."""
    m = build_b()
    down = m.net["blocks"][0]["down"]
    down["bias"][2] = -(32767 * (65535 - sum(abs(w) for w in down["weight"][2])))
    m.tensors = m.to_tensors()
    m.fingerprint = m.tensors.fingerprint()
    return m


@good_model("model-row-bound-tight", "MODEL-4", "a bias exactly at its row's bound", tight)
def _():
    return tight().tensors.file()
