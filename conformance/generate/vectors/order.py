"""Inputs that break two rules, or one rule at a place that only the order of judging tells (spec 7.4)."""

from ..encoder import Stream
from ..wire import crc, le, varint
from .common import A, B, bad, flip, replace, some, source, vector


def both(*edits):
    def edit(parts):
        for one in edits:
            one(parts)

    return edit


def cut_header(name, code, rules, text, keep, edit, part):
    """A header of which only the first `keep` bytes come."""

    @vector(name, text, rules + " CHUNK-6 ERR-6", code=code, container=True)
    def _():
        s = Stream(A(), head=edit, fault=part)
        s.messages = [s.data()[:keep]]
        return s


cut_header("order-version-cut", 203, "HDR-2", "format version 0, and then no more input", 5,
           replace("format", b"\0"), "format")
cut_header("order-reader-version-cut", 202, "HDR-2", "minimum reader version 2, and then no more input", 6,
           both(replace("format", b"\2"), replace("least", b"\2")), "least")
cut_header("order-header-length-cut", 103, "HDR-3", "a body length of 38, and then no more input", 7,
           replace("length", varint(38)), "length")


def header(name, code, part, rules, text, edit=None, **options):
    @vector(name, text, rules + " ERR-6", code=code, container=True)
    def _():
        s = Stream(A(), head=edit, fault=part, **options)
        s.end()
        return s


header("order-reader-version", 203, "least", "HDR-2", "minimum reader version 2 in format version 1: 203 before 202",
       replace("least", b"\2"))
header("order-header-crc", 204, "crc", "HDR-4 HDR-5", "reserved flags and a wrong crc",
       both(replace("flags", b"\x40"), replace("crc", b"\1\2\3\4")))
header("order-flags", 205, "flags", "HDR-5 HDR-6", "a reserved coding mode and two tracks",
       both(replace("flags", b"\2"), replace("tracks", b"\2")))
header("order-flags-file", 205, "flags", "HDR-10 HDR-6", "flag bits 5 and 6, and two tracks",
       both(replace("flags", b"\x60"), replace("tracks", b"\2")), binding="messages")
header("order-optional-critical", 207, "id1", "HDR-7", "an unknown critical id out of order", optional=[(40, b""), (3, b"")])
header("order-optional-length", 208, "id0", "HDR-7 HDR-8", "an unknown critical id whose length exceeds the body",
       replace("size0", varint(99)), optional=[(5, b"x")])
header("order-optional-form", 101, "id1", "VARINT-1 HDR-7", "an id that is out of order, and not written shortest",
       replace("id1", varint(3, 2)), optional=[(40, b""), (3, b"")])


@bad("order-kind", 304, "CHUNK-4 VARINT-2 ERR-6", "a target in joined mode whose length is reserved")
def _(s, src):
    s.put([["kind", b"\xc2"], ["length", b"\xff"]], "kind")


@bad("order-kind-cut", 301, "CHUNK-1 CHUNK-6 ERR-6", "a reserved kind, and then no more input")
def _(s, src):
    s.put([["kind", b"\xd0"]], "kind")
    s.kinds.append("end")


@vector("order-body-cut", "a batch of one frame whose body is cut", "CHUNK-6 BATCH-1 ERR-6", code=401, container=True)
def _():
    s, src = Stream(A()), source(130)
    some(s, src, 1)
    s.put([["kind", b"\xc1"], ["length", varint(9)], ["body", b"\0\0\1\2\3"]], "behind")
    return s


@vector("order-crc-cut", "a checkpoint of a wrong index whose crc is cut", "CHUNK-6 CTRL-2 ERR-6", code=401,
        container=True)
def _():
    s, src = Stream(A()), source(131)
    some(s, src, 1)
    s.checkpoint(edit=replace("index", varint(7)))
    s.kinds.pop()
    s.messages[-1] = s.messages[-1][:-2]
    s.broken(s.size())
    return s


@bad("order-end-empty", 306, "CHUNK-5 CTRL-1", "an end chunk without a body")
def _(s, src):
    s.put([["kind", b"\xca"], ["length", b"\0"], ["body", b""]], "body")


