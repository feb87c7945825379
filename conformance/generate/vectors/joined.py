"""Joined streams that every decoder takes."""
import random
import struct

from ..encoder import Stream
from .common import A, B, CODED, MODELS, PLAIN, REPEAT, empty_frame, of_length, replace, some, source, vector, wide


@vector("empty", "a header and an end chunk", "END-1 CTRL-2")
def _():
    s = Stream(A())
    s.end()
    return s


@vector("joined-frames", "one-frame chunks without checks", "DEC-1 DEC-2 DEC-3 NET-1 NET-2 NET-3 DEC-4")
def _():
    s, src = Stream(A()), source(1)
    some(s, src, 14)
    s.end()
    return s


@vector("joined-check8", "one-frame chunks with checks of one byte", "CHECK-1 CAP-1")
def _():
    s, src = Stream(A(), check=1, quality=2), source(2)
    some(s, src, 9)
    s.end()
    return s


@vector("joined-check16", "one-frame chunks with checks of two bytes", "CHECK-1 CAP-1")
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
        if s.unreplaced == b"\0":
            found += 1
            assert s.data()[s.marks["check"]] == 0xFF
        elif index > 6:  # not wanted: take it back
            del s.messages[state[0] :], s.kinds[state[1] :], s.timeline[index:], s.log[-1]
            s.context.rewind(index)
            s.index = s.coded = s.highest = index
            assert s.size() == before
    assert found == 2
    s.end()
    return s


@vector("medium-form", "bodies of 128 bytes and more", "CHUNK-3", "wide")
def _():
    s, src = Stream(MODELS["wide"], check=2), source(5)
    for _ in range(4):
        s.frame([src.random.randint(-9, 9)], src.y(s.model, spread=0.3, escapes=0))
    assert s.data()[s.marks["length"]] & 0xC0 == 0x80
    s.end()
    return s


