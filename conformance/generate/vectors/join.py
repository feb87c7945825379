"""Decoders that join a stream at a reset or a model switch (6.6), and places that only such a one can reach."""

from ..encoder import Stream
from ..wire import varint
from .common import A, B, flip, replace, some, source, vector

TOP = 2**56 - 1  # the largest absolute index of a next frame


@vector("join-reset", "joining at the second of three resets; the end's total does not bind",
        "JOIN-3 CTRL-3 CTRL-2 DEC-15")
def _():
    s, src = Stream(A(), check=1, quality=2, identity=b"join one"), source(150)
    some(s, src, 3)
    s.reset()
    some(s, src, 2)
    s.join()
    s.reset(1)
    some(s, src, 4)
    s.rewind(6)
    some(s, src, 2)
    s.checkpoint()
    s.reset()
    some(s, src, 1)
    s.end(edit=replace("coded", varint(77)))
    return s


@vector("join-digests", "a joining decoder ignores the digests of the reset", "JOIN-3 DEC-8")
def _():
    s, src = Stream(A()), source(151)
    some(s, src, 2)
    s.join()

    def edit(parts):
        flip("w_digest")(parts)
        flip("y_digest")(parts)

    s.reset(edit=edit)
    some(s, src, 2)
    s.end()
    return s


@vector("join-switch", "joining at a model switch; the header's model is not there", "JOIN-2 DEC-7 CTRL-3", "b")
def _():
    s, src = Stream(A()), source(152)
    some(s, src, 3)
    s.join()
    s.switch(B())
    some(s, src, 3)
    s.reset()
    some(s, src, 1)
    s.end()
    return s


@vector("join-prefix", "the prefix of a reset says which of two models is in force", "JOIN-2 CTRL-3", "a b")
def _():
    s, src = Stream(A()), source(153)
    some(s, src, 2)
    s.switch(B())
    some(s, src, 1)
    s.join()
    s.reset()
    some(s, src, 2)
    s.switch(A(), 1)
    some(s, src, 2)
    s.end()
    return s


@vector("join-layered", "joining layered messages: targets from before the join are late", "DEC-16 MSG-5",
        conceal="end")
def _():
    s, src = Stream(A(), binding="messages", layered=True, check=2), source(154)
    some(s, src, 3)
    old = s.timeline[1]
    s.join()
    s.reset()
    s.target(1, "late", of=[old])
    some(s, src, 3)
    s.target(4)
    s.checkpoint(unverifiable=True)
    s.target(3)
    s.end()
    s.target(3, "late")
    s.conceal(5)
    return s


@vector("join-file", "a jump to an entry of a seek index", "FILE-3 FILE-1")
def _():
    s, src = Stream(A(), file=True), source(155)
    some(s, src, 2)
    s.reset()
    some(s, src, 2)
    s.join(4)
    s.reset()
    some(s, src, 1)
    s.end()
    s.seek_index()
    return s


@vector("bad-join-entry", "a seek index that states another index than the reset it leads to", "FILE-3", code=404,
        container=True)
def _():
    s, src = Stream(A(), file=True), source(156)
    some(s, src, 2)
    s.join(3)
    s.reset(fault="index")
    s.end()
    return s


def elsewhere(name, text, chunk, **options):
    @vector(name, text, "JOIN-1 FILE-3 ERR-6", code=404, container=True)
    def _():
        s, src = Stream(A(), **options), source(157)
        some(s, src, 2)
        s.join()
        chunk(s, src)
        s.end()
        return s


elsewhere("bad-join-frame", "joining at a frame", lambda s, src: s.frame(*src.frame(s.model), fault="start"))
elsewhere("bad-join-message", "joining at a frame that is a message",
          lambda s, src: s.frame(*src.frame(s.model), fault="start"), binding="messages")
elsewhere("bad-join-checkpoint", "joining at a checkpoint", lambda s, src: s.checkpoint(fault="kind"))
elsewhere("bad-join-target", "joining at a target in joined mode", lambda s, src: s.put([["kind", b"\xc2"]], "kind"))


def bad_join(name, code, rules, text, models, make, container=False, **options):
    @vector(name, text, rules, models, code=code, container=container)
    def _():
        s, src = Stream(A(), **options), source(158)
        some(s, src, 2)
        s.join()
        make(s, src)
        s.end()
        return s


bad_join("bad-join-prefix", 502, "JOIN-2", "joining at a reset of a model that is not there", "b",
         lambda s, src: s.reset(fault="prefix"))