@bad("order-message-empty-end", 306, "CHUNK-5 CTRL-1", "an end chunk without a body, as a message", binding="messages")
def _(s, src):
    s.put([["kind", b"\xca"], ["body", b""], ["zero", b"\0"]], "body")


@bad("order-index-layout", 404, "CTRL-2 CHUNK-5 ERR-6", "a checkpoint of a wrong index with a byte after its fields")
def _(s, src):
    s.checkpoint(edit=both(replace("index", varint(9)), lambda p: p.insert(3, ["extra", b"\0"])), fault="index")


@bad("order-end-index", 404, "CTRL-2 ERR-6", "an end chunk of a wrong index and a wrong total")
def _(s, src):
    s.end(edit=both(replace("index", varint(4)), replace("coded", varint(4))), fault="index")


@bad("order-reset-epoch", 406, "CTRL-3 ERR-6", "a reset of a wrong epoch and another model")
def _(s, src):
    s.reset(edit=both(replace("epoch", varint(2)), flip("prefix")), fault="epoch")


@bad("order-reset-model", 502, "CTRL-3 DEC-6 ERR-6",
     "a reset of another model and a quality that there is not: 502 is the container's")
def _(s, src):
    s.reset(edit=both(replace("quality", b"\3"), flip("prefix")), fault="prefix")


@bad("order-reset-layout", 306, "CHUNK-5 DEC-6 ERR-6",
     "a reset of a quality that there is not, with a byte after its fields")
def _(s, src):
    def edit(parts):
        replace("quality", b"\3")(parts)
        parts.insert(len(parts) - 1, ["extra", b"\7"])

    s.reset(edit=edit, fault="extra")


@bad("order-rewind", 407, "CTRL-4 ERR-6", "a rewind before the context that is also too far", max_rewind=1)
def _(s, src):
    s.reset()
    some(s, src, 3)
    s.rewind(1, fault="index")


@bad("order-lane-padding", 313, "LANE-2 LANE-3 ERR-6", "a lane table badly closed, of lanes longer than the body")
def _(s, src):
    def edit(parts):
        behind = sum(len(piece) for name, piece in parts if name.startswith("payload"))
        table = s.closed_table(behind, [(0, 2), (2, 4)], [behind + 1, 0], 4)
        replace("table", table[:-1] + bytes([table[-1] | 2]))(parts)
        assert table[-1] & 3 == 1

    s.batch(src.frames(s.model, 4), lanes=2, edit=edit, fault="table")


@bad("order-lane-negative", 312, "LANE-1 LANE-3 ERR-6", "a lane of negative length, and then no more table")
def _(s, src):
    # B = 3, p = 1, k = 0; u = 3: two zero bits, a one bit, 00, so the length is 1 - 2.
    s.put([["kind", b"\xc1"], ["length", b"\5"], ["frames", b"\3"], ["lanes", b"\1"],
           ["table", b"\x20\0\0"]], "table")


@bad("order-lane-cut", 306, "LANE-3 CHUNK-5", "a lane table that does not end")
def _(s, src):
    s.put([["kind", b"\xc1"], ["length", b"\4"], ["frames", b"\3"], ["lanes", b"\1"], ["table", b"\x80\0"]], "table")


@bad("order-lane-check", 306, "LANE-3 CHUNK-5", "lanes of no byte, and half of a check", check=2)
def _(s, src):
    # B = 2, p = 1, k = 0; u = 1: a zero bit, a one bit, 0, so the length is 0; then the closing one bit.
    s.put([["kind", b"\xc1"], ["length", b"\4"], ["frames", b"\3"], ["lanes", b"\1"], ["table", b"\x41"],
           ["check", b"\7"]], "check")


@bad("order-lane-sum-check", 312, "LANE-1 LANE-3", "a lane that would fit if there were no check", check=2)
def _(s, src):
    # B = 4, p = 2, k = 0; u = 0: the length is 2, and one byte is left beside the check.
    s.put([["kind", b"\xc1"], ["length", b"\6"], ["frames", b"\3"], ["lanes", b"\1"], ["table", b"\x81"],
           ["check", b"\7\7"], ["payload", b"\1"]], "table")


