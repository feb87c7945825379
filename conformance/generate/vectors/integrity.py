"""What is covered by which digest: resets, switches, rewinds, and the stream's identity."""
import struct

from ..encoder import Stream
from .common import A, B, PLAIN, bad, flip, some, source, vector

IDENTITY = bytes(range(0xA0, 0xA8))
OTHER = bytes(range(0xB0, 0xB8))


@vector("identity", "checks, crcs and digests that start from an identity, after a reset and a switch too",
        "HDR-12 CTRL-1 DEC-8", "a b")
def _():
    s, src = Stream(A(), check=2, identity=IDENTITY, optional=[(2, b"vectors")]), source(101)
    some(s, src, 3)
    s.checkpoint()
    s.checkpoint()  # covers no frame: its Y digest is the seed
    s.batch(src.frames(s.model, 4), lanes=2)
    s.reset(1)
    some(s, src, 2)
    s.rewind(8)
    s.exact(*src.frame(s.model), 1, bytes(range(24)))
    s.switch(B())
    some(s, src, 2)
    s.extension(27, b"grease")
    s.end()
    return s


@vector("identity-layered", "targets of a stream with an identity", "HDR-12 CHECK-2 DEC-16")
def _():
    s, src = Stream(A(), binding="messages", layered=True, check=1, identity=IDENTITY), source(102)
    some(s, src, 4)
    s.target(1, count=2)
    s.target(0)
    s.checkpoint(unverifiable=True)
    s.reset()
    some(s, src, 2)
    s.target(4, count=2)
    s.end()
    return s


@vector("reset-right-away", "a reset and a switch that close contexts without a frame", "DEC-8", "a b")
def _():
    s, src = Stream(A(), identity=IDENTITY), source(103)
    s.reset()
    s.switch(B())
    s.reset()
    some(s, src, 2)
    s.checkpoint()
    s.reset()
    s.end()
    return s


@vector("layered-rewind-verdict", "a rewind drops a newer checkpoint while an older one waits, which is then confirmed",
        "DEC-16 DEC-10")
def _():
    s, src = Stream(A(), layered=True, check=1), source(104)
    some(s, src, 1)
    s.checkpoint()
    some(s, src, 1)
    s.target(1)
    s.checkpoint(unverifiable=True)
    s.rewind(1)
    s.target(0)
    some(s, src, 1)
    s.target(1)
    s.end()
    return s


@vector("bad-rewind-verdict", "the older checkpoint's Y digest is wrong, which its last target shows", "DEC-16 DEC-10",
        code=410)
def _():
    s, src = Stream(A(), layered=True, check=1), source(105)
    some(s, src, 1)
    s.checkpoint(edit=flip("y_digest"))
    at = s.marks["y_digest"]
    some(s, src, 1)
    s.target(1)
    s.checkpoint()
    s.rewind(1)
    s.broken(at)
    kinds = list(s.kinds)
    s.target(0)
    s.fault_kinds = kinds
    s.end()
    return s


@vector("layered-reset-judges", "a reset judges the ranges that have lost no target", "DEC-16 DEC-8", "a b")
def _():
    s, src = Stream(A(), layered=True), source(106)
    some(s, src, 2)
    s.target(1)
    s.checkpoint(unverifiable=True)  # frame 0 never comes
    some(s, src, 2)
    s.target(2, count=2)
    s.checkpoint()
    some(s, src, 1)
    s.reset(unverifiable=True)
    some(s, src, 2)
    s.target(5)
    s.switch(B(), unverifiable=True)
    some(s, src, 1)
    s.target(7)
    s.end()
    return s


@vector("bad-reset-waiting", "a Y digest that waits is found wrong when a reset drops the targets it waited for",
        "DEC-16", code=410)
def _():
    s, src = Stream(A(), layered=True), source(107)
    some(s, src, 2)
    s.target(1)
    s.checkpoint(unverifiable=True)
    some(s, src, 1)
    s.target(2)
    s.checkpoint(edit=flip("y_digest"))
    s.broken(s.marks["y_digest"])
    s.reset()
    s.end()
    return s


for name, code, part in (("w", 409, "w_digest"), ("y", 410, "y_digest")):
    bad(f"bad-reset-{name}-digest", code, "DEC-8", f"a reset with another {name.upper()} digest", container=False)(
        lambda s, src, part=part: s.reset(edit=flip(part), fault=part))
    bad(f"bad-switch-{name}-digest", code, "DEC-8", f"a switch with another {name.upper()} digest", "a b",
        container=False)(lambda s, src, part=part: s.switch(B(), edit=flip(part), fault=part))


@bad("bad-reset-old", 306, "CHUNK-5", "a reset without digests")
def _(s, src):
    s.reset(edit=lambda parts: parts.__delitem__(slice(5, 7)), fault="crc")


@bad("bad-reset-quality-before-digest", 504, "DEC-8 ERR-6", "a reset with a wrong quality and wrong digests",
     container=False)
def _(s, src):
    def edit(parts):
        flip("w_digest")(parts)
        flip("y_digest")(parts)
        for part in parts:
            if part[0] == "quality":
                part[1] = b"\3"

    s.reset(edit=edit, fault="quality")


@bad("bad-splice", 403, "HDR-12 CTRL-1", "a reset of another stream of the same model, at the same index and epoch",
     identity=IDENTITY)
def _(s, src):
    other, theirs = Stream(A(), identity=OTHER), source(108)
    some(other, theirs, 3)
    other.reset()
    s.put([["spliced", other.messages[-1]]])
    s.broken(s.marks["spliced"] + len(other.messages[-1]) - 4)


@bad("bad-splice-reset", 409, "HDR-12 DEC-8",
     "without an identity, a reset of another stream at the same index and epoch: it states the digests of a context that is not there",
     container=False)
