"""Numbers for private use and numbers of later editions (chapter 9)."""

from ..encoder import Stream
from ..wire import crc, le, varint
from .common import A, bad, replace, some, source, vector

PRIVATE = 2**31  # the first id for private use


@vector("private-ignored", "a field and an extension for private use, neither critical, and grease among them",
        "REG-2 HDR-7 CTRL-7")
def _():
    grease = next(i for i in range(PRIVATE, PRIVATE + 62) if i % 62 == 40)
    s, src = Stream(A(), check=1, optional=[(PRIVATE, b"agreed elsewhere"), (grease, b"")]), source(170)
    some(s, src, 1)
    s.extension(PRIVATE + 5, b"agreed elsewhere")
    some(s, src, 1)
    s.end()
    return s


@vector("bad-private-field", "a critical field for private use", "REG-2 HDR-7", code=208, container=True)
def _():
    s = Stream(A(), optional=[(PRIVATE + 1, b"agreed elsewhere")], fault="id0")
    s.end()
    return s


for kind in (0xF8, 0xFE):
    bad(f"bad-private-kind-{kind:02x}", 301, "REG-2 CHUNK-1", f"kind {kind:02X}, for private use")(
        lambda s, src, kind=kind: s.put([["kind", bytes([kind])], ["length", varint(4)],
                                         ["body", le(crc(bytes([kind])), 4)]], "kind"))


@bad("bad-private-extension", 315, "REG-2 CTRL-7", "a critical extension for private use")
def _(s, src):
    s.extension(PRIVATE, b"agreed elsewhere", kind=0xF0, fault="id")


@vector("version-9", "format version 9 with a field, an extension and grease that version 1 does not know", "VER-2 HDR-2")
def _():
    s = Stream(A(), check=2, head=replace("format", b"\x09"),
               optional=[(4, b"of edition 9"), (40, b"grease"), (1000, b"")])
    src = source(171)
    some(s, src, 2)
    s.extension(9, b"of edition 9")
    some(s, src, 1)
    s.end()
    return s


@vector("bad-version-9", "a stream that needs edition 9: refused before anything in it is read", "VER-3 HDR-2", code=202,
        container=True)
def _():
    def edit(parts):
        replace("format", b"\x09")(parts)
        replace("least", b"\x09")(parts)
        parts[3:] = [["later", b"\xff\xff\xff"]]

    s = Stream.__new__(Stream)
    s.finish_header = lambda parts: None
    s.__init__(A(), head=edit, fault="least")
    return s