@bad("order-lanes-check", 313, "LANE-2 CHECK-1 ERR-6", "a lane table badly closed and a wrong check", check=2)
def _(s, src):
    def after(parts):
        table = next(piece for name, piece in parts if name == "table")
        assert table[-1] & 3 == 1
        replace("table", table[:-1] + bytes([table[-1] | 2]))(parts)

    s.batch(src.frames(s.model, 6), lanes=2, after=after, fault="table")


@bad("order-check", 402, "CHECK-1 ENT-1 ERR-6", "a wrong check over a corrupt payload", check=1)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\xff" * 8, after=flip("check", 3), fault="check")


@bad("bad-exact-length-check", 306, "CTRL-6", "an exact frame whose frame is shorter than its check", check=2)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(24), edit=replace("frame_length", varint(1)), fault="check")


@bad("order-exact-dtype", 314, "CTRL-6 ERR-6", "an exact frame of an unknown dtype and a frame length beyond the body")
def _(s, src):
    s.exact(*src.frame(s.model), 4, bytes(24), edit=replace("frame_length", varint(127)), fault="dtype")


@bad("order-exact-check", 402, "CTRL-6 CHECK-1 ERR-6", "an exact frame of a wrong check and another width", check=1)
def _(s, src):
    def edit(parts):
        frame = s.timeline[-1]
        index = next(i for i, part in enumerate(parts) if part[0] == "check")
        right = s.check_bytes(parts, index, 0xC9, 1, s.index - 1, frame.epoch)
        parts[index][1] = bytes([right[0] ^ 1 or 255])

    s.exact(*src.frame(s.model), 1, bytes(22), edit=edit, fault="check")


@bad("order-exact-payload", 503, "CTRL-6 ENT-1 ERR-6", "an exact frame of another width with a corrupt payload",
     container=False)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(22), payload=lambda p: b"\xff" * 8, fault="hidden")


@bad("order-exact-overdue", 503, "CTRL-6 DEC-14 ERR-6", "an exact frame of another width above the horizon",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(22), fault="hidden")


