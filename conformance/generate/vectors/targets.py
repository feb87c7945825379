"""Layered streams that every decoder takes, with targets that come early, and targets in parts (6.5)."""

from ..encoder import Stream
from ..wire import bits_to_bytes, varint
from .common import A, CODED, MODELS, PLAIN, flip, replace, some, source, vector


@vector("early-index", "targets that overtake the hyper-priors of their frames, one of them twice", "DEC-22")
def _():
    s, src = Stream(A(), layered=True, check=1), source(200)
    some(s, src, 1)
    s.target(0, "early")
    s.forward()
    s.kept("usable", 0)
    some(s, src, 3)
    s.target(3, "early")
    s.target(2, "early")
    s.target(3, "early")  # the same chunk: it is kept once
    s.forward(3, over=2)  # right after the hyper-prior of frame 1
    s.kept("usable", 2, ago=1)
    s.kept("usable", 3)
    s.target(3, "late")
    s.target(1)
    s.checkpoint()
    s.end()
    return s


@vector("early-table", "a target batch that comes twice before its frames, the second time with a longer lane table", "DEC-22")
def _():
    def longer(parts):
        lengths = [len(part) for name, part in parts if name.startswith("payload")]
        partition = s.partition(4, 2)
        size = len(next(part for name, part in parts if name == "table")) + 1
        bits = s.lane_table(2 + sum(lengths) + size, partition, lengths, 4)
        replace("table", bits_to_bytes(bits.ljust(8 * size - 1, "0") + "1"))(parts)

    s, src = Stream(A(), layered=True, check=1), source(216)
    some(s, src, 1)
    s.target(0)
    s.batch(src.frames(s.model, 4))
    s.target(1, "early", count=4, lanes=2)
    s.target(1, "early", count=4, lanes=2, edit=longer)  # equal: it is kept once
    s.forward(2)
    s.kept("usable", 1, count=4)
    s.end()
    return s


@vector("early-straddles", "target batches of which some frames, or all, are still to come", "DEC-22")
def _():
    s, src = Stream(A(), layered=True), source(201)
    some(s, src, 2)
    s.batch(src.frames(s.model, 3))
    s.target(1, "early", count=3)
    s.forward()
    s.kept("usable", 1, count=3)
    s.target(4)
    s.target(0)
    s.batch(src.frames(s.model, 4), lanes=2)
    s.target(5, "early", count=4, lanes=2)
    s.target(6, "early", count=2)  # frames of the other one
    s.forward(2)
    s.kept("usable", 5, count=4)
    s.kept("late")
    s.end()
    return s


@vector("early-epoch", "targets that overtake a rewind, a reset and a model switch", "DEC-22 CTRL-5", "a b")
def _():
    s, src = Stream(A(), layered=True), source(202)
    some(s, src, 4)
    for i in range(4):
        s.target(i)
    s.rewind(2)
    some(s, src, 1)
    s.target(2, "early")
    s.forward(over=2)
    s.kept("usable", 2)
    s.reset()
    some(s, src, 1)
    s.target(3, "early")
    s.forward(over=2)
    s.kept("usable", 3)
    s.switch(MODELS["b"])
    s.batch(src.frames(s.model, 2))
    s.target(4, "early", count=2)
    s.forward(over=2)
    s.kept("usable", 4, count=2)
    s.checkpoint()
    s.end()
    return s


@vector("early-late", "early targets whose epoch passes, whose frame never comes, or is no frame with a target",
        "DEC-22")
def _():
    s, src = Stream(A(), layered=True), source(203)
    some(s, src, 3)
    for i in range(3):
        s.target(i)
    frame = s.timeline[2]
    s.target(4, "early", of=[frame], epoch=0)  # a frame that a rewind leaves uncoded
    s.target(0, "early", of=[frame], epoch=1)  # it was coded in epoch 0
    s.target(2, "early", of=[frame], epoch=1)
    s.target(3, "early", of=[frame], epoch=1)
    s.rewind(2)
    s.kept("late")
    s.kept("late")
    s.exact(*src.frame(s.model), 1, bytes(24))
    s.kept("late")
    s.target(9, "early", of=[frame], epoch=1)
    s.target(2, "early", of=[frame], epoch=5)
    some(s, src, 1)
    s.kept("damaged")  # the payload of another frame
    s.target(3)
    s.end()
    s.kept("late")
    s.kept("late")
    return s


