"""Chunks and files that break a rule of the container."""

from ..encoder import Stream
from ..wire import crc, le, varint
from .common import A, B, bad, flip, replace, some, source, vector


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
    s.set_quality(0, edit=lambda p: p.insert(2, ["extra", b"\0"]), fault="extra")


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


@bad("bad-message-c0-zero", 303, "MSG-3", "kind C0 as a message whose body is one byte 00", binding="messages")
def _(s, src):
    s.raw(b"\xc0\0\0", "raw")


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
