"""Headers that break a rule."""

from ..encoder import Stream
from ..wire import varint
from .common import A, replace, vector


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
bad_header("bad-header-length-low", 103, "length", "HDR-3", replace("length", varint(39)))
bad_header("bad-header-length-high", 103, "length", "HDR-3", replace("length", varint(4097)))
bad_header("bad-header-length-form", 101, "length", "VARINT-1", replace("length", varint(44, 2)))
bad_header("bad-header-crc", 204, "crc", "HDR-4", replace("crc", b"\1\2\3\4"))
bad_header("bad-flags-mode", 205, "flags", "HDR-5", replace("flags", b"\2"))
bad_header("bad-flags-check", 205, "flags", "HDR-5", replace("flags", b"\x0c"))
bad_header("bad-flags-reserved", 205, "flags", "HDR-5", replace("flags", b"\3"), text="coding mode 3")
bad_header("bad-flags-file-messages", 205, "flags", "HDR-10", replace("flags", b"\x60"),
           binding="messages")
bad_header("bad-binding-stream", 210, "flags", "HDR-13", replace("flags", b"\x40"),
           text="a byte stream that says it is messages")
bad_header("bad-binding-messages", 210, "flags", "HDR-13", replace("flags", b"\0"), binding="messages",
           text="messages that say they are a byte stream")
bad_header("bad-binding-file", 210, "flags", "HDR-13", replace("flags", b"\x20"), binding="messages",
           text="messages that say they are a file")
bad_header("order-flags-binding", 205, "flags", "HDR-5 HDR-13", replace("flags", b"\x42"),
           text="a byte stream that says it is messages, in a reserved coding mode")
bad_header("order-flags-file-binding", 205, "flags", "HDR-10 HDR-13", replace("flags", b"\x60"),
           text="a byte stream that says it is a file in messages")
bad_header("order-binding-tracks", 210, "flags", "HDR-13 HDR-6 ERR-6",
           lambda p: [replace("flags", b"\x40")(p), replace("tracks", b"\2")(p)],
           text="a byte stream of two tracks that says it is messages")
bad_header("bad-tracks", 206, "tracks", "HDR-6", replace("tracks", b"\2"))
bad_header("bad-max-frames", 103, "max_frames", "VARINT-3", replace("max_frames", b"\0"))
bad_header("bad-max-bytes", 103, "max_bytes", "VARINT-3", replace("max_bytes", varint(71)))
bad_header("bad-max-rewind", 103, "max_rewind", "VARINT-3", replace("max_rewind", varint(2**20 + 1)))
bad_header("bad-model-version", 103, "version", "VARINT-3", replace("version", varint(2**32)))
bad_header("bad-model-version-reserved", 102, "version", "VARINT-2", replace("version", b"\xff\0"))
bad_header("bad-horizon", 103, "horizon", "VARINT-3", replace("horizon", varint(28673)), layered=True)
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