@vector("early-too-far", "targets at and beyond the early bound", "DEC-22 CHECK-2")
def _():
    s, src = Stream(A(), layered=True), source(204)
    some(s, src, 3)
    for i in range(3):
        s.target(i)
    frame = s.timeline[2]
    s.target(4098, "early", of=[frame])
    s.target(4099, "damaged", of=[frame])
    s.target(32770, "damaged", of=[frame])
    s.target(3, "early", of=[frame], epoch=8)
    s.target(3, "damaged", of=[frame], epoch=9)
    s.target(3, "damaged", of=[frame], after=flip("check"))
    s.end()
    s.kept("late")
    s.kept("late")
    return s


@vector("messages-early-after-end", "after the end chunk no target is early", "MSG-5 DEC-22")
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(205)
    some(s, src, 2)
    s.target(1)
    s.end()
    s.target(2, "late", of=[s.timeline[1]])
    s.target(0)
    return s


@vector("early-epoch-reach", "epochs 247 and 248 before the current one", "CHECK-2 DEC-24")
def _():
    s, src = Stream(A(), layered=True), source(206)
    some(s, src, 2)
    for _ in range(247):
        s.rewind(1)
        some(s, src, 1)
    s.target(0)
    s.target(1)
    s.rewind(1)
    some(s, src, 1)
    s.target(0, "damaged")  # 248 epochs: the low bits name one to come
    s.target(1)
    s.checkpoint()
    s.end()
    return s


@vector("parts", "frames in parts: in order, out of order, one by one, and in one part", "PART-1 DEC-23")
def _():
    s, src = Stream(A(), layered=True), source(210)
    some(s, src, 4)
    s.target(0, part=(0, 5))
    s.target(0, part=(5, 7), whole=True)
    s.target(2, part=(7, 5))
    for element in (2, 0, 1, 6, 4, 3):
        s.target(1, part=(element, 1))
    s.target(2, part=(0, 3))
    s.target(1, part=(7, 5))
    s.target(2, part=(3, 4), whole=True)
    s.target(3, part=(0, 12), whole=True)
    s.target(1, part=(5, 1), whole=True)
    s.checkpoint()
    s.end()
    return s


@vector("parts-overlap", "parts with elements that came before, and whole targets where a part came", "DEC-23")
def _():
    s, src = Stream(A(), layered=True), source(211)
    some(s, src, 3)
    s.target(0, part=(2, 5))
    s.target(0, "late", part=(2, 5))
    s.target(0, "late", part=(6, 6))
    s.target(0, "late", part=(0, 3))
    s.target(0, "late", part=(0, 12))
    s.target(0, "late")
    s.target(0, "late", count=2)
    s.target(0, part=(7, 5))
    s.target(0, part=(0, 2), whole=True)
    s.target(0, "late", part=(0, 2))
    s.target(1)
    s.target(1, "late", part=(0, 2))
    s.target(2)
    s.end()
    return s


@vector("parts-overlap-beyond", "a part that exceeds the frame, one of whose elements came before", "DEC-23 PART-1")
def _():
    s, src = Stream(A(), layered=True), source(217)
    some(s, src, 1)
    s.target(0, part=(4, 4))
    s.target(0, "damaged", part=(6, 7))
    s.target(0, "damaged", part=(4, 9))
    s.target(0, part=(0, 4))
    s.target(0, part=(8, 4), whole=True)
    s.end()
    return s


@vector("parts-long", "a part longer than its elements may take, and no longer than a whole frame may be", "MODE-4 DEC-12",
        "extreme")