def _(s, src):
    other, theirs = Stream(A()), source(118)
    some(other, theirs, 3)
    other.reset()
    s.put([["spliced", other.messages[-1]]])
    s.broken(s.marks["spliced"] + len(other.messages[-1]) - 12)


@bad("bad-splice-frame", 402, "HDR-12 CHECK-1", "a frame of another stream of the same model", check=2,
     identity=IDENTITY)
def _(s, src):
    other, theirs = Stream(A(), check=2, identity=OTHER), source(109)
    some(other, theirs, 4)
    s.put([["length", other.messages[-1][:1]], ["check", other.messages[-1][1:]]], "check")


@bad("bad-splice-digest", 409, "HDR-12 DEC-8", "the W digest of the same frames in another stream", container=False,
     identity=IDENTITY)
def _(s, src):
    mine, s.identity = s.identity, OTHER
    digests = s.digests()
    s.identity = mine
    s.checkpoint(edit=lambda parts: parts.__setitem__(1, digests[0]), fault="w_digest")


def alike(s, value, **options):
    """An exact frame: all that are made here have equal W and Y, and payloads of the same bytes."""
    m = s.model
    s.exact([1] * m.c, [2] * m.e, 0, struct.pack(f"<{m.e}f", *[value] * m.e), (PLAIN, PLAIN), **options)


@bad("bad-exact-swapped", 403, "CTRL-1 DEC-20", "two exact frames of equal W and Y, swapped", identity=IDENTITY)
def _(s, src):
    alike(s, 1.0, fault="crc")
    alike(s, 2.0)
    s.messages[-2:] = s.messages[:-3:-1]


@bad("bad-exact-swapped-reset", 403, "CTRL-1 DEC-20", "two exact frames of equal W and Y, swapped across a reset",
     identity=IDENTITY)
def _(s, src):
    alike(s, 1.0, fault="crc")
    s.reset()
    alike(s, 2.0)
    s.messages[-3], s.messages[-1] = s.messages[-1], s.messages[-3]


@bad("bad-exact-replayed", 403, "CTRL-1 DEC-20", "an exact frame that a rewind took away, in the place of the one after it",
     identity=IDENTITY)
def _(s, src):
    alike(s, 1.0)
    old = s.messages[-1]
    s.rewind(3)
    alike(s, 2.0, fault="crc")
    s.messages[-1] = old


@bad("bad-quality-lost", 402, "CHECK-1", "a frame after a quality switch that was lost", check=1)
def _(s, src):
    s.quality = 1
    s.frame(*src.frame(s.model), fault="check")


@bad("bad-quality-lost-plain", 409, "DEC-8",
     "plain frames after a quality switch that was lost: they have the same integers in every quality", container=False)
def _(s, src):
    s.quality = 1
    for _ in range(2):
        s.frame(*src.frame(s.model), (PLAIN, PLAIN))
    s.checkpoint(fault="w_digest")


@vector("bad-identity-length", "an identity of seven bytes", "HDR-11", code=209, container=True)
def _():
    s, src = Stream(A(), optional=[(1, bytes(7))], fault="size0"), source(110)
    some(s, src, 2)
    s.end()
    return s


@vector("bad-identity-long", "an identity of nine bytes", "HDR-11", code=209, container=True)
def _():
    s, src = Stream(A(), optional=[(1, bytes(9))], fault="size0"), source(112)
    some(s, src, 2)
    s.end()
    return s


@vector("cut-rewind", "a rewind takes both indices back; the stream is cut off there", "DEC-21 CHUNK-6", code=401,
        container=True, indices=True)
def _():
    s, src = Stream(A(), check=1), source(113)
    some(s, src, 3)
    s.checkpoint()
    some(s, src, 2)
    s.checkpoint()
    s.rewind(4)
    some(s, src, 2)
    s.broken(s.size())
    return s


@vector("cut-rewind-layered", "a rewind takes the resume index back, ahead of the confirmed one; the stream is cut off there",
        "DEC-21 DEC-16 CHUNK-6", code=401, container=True, indices=True)
def _():
    s, src = Stream(A(), layered=True, check=1), source(114)
    some(s, src, 1)
    s.target(0)
    s.checkpoint()
    some(s, src, 4)
    s.checkpoint(unverifiable=True)
    s.rewind(3)
    s.broken(s.size())
    return s


@vector("cut-join", "both indices of a decoder that joined; the stream is cut off before a digest", "DEC-21 JOIN-3 CHUNK-6",
        code=401, container=True, indices=True)
def _():
    s, src = Stream(A(), check=1), source(115)
    some(s, src, 3)
    s.join()
    s.reset(1)
    some(s, src, 2)
    s.broken(s.size())
    return s


@vector("batch-check-quality", "batches with a check in a quality that is not 0", "CHECK-1 DEC-6")
def _():
    s, src = Stream(A(), check=2, quality=2), source(116)
    s.batch(src.frames(s.model, 3))
    s.set_quality(1)
    s.batch(src.frames(s.model, 4), lanes=2)
    s.end()
    return s


@vector("target-check-quality", "targets and target batches in a quality that is not 0: their checks have 0", "CHECK-2 DEC-6")
def _():
    s, src = Stream(A(), layered=True, check=1, quality=2), source(117)
    s.batch(src.frames(s.model, 5))
    s.target(0, count=2)
    s.set_quality(1)
    s.target(2, count=2, lanes=2)
    s.target(4)
    s.end()
    return s


@vector("bad-identity-order", "an identity after the producer", "HDR-7", code=207, container=True)
def _():
    s, src = Stream(A(), optional=[(2, b"x"), (1, bytes(8))], fault="id1"), source(111)
    some(s, src, 2)
    s.end()
    return s