@vector("long-form", "a one-frame chunk of kind C0", "CHUNK-3 MODE-2", "wide")
def _():
    s, src = Stream(MODELS["wide"], check=1), source(6)
    s.frame([0], [src.random.choice([-32767, 32767, src.random.randint(-32767, 32767)]) for _ in range(8300)],
            (CODED, PLAIN))
    assert s.kinds == ["frame"] and s.data()[s.marks["kind"]] == 0xC0
    s.frame([3], lambda means: [x // 64 for x in means])
    s.end()
    return s


@vector("extreme-model", "saturation everywhere: bounds, clamps, escapes of every length",
        "MODEL-4 NET-1 NET-2 NET-3 NET-4 ENT-2", "extreme")
def _():
    s, src = Stream(MODELS["extreme"]), source(7)
    rnd = src.random

    def y(means):
        row = [max(-32767, min(32767, x // 64)) for x in means]
        for c in rnd.sample(range(36), 8):
            row[c] = max(-32767, min(32767, row[c] + rnd.choice([-1, 1]) * 2 ** rnd.randint(0, 15)))
        for c, end in zip(rnd.sample(range(36), 2), (-32767, 32767)):
            row[c] = end
        return row

    for i in range(16):
        w = [rnd.choice([-32767, 32767, 0, rnd.randint(-32767, 32767)]) for _ in range(5)]
        if i == 4:
            w = [0] * 5
        s.frame(w, y)
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


@vector("empty-payload", "a frame that costs no byte", "SEAL-1 SEAL-2")
def _():
    s, src = Stream(A()), source(9)
    some(s, src, 2)
    empty_frame(s)
    assert s.data()[-1] == 0
    some(s, src, 2)
    s.end()
    return s


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


@vector("batch-lane-per-frame", "as many lanes as frames, of very different lengths", "BATCH-2 LANE-1 CAP-2")
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


@vector("batch-long", "a batch of 150 frames, and one of 100 in three lanes: more than decoders do at a time", "BATCH-3 EVT-1",
        "b")
def _():
    s, src = Stream(B(), max_frames=256), source(19)
    s.batch(src.frames(s.model, 150))
    s.batch(src.frames(s.model, 100), lanes=3)
    s.end()
    return s


@vector("quality", "quality switches; the context goes on", "DEC-6 NET-5 CAP-2")
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


@vector("reset", "context resets, with another quality too", "CTRL-3 CTRL-5 DEC-5 NET-6 CAP-2")
def _():
    s, src = Stream(A(), check=2), source(17)
    s.reset()
    some(s, src, 4)
    s.reset(2)
    s.reset()
    some(s, src, 3)
    s.end()
    return s


@vector("checkpoints", "checkpoints; two at one index", "DEC-8 CTRL-2 DEC-20")
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


@vector("exact", "exact frames of every dtype", "CTRL-6 CTRL-8 CAP-2")
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


@vector("exact-special", "exact frames of NaN, quiet and signalling, infinities, zeros and subnormals",
        "EXACT-1 CTRL-6 CTRL-8")
def _():
    s, src = Stream(A()), source(29)
    some(s, src, 1)
    halves = [0x7C01, 0xFC01, 0x7E00, 0xFFFF, 0x7D55, 0x7C00, 0xFC00, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF]
    s.exact(*src.frame(s.model), 1, struct.pack("<12H", *halves))
    tops = [0x7F81, 0xFF81, 0x7FC0, 0xFFFF, 0x7FAA, 0x7F80, 0xFF80, 0x8000, 0x0001, 0x807F, 0x0080, 0x7F7F]
    s.exact(*src.frame(s.model), 2, struct.pack("<12H", *tops))
    s.exact(*src.frame(s.model), 0, struct.pack("<12I", *(top << 16 | 1 for top in tops)))
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


@vector("header-producer", "a producer that is no UTF-8", "HDR-7")
def _():
    s, src = Stream(A(), optional=[(2, b"\xff\xfe\0")]), source(31)
    some(s, src, 1)
    s.end()
    return s


@vector("format-version-2", "a later format version that version 1 readers may read", "HDR-2")
def _():
    s, src = Stream(A(), head=replace("format", b"\2")), source(26)
    some(s, src, 2)
    s.end()
    return s


@vector("limits-large", "the largest limits a header may declare", "HDR-3 VARINT-1 VER-4")
def _():
    s, src = Stream(A(), max_frames=2**20, max_bytes=2**30, max_rewind=2**20, version=2**32 - 1), source(27)
    some(s, src, 1)
    s.batch(src.frames(s.model, 3), lanes=2)
    s.end()
    return s


@vector("limit-exact", "a chunk of exactly max chunk bytes, a batch of exactly max frames",
        "CHUNK-2 BATCH-1")
def _():
    s, src = Stream(A(), max_frames=3, max_bytes=72), source(28)
    s.batch(src.frames(s.model, 3, spread=1, escapes=0))
    s.extension(1, bytes(72 - 1 - 4))
    some(s, src, 1)
    s.end()
    return s


@vector("mapped", "a map in the reconstruction, in two qualities", "DEC-19 DEC-2", "mapped")
def _():
    s, src = Stream(MODELS["mapped"]), source(30)
    some(s, src, 4)
    s.batch(src.frames(s.model, 6), lanes=2)
    s.set_quality(1)
    some(s, src, 5)
    s.end()
    return s


@vector("sparse", "a sparse causal map in the reconstruction, in two qualities, over a rewind and a reset",
        "SPARSE-1 SPARSE-2 DEC-2", "sparse")
def _():
    s, src = Stream(MODELS["sparse"]), source(35)
    some(s, src, 3)
    s.batch(src.frames(s.model, 5), lanes=2)
    s.rewind(6)
    s.set_quality(1)
    some(s, src, 2)
    s.reset()
    some(s, src, 2)
    s.end()
    return s


@vector("linear", "a model without blocks, over a rewind, a reset and in two qualities", "MODEL-2 NET-5 NET-6", "linear")
def _():
    s, src = Stream(MODELS["linear"]), source(34)
    some(s, src, 4)
    s.batch(src.frames(s.model, 6), lanes=2)
    s.rewind(7)
    s.set_quality(1)
    some(s, src, 3)
    s.checkpoint()
    s.reset()
    some(s, src, 3)
    s.end()
    return s


@vector("modes", "plain runs of W and of Y in frames of their own", "MODE-1 MODE-2 CTRL-6")
def _():
    s, src = Stream(A(), check=1), source(31)
    m = s.model
    some(s, src, 1)
    for modes in ((PLAIN, CODED), (CODED, PLAIN), (PLAIN, PLAIN)):
        s.frame(*src.frame(m), modes)
    s.frame([m.w_min, m.w_max] * 2, [m.y_min, m.y_max] * 6, (PLAIN, PLAIN))
    s.exact(*src.frame(m), 1, halves(src.random, 12), (PLAIN, PLAIN))
    some(s, src, 2)
    s.checkpoint()
    s.end()
    return s


@vector("modes-widths", "plain runs of every width, the largest and smallest number of each among them", "MODE-2",
        "extreme")
def _():
    s, src = Stream(MODELS["extreme"]), source(32)
    rnd = src.random
    for n in range(1, 17):
        low, high = max(-32767, -(2 ** (n - 1))), 2 ** (n - 1) - 1
        row = lambda count: [low, high, *(rnd.randint(low, high) for _ in range(count - 2))]
        s.frame(row(5), row(36), (PLAIN, PLAIN))
    # Wider than need be.
    s.frame([0, -1, 1, 2, -3], [rnd.randint(-9, 9) for _ in range(36)], (wide(16), wide(9)))
    s.frame([0] * 5, [-1] * 36, (wide(2), wide(8)))
    s.end()
    return s


@vector("modes-narrow", "plain runs of a model whose ranges have four values and two", "MODE-2 MODE-3", "narrow")
def _():
    s, rnd = Stream(MODELS["narrow"]), random.Random(33)
    row = lambda: ([rnd.randint(0, 3) for _ in range(2)], [rnd.randint(-1, 0) for _ in range(6)])
    for _ in range(6):
        s.frame(*row(), (PLAIN, PLAIN))
    w, y = row()
    s.batch([(w, y, (PLAIN, PLAIN)), (w, y, (REPEAT, REPEAT)), (*row(), (PLAIN, PLAIN))])
    s.end()
    return s


def repeats(src, m, modes):
    """Frames with these modes of W and Y, which repeat where they say so."""
    frames = []
    w = y = None
    for of_w, of_y in modes:
        if of_w != REPEAT:
            w = src.w(m)
        if of_y != REPEAT:
            y = src.y(m, escapes=0)([0] * m.e)
        frames.append((w, y, (of_w, of_y)))
    return frames


@vector("modes-batch", "runs that repeat W, Y or both; the modes of W and of Y follow each other apart",
        "MODE-1 MODE-2 MODE-3")
def _():
    s, src = Stream(A(), check=2), source(34)
    c, p, r = CODED, PLAIN, REPEAT
    s.batch(repeats(src, s.model, [(c, c), (r, r), (r, r), (r, c), (c, r), (r, p), (p, r), (r, r), (p, c), (r, p)]))
    s.batch(repeats(src, s.model, [(c, p), (r, r)]))
    s.frame(*src.frame(s.model))
    s.batch(repeats(src, s.model, [(p, c), (c, r), (p, r), (r, c), (r, r), (r, r)]))
    s.checkpoint()
    s.end()
    return s


@vector("modes-lanes", "runs that repeat in several lanes, each of which begins anew", "MODE-1 MODE-3 BATCH-3")
def _():
    s, src = Stream(A()), source(35)
    c, p, r = CODED, PLAIN, REPEAT
    lanes = [[(c, c), (r, r), (r, r)], [(c, c), (r, r), (r, r)], [(p, p), (r, r), (c, r)], [(c, p), (r, c), (r, p)]]
    s.batch([frame for lane in lanes for frame in repeats(src, s.model, lane)], lanes=4)
    same = repeats(src, s.model, [(c, c)] + 15 * [(r, r)])
    s.batch(same)
    # The same frames once more, in two lanes: the first frame of each is coded.
    s.batch([(w, y, (c, c) if i in (0, 8) else (r, r)) for i, (w, y, _) in enumerate(same)], lanes=2)
    s.end()
    return s


@vector("payload-longest", "a payload of as many bytes as its frame may take", "MODE-4", "extreme")
def _():
    s = Stream(MODELS["extreme"])
    m = s.model
    s.frame(*of_length(s, 2 * (m.e + m.c) + 8))
    s.end()
    return s