def _():
    s, src = Stream(MODELS["extreme"], layered=True), source(218)
    m = s.model

    def y(means):
        near = [max(m.y_min, min(m.y_max, x // 64)) for x in means]
        return [m.y_min if x > 0 else m.y_max for x in near[:12]] + near[12:]

    frame = s.frame([0] * m.c, y)
    assert 2 * 12 + 8 < len(s.part_payload(frame, 0, 12)) <= 2 * m.e + 8
    s.target(0, "damaged", part=(0, 12))
    frame.modes = (CODED, PLAIN)
    s.target(0, part=(0, 12))
    s.target(0, part=(12, m.e - 12), whole=True)
    s.end()
    return s


@vector("parts-damaged", "parts that exceed the frame, or whose payload, check or fields are wrong",
        "PART-1 DEC-12 DEC-23 CHECK-2 VARINT-1")
def _():
    s, src = Stream(A(), layered=True), source(212)
    some(s, src, 2)
    s.target(0, "damaged", part=(8, 5))
    s.target(0, "damaged", part=(12, 1))
    s.target(0, "damaged", part=(0, 4), edit=replace("first", varint(2**56 - 5)))
    s.target(0, "damaged", part=(0, 4), edit=replace("first", varint(2**56 - 3)))  # beyond 2^56
    s.target(0, "damaged", part=(0, 4), edit=replace("count", varint(4, 2)))
    s.target(0, "damaged", part=(0, 4), edit=replace("first", b"\xff"))
    s.target(0, "damaged", part=(0, 4), after=flip("payload0", 3))
    s.target(0, "damaged", part=(0, 4), edit=replace("payload0", b"\xff" * 8))
    s.target(0, "damaged", part=(0, 4), edit=replace("first", varint(8)))  # the check holds, the seal does not
    for parts in (3, 4, 5):  # cut after the count, the first element, the check
        s.target(0, "damaged", part=(0, 4), after=lambda p, n=parts: p.__delitem__(slice(n, None)))
    s.target(0, part=(0, 4))
    s.target(0, part=(4, 8), whole=True)
    s.target(1)
    s.end()
    return s


@vector("parts-missing", "a frame of which a part never came stays missing", "DEC-17 DEC-23")
def _():
    s, src = Stream(A(), layered=True), source(213)
    some(s, src, 3)
    s.target(0)
    s.target(1, part=(0, 11))
    s.target(2)
    s.end(unverifiable=True)
    return s


@vector("parts-conceal", "missing elements alone are concealed", "DEC-13 DEC-23", conceal="end")
def _():
    s, src = Stream(A(), layered=True), source(214)
    some(s, src, 4)
    s.target(0)
    s.target(1, part=(3, 4))
    s.target(1, part=(9, 1))
    s.target(3, part=(0, 11))
    s.conceal(1, 2, 3)
    s.end(unverifiable=True)
    return s


@vector("parts-conceal-mapped", "the map takes elements that came and means in place of the others",
        "DEC-13 DEC-19", "mapped", conceal="end")
def _():
    s, src = Stream(MODELS["mapped"], layered=True), source(215)
    some(s, src, 3)
    s.target(0, part=(0, 4))
    s.target(1)
    s.target(2, part=(9, 1))
    s.conceal(0, 2)
    s.end(unverifiable=True)
    return s


@vector("parts-conceal-sparse", "a sparse causal map takes elements that came and means in place of the others",
        "DEC-13 SPARSE-2", "sparse", conceal="end")
def _():
    s, src = Stream(MODELS["sparse"], layered=True), source(217)
    some(s, src, 3)
    s.target(0, part=(20, 20))
    s.target(1)
    s.target(2, part=(0, 30))
    s.conceal(0, 2)
    s.end(unverifiable=True)
    return s


@vector("parts-rewind", "a rewind drops parts with their frame", "DEC-16 DEC-23")
def _():
    s, src = Stream(A(), layered=True), source(216)
    some(s, src, 3)
    s.target(1, part=(0, 6))
    s.target(2, part=(0, 6))
    old = s.timeline[2]
    s.rewind(2)
    some(s, src, 1)
    s.target(2, "late", of=[old], part=(6, 6))
    s.target(2, part=(6, 6))
    s.target(1, part=(6, 6), whole=True)
    s.target(2, part=(0, 6), whole=True)
    s.target(0)
    s.checkpoint()
    s.end()
    return s


@vector("parts-early", "parts that come before their hyper-prior, one of them twice", "DEC-22 DEC-23")
def _():
    s, src = Stream(A(), layered=True), source(217)
    some(s, src, 2)
    s.target(1, "early", part=(4, 8))
    s.target(1, "early", part=(0, 2))
    s.target(1, "early", part=(4, 8))
    s.target(1, "early", part=(1, 3))  # one element twice
    s.forward(4)
    s.kept("usable", 1, part=(4, 8))
    s.kept("usable", 1, part=(0, 2))
    s.kept("late")
    s.target(1, part=(2, 2), whole=True)
    s.target(0)
    s.end()
    return s


@vector("parts-wide", "parts of a frame of thousands of elements", "PART-1 DEC-23", "wide")
def _():
    s, src = Stream(MODELS["wide"], layered=True), source(218)
    some(s, src, 1, spread=1, escapes=0)
    s.target(0, part=(4000, s.model.e - 4000))
    s.target(0, part=(100, 3900))
    s.target(0, part=(0, 100), whole=True)
    s.end()
    return s