@bad("order-overdue-payload", 806, "DEC-14 ENT-1 ERR-6", "a corrupt hyper-prior above the horizon",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\xff" * 8, fault="start")


@bad("order-overdue-long", 806, "DEC-14 MODE-4 ERR-6", "a hyper-prior above the horizon whose payload is too long",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\7" * 99, fault="start")


@bad("order-exact-long", 503, "CTRL-6 MODE-4 ERR-6", "an exact frame of another width whose payload is too long",
     container=False)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(22), payload=lambda p: b"\7" * 99, fault="hidden")


@bad("order-lane-long", 604, "MODE-4 ENT-1 ERR-6", "a corrupt payload in the first lane, one that is too long in the second",
     container=False)
def _(s, src):
    s.batch(src.frames(s.model, 4), lanes=2, payload=lambda p: [b"\xff" * 9, b"\7" * 199], fault="payload1")


@bad("order-digests", 409, "DEC-8 ERR-6", "a checkpoint of two other digests", container=False)
def _(s, src):
    s.checkpoint(edit=both(flip("w_digest"), flip("y_digest")), fault="w_digest")


@bad("order-checkpoints-waiting", 318, "DEC-18 DEC-8 ERR-6",
     "one checkpoint more than may wait, with another W digest", container=False, layered=True, horizon=3)
def _(s, src):
    for _ in range(4):
        s.checkpoint()
    s.checkpoint(edit=flip("w_digest"), fault="index")


@vector("order-model-quality", "a stream of another model and a quality that there is not", "MODEL-11 DEC-6 ERR-6", "b",
        code=501)
def _():
    s = Stream(A(), head=replace("quality", b"\xff"), fault="fingerprint")
    s.end()
    return s


@bad("order-switch-quality", 501, "DEC-7 DEC-6 ERR-6", "a switch to a model that is not there, of quality 255",
     container=False)
def _(s, src):
    s.switch(B(), 255, fault="fingerprint")


@bad("order-lane-first", 603, "ENT-2 SEAL-2 DEC-3 ERR-6",
     "the second lane has a W out of range, the first a seal that is wrong: all W come first", container=False)
def _(s, src):
    frames = src.frames(s.model, 4)
    w = frames[2][0]
    frames[2] = ([w[0], s.model.w_min - 1, *w[2:]], frames[2][1])
    s.batch(frames, lanes=2, payload=lambda p: [p[0] + b"\0", p[1]], fault="payload1")


@bad("order-seek-no-flag", 305, "CHUNK-4", "a seek index before the end of a stream without flag bit 5")
def _(s, src):
    s.put([["kind", b"\xcb"], ["length", b"\5"], ["body", b"\0" + le(crc(b"\xcb\0"), 4)]], "kind")


@vector("order-seek-after-end", "a seek index after the end of a stream without flag bit 5", "CHUNK-4 CHUNK-7",
        code=307, container=True)
def _():
    s, src = Stream(A()), source(132)
    some(s, src, 1)
    s.end()
    s.raw(b"\xcb\5\0" + le(crc(b"\xcb\0"), 4), "raw")
    return s


@vector("order-message-seek-after-end", "a seek index as a message after the end", "CHUNK-4 MSG-5", code=307,
        container=True)
def _():
    s, src = Stream(A(), binding="messages"), source(133)
    some(s, src, 1)
    s.end()
    s.raw(b"\xcb\0" + le(crc(b"\xcb\0"), 4) + b"\0", "raw")
    return s


@vector("order-message-00-after-end", "the message 00 after the end", "MSG-3 MSG-5", code=307, container=True)
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(134)
    some(s, src, 1)
    s.target(0)
    s.end()
    s.raw(b"\0", "raw")
    return s


@vector("order-file-kind", "a reserved kind where a seek index must stand", "FILE-1 CHUNK-1", code=305, container=True)
def _():
    s, src = Stream(A(), file=True), source(135)
    some(s, src, 1)
    s.end()
    s.raw(b"\xff", "raw")
    return s


@vector("order-file-cut", "a file that ends with its end chunk", "FILE-1 CHUNK-6", code=401, container=True)
def _():
    s, src = Stream(A(), file=True), source(136)
    some(s, src, 1)
    s.end()
    s.broken(s.size())
    return s


def footer(name, code, text, edit, fault):
    @vector(name, text, "FILE-1 FILE-4", code=code, container=True)
    def _():
        s, src = Stream(A(), file=True), source(137)
        some(s, src, 1)
        s.end()
        s.seek_index([], footer=edit, footer_fault=fault)
        return s


footer("order-footer", 316, "a footer of a wrong offset and a wrong magic", both(flip("footer_offset"), flip("footer_magic")),
       "footer_offset")
footer("order-footer-cut", 401, "a footer of a wrong offset, cut", both(flip("footer_offset"), replace("footer_magic", b"MSP")),
       "behind")


def seek(name, code, text, fault, edit, entries=None):
    @vector(name, text, "FILE-2", code=code, container=True)
    def _():
        s, src = Stream(A(), file=True), source(138)
        some(s, src, 2)
        s.reset()
        some(s, src, 1)
        s.reset()
        s.end()
        s.seek_index(entries, edit=edit, fault=fault)
        return s


TOP = 2**56 - 1
seek("bad-seek-frame", 317, "a frame of 2^56 in a seek index", "frame1",
     both(replace("frame0", varint(TOP)), replace("frame1", varint(1))))
seek("order-seek-frame", 317, "a frame of 2^56, and an offset that does not ascend: the frame first", "frame1",
     both(replace("frame0", varint(TOP)), replace("frame1", varint(1)), replace("offset1", b"\0")))
seek("bad-seek-many", 306, "a seek index of more entries than it counts", "frame1", replace("count", b"\1"))


@vector("file-delta-zero", "two resets at one index, and one at the stream's start: frame deltas of 0", "FILE-2")
def _():
    s, src = Stream(A(), file=True), source(139)
    s.reset()
    some(s, src, 2)
    s.reset()
    s.reset()
    some(s, src, 1)
    s.end()
    assert [frame for frame, _ in s.seek] == [0, 2, 2]
    s.seek_index()
    return s


@vector("file-index-elsewhere", "entries that name no reset: a reader from start to end does not look", "FILE-3")
def _():
    s, src = Stream(A(), file=True), source(140)
    some(s, src, 3)
    s.reset()
    some(s, src, 1)
    s.end()
    s.seek_index([(7, 3), (7, 4), (900, s.size() - 1)])
    return s
