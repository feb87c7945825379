"""Layered streams that every decoder takes, with lost and late targets."""

from ..encoder import Stream
from ..wire import varint
from .common import A, CODED, MODELS, PLAIN, REPEAT, flip, replace, some, source, vector
from .joined import repeats


@vector("layered", "each target right behind its hyper-prior", "DEC-2 CAP-1")
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


@vector("layered-reordered", "targets in any order; a checkpoint that waits for them", "DEC-10 DEC-20")
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


@vector("layered-conceal-end", "lost targets are concealed at the end", "DEC-13 DEC-17 CAP-3", conceal="end")
def _():
    s, src = Stream(A(), layered=True), source(44)
    some(s, src, 5)
    s.target(4)
    s.target(0)
    s.target(2)
    s.conceal(1, 3)
    s.end(unverifiable=True)
    return s


@vector("layered-conceal-overdue", "overdue frames are concealed; their target comes late", "DEC-13 DEC-14 CAP-3",
        conceal="overdue")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(45)
    some(s, src, 3)
    s.target(1)
    s.conceal(0)
    some(s, src, 2)  # 2, 3, 4 are pending
    s.target(0, "late", of=[s.timeline[0]])
    s.conceal(2, 3)
    s.batch(src.frames(s.model, 2))  # 4, 5, 6 are
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
    s.reset(unverifiable=True)
    s.target(2, "late", of=[old])
    some(s, src, 2)
    s.target(3)
    s.target(4)
    s.checkpoint()
    s.end()
    return s


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
    for first in (0, 1, 2, 3):  # cut before the index, the epoch, the count, the check
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
    s.target(2, "late", of=[old])  # index 2 comes again, in another epoch
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


@vector("mapped-conceal", "means behind a map where targets are lost", "DEC-13 DEC-19", "mapped", conceal="end")
def _():
    s, src = Stream(MODELS["mapped"], layered=True), source(59)
    some(s, src, 5)
    s.target(4)
    s.target(1)
    s.conceal(0, 2, 3)
    s.end(unverifiable=True)
    return s


@vector("linear-conceal", "means of a model without blocks where targets are lost", "DEC-13 NET-5", "linear",
        conceal="end")
def _():
    s, src = Stream(MODELS["linear"], layered=True), source(61)
    some(s, src, 5)
    s.target(3)
    s.target(0)
    s.conceal(1, 2, 4)
    s.end(unverifiable=True)
    return s


@vector("layered-modes", "plain and repeated runs of hyper-priors and targets, whose lanes differ",
        "MODE-1 MODE-2 MODE-3")
def _():
    s, src = Stream(A(), layered=True, horizon=16), source(60)
    c, p, r = CODED, PLAIN, REPEAT
    s.frame(*src.frame(s.model), (p, p))
    s.target(0)
    frames = repeats(src, s.model, [(c, c), (r, r), (r, p), (c, c), (c, c), (r, r), (p, p), (r, r)])
    s.batch(frames, lanes=2)  # W repeats within each lane
    s.target(1, count=4)
    s.target(5, count=4, lanes=1, of=set_modes(s.timeline[5:9], [c, r, p, r]))
    s.checkpoint()
    s.batch(repeats(src, s.model, [(p, c), (r, r), (r, r)]))
    for i in (11, 10, 9):
        s.target(i, of=set_modes(s.timeline[i : i + 1], [p if i == 10 else c]))
    s.end()
    return s


def set_modes(frames, modes):
    """The frames, with other modes of Y."""
    for frame, mode in zip(frames, modes):
        frame.modes = (frame.modes[0], mode)
    return frames


@vector("layered-modes-damaged", "targets that begin with a repeat, hold a plain value outside the range, or are too long",
        "DEC-12 ENT-2 MODE-3 MODE-4", "extreme")
def _():
    s, src = Stream(MODELS["extreme"], layered=True), source(61)
    m = s.model
    ends = lambda means: [m.y_min if x > 0 else m.y_max for x in means]
    s.frame(src.w(m), ends)
    s.frame(src.w(m), src.y(m))
    assert len(s.payload(s.timeline[:1], w=False)) > 2 * m.e + 8
    s.target(0, "damaged")
    s.target(0, of=set_modes(s.timeline[:1], [PLAIN]))
    s.target(1, "damaged", of=set_modes(s.timeline[1:], [REPEAT]))
    right = s.timeline[1].sent
    s.timeline[1].sent = [*right[:7], m.y_min - 1, *right[8:]]
    s.target(1, "damaged", of=set_modes(s.timeline[1:], [PLAIN]))
    s.timeline[1].sent = right
    s.target(1)
    s.end()
    return s


@vector("layered-damaged-horizon", "a target batch of more frames than the horizon, with a right check", "CHECK-2 BATCH-1")
def _():
    s, src = Stream(A(), layered=True, horizon=4), source(123)
    s.batch(src.frames(s.model, 4))
    s.target(1)
    s.target(0)
    s.target(2, count=2)
    s.batch(src.frames(s.model, 4))
    s.target(3, "damaged", count=5)
    s.target(0, "late", count=4)
    s.target(4, count=4)
    s.end()
    return s