bad_join("order-join-prefix", 502, "JOIN-2 DEC-6 ERR-6",
         "joining at a reset of a model that is not there, of quality 255", "b",
         lambda s, src: s.reset(edit=replace("quality", b"\xff"), fault="prefix"))
bad_join("bad-join-model", 501, "JOIN-2 DEC-7", "joining at a switch to a model that is not there", "a",
         lambda s, src: s.switch(B(), fault="fingerprint"))
bad_join("bad-join-quality", 504, "DEC-6", "joining at a reset of a quality that there is not", "a",
         lambda s, src: s.reset(edit=replace("quality", b"\3"), fault="quality"))


@vector("bad-join-rewind", "a rewind before the place of the join", "CTRL-4", code=407, container=True)
def _():
    s, src = Stream(A()), source(159)
    some(s, src, 3)
    s.join()
    s.reset()
    some(s, src, 1)
    s.rewind(2, fault="index")
    s.end()
    return s


def far(index, epoch=5, **options):
    s = Stream(A(), **options)
    s.begin_at(index, epoch)
    s.join()
    s.reset()
    return s, source(160)


@vector("index-top", "the last frame that a stream can have", "CTRL-9")
def _():
    s, src = far(TOP - 3, check=2)
    s.batch(src.frames(s.model, 2))
    s.checkpoint()
    some(s, src, 1)
    s.end()
    return s


@vector("bad-index-frame", "a frame after the last one", "CTRL-9", code=103, container=True)
def _():
    s, src = far(TOP - 1)
    some(s, src, 1)
    s.frame(*src.frame(s.model), fault="payload0")
    return s


@vector("bad-index-batch", "a batch of which one frame is too many", "CTRL-9", code=103, container=True)
def _():
    s, src = far(TOP - 2, check=1)
    s.batch(src.frames(s.model, 3), lanes=2, fault="frames")
    return s


@vector("join-exact", "exact frames after a reset where a decoder joins: their crcs cover its index and its epoch",
        "CTRL-1 CTRL-3 JOIN-3")
def _():
    s, src = Stream(A(), binding="messages", check=1, identity=bytes(range(8))), source(313)
    s.begin_at(70_000, 2**32 - 2)
    s.join()
    s.reset(1)
    some(s, src, 1)
    s.exact(*src.frame(s.model), 1, bytes(range(24)))
    s.rewind(70_001)
    s.exact(*src.frame(s.model), 2, bytes(range(24)))
    s.end()
    return s


@vector("bad-index-exact", "an exact frame after the last one", "CTRL-9", code=103, container=True)
def _():
    s, src = far(TOP)
    s.exact(*src.frame(s.model), 1, bytes(24), fault="dtype")
    return s


@vector("order-index-check", "a frame after the last one, of a wrong check", "CTRL-9 CHECK-1 ERR-6", code=402,
        container=True)
def _():
    s, src = far(TOP, check=2)
    s.frame(*src.frame(s.model), after=flip("check", 2), fault="check")
    return s


@vector("order-index-payload", "a frame after the last one, of a corrupt payload", "CTRL-9 ENT-1 ERR-6", code=103,
        container=True)
def _():
    s, src = far(TOP)
    s.frame(*src.frame(s.model), payload=lambda p: b"\xff" * 8, fault="payload0")
    return s


@vector("order-index-exact", "an exact frame after the last one, of another width", "CTRL-9 CTRL-6 ERR-6", code=103,
        container=True)
def _():
    s, src = far(TOP)
    s.exact(*src.frame(s.model), 1, bytes(22), fault="dtype")
    return s


@vector("epoch-top", "epochs around 2^32, and a target of the epoch before it", "CTRL-5 CHECK-1 CHECK-2")
def _():
    s, src = far(1000, 2**32 - 2, layered=True, check=2)
    assert s.epoch == 2**32 - 1
    some(s, src, 2)
    old = s.timeline[1000]
    s.rewind(1001)
    assert s.epoch == 0
    s.target(1000, "damaged", of=[old])  # an epoch before the wrap does not exist
    some(s, src, 1)
    s.target(1001)
    s.reset(unverifiable=True)
    some(s, src, 1)
    s.target(1002)
    s.end()
    return s


@vector("join-header-quality", "joining a stream whose header names a quality that there is not", "JOIN-2")
def _():
    s, src = Stream(A(), head=replace("quality", b"\xff")), source(161)
    some(s, src, 1)
    s.join()
    s.reset(1)
    some(s, src, 2)
    s.end()
    return s
