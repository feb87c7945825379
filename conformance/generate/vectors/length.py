"""The length offset (2.3, CHUNK-8): what it is after each chunk that states it, and the form of every length."""

from ..coder import Coder
from ..encoder import Stream
from ..wire import varint
from .bad_header import bad_header
from .common import A, B, MODELS, PLAIN, bad, flip, replace, some, source, vector, wide
from .order import both


def sized(size):
    """W, Y and modes of a frame of the model "wide" whose payload has `size` bytes: a plain Y that ends in zeros."""
    modes = (PLAIN, wide(16))
    for last in range(size // 2 + 1, max(-1, size // 2 - 9), -1):
        for value in (1, 256):
            y = [0] * 8300
            y[min(last, 8299)] = value
            coder = Coder()
            coder.runs([(modes[0], [0], None)])
            coder.runs([(modes[1], y, None)])
            if len(coder.seal()) == size:
                return [0], y, modes
    raise AssertionError(size)


def leading(s):
    """The bytes in front of the latest one-frame chunk's body."""
    first, *_ = [s.marks[name] for name in ("check", "payload0") if name in s.marks]
    return s.data()[s.marks["start"] : first]


@vector("length-offset-forms", "bodies at both ends of the window and next to it: 99, 100, 227, 228 bytes", "CHUNK-3 CHUNK-8",
        "wide")
def _():
    s = Stream(MODELS["wide"], check=1, length_offset=100)
    for body, lead in ((99, "8063"), (100, "00"), (227, "7f"), (228, "8064"), (128, "1c")):
        s.frame(*sized(body - 1))
        assert leading(s).hex() == lead
    s.end()
    return s


@vector("length-offset-largest", "a length offset of 16,383: the last short, the only other medium and the first long form",
        "CHUNK-3 CHUNK-8", "wide")
def _():
    s = Stream(MODELS["wide"], check=1, length_offset=16383)
    for body, lead in ((16383, "00"), (16510, "7f"), (16511, "bfff"), (16512, "c0c04080")):
        s.frame(*sized(body - 1))
        assert leading(s).hex() == lead
    s.end()
    return s


def forms(s, src, n=3):
    """Frames, all in one form: "short" or "medium"."""
    found = set()
    for _ in range(n):
        s.frame(*src.frame(s.model, spread=1, escapes=0))
        found.add(len(leading(s)))
    form, = found
    return {1: "short", 2: "medium"}[form]


@vector("length-offset-set", "set by the header and anew by resets, quality and model switches", "CHUNK-8 CTRL-3", "a b")
def _():
    s, src = Stream(A(), check=1, length_offset=3), source(180)
    assert forms(s, src) == "short"
    s.reset(length_offset=200)
    assert forms(s, src) == "medium"
    s.set_quality(1, length_offset=2)
    assert forms(s, src) == "short"
    s.set_quality(1, length_offset=16383)
    assert forms(s, src) == "medium"
    s.switch(B(), length_offset=1)
    assert forms(s, src) == "short"
    s.switch(A(), 2, length_offset=128)
    assert forms(s, src) == "medium"
    s.reset(0, length_offset=0)
    assert forms(s, src) == "short"
    s.end()
    return s


@vector("length-offset-rewind", "rewinds to frames before a quality switch leave the length offset as it is", "CHUNK-8 DEC-5")
def _():
    s, src = Stream(A(), check=2), source(181)
    some(s, src, 3)
    s.set_quality(1, length_offset=300)
    some(s, src, 2)
    s.rewind(1)
    assert forms(s, src) == "medium"
    s.set_quality(0, length_offset=2)
    s.rewind(0)
    assert forms(s, src) == "short"
    s.end()
    return s


@vector("length-offset-join-reset", "a decoder that joins takes the length offset from the reset", "CHUNK-8 JOIN-3")
def _():
    s, src = Stream(A(), check=1, length_offset=500, file=True), source(182)
    some(s, src, 2)
    s.join(s.index)
    s.reset(length_offset=1)
    assert forms(s, src) == "short"
    s.rewind(3)
    assert forms(s, src) == "short"
    s.end()
    s.seek_index()
    return s


@vector("length-offset-join-switch", "a decoder that joins takes the length offset from the model switch", "CHUNK-8 JOIN-2",
        "b")
def _():
    s, src = Stream(A(), check=1), source(183)
    some(s, src, 2)
    s.join()
    s.switch(B(), length_offset=400)
    assert forms(s, src) == "medium"
    s.end()
    return s


@vector("length-offset-messages", "stated in messages too, where it changes nothing", "CHUNK-8 MSG-2")
def _():
    s, src = Stream(A(), binding="messages", check=1, length_offset=200), source(184)
    some(s, src, 2)
    s.set_quality(1, length_offset=16383)
    some(s, src, 2)
    s.reset(length_offset=1)
    some(s, src, 2)
    s.end()
    return s


@vector("length-offset-layered", "hyper-priors of one frame in the short form, and below the length offset", "CHUNK-8 DEC-1")
def _():
    s, src = Stream(A(), layered=True, check=1, length_offset=2), source(185)
    assert forms(s, src) == "short"
    s.set_quality(2, length_offset=90)
    assert forms(s, src) == "medium"
    for i in range(6):
        s.target(i)
    s.end()
    return s


@vector("length-offset-limit", "short form up to max chunk bytes; a length offset above it leaves the medium form alone",
        "CHUNK-2 CHUNK-8", "wide")
def _():
    s = Stream(MODELS["wide"], max_bytes=120, length_offset=50)
    s.frame(*sized(120))
    assert leading(s).hex() == "46"
    s.set_quality(0, length_offset=121)
    s.frame(*sized(120))
    assert leading(s).hex() == "8078"
    s.end()
    return s


for code, value, what in ((103, varint(16384), "range"), (103, varint(2**56 - 1), "huge"), (101, varint(5, 2), "form"),
                          (102, b"\xff", "reserved"), (209, b"", "none"), (209, b"\x80", "cut")):
    rule = {101: "VARINT-1", 102: "VARINT-2", 103: "VARINT-3", 209: "HDR-8"}[code]
    bad_header(f"bad-length-offset-{what}", code, "length_offset", f"{rule} CHUNK-8", replace("length_offset", value))

for name, call in (("reset", lambda s, **o: s.reset(**o)), ("quality", lambda s, **o: s.set_quality(0, **o)),
                   ("switch", lambda s, **o: s.switch(A(), **o))):
    bad(f"bad-length-offset-{name}", 103, "VARINT-3 CHUNK-8", f"a length offset of 16,384: {name}", check=1)(
        lambda s, src, call=call: call(s, edit=replace("length_offset", varint(16384)), fault="length_offset"))
    bad(f"bad-length-offset-{name}-form", 101, "VARINT-1 CHUNK-8", f"a length offset that is not written shortest: {name}")(
        lambda s, src, call=call: call(s, edit=replace("length_offset", varint(127, 2)), fault="length_offset"))


@bad("bad-length-offset-quality-none", 306, "CHUNK-5 CHUNK-8", "a quality switch without a length offset")
def _(s, src):
    s.set_quality(1, edit=replace("length_offset", b""), fault="length_offset")


@bad("bad-length-offset-quality-cut", 306, "CHUNK-5 CHUNK-8", "a quality switch that ends inside its length offset")
def _(s, src):
    s.set_quality(1, edit=replace("length_offset", b"\x80"), fault="length_offset")


@bad("order-length-offset-epoch", 406, "CTRL-3 CHUNK-8 ERR-6", "a reset of another epoch with a length offset of 16,384")
def _(s, src):
    s.reset(edit=both(replace("epoch", varint(9)), replace("length_offset", varint(16384))), fault="epoch")


@bad("order-length-offset-prefix", 103, "CTRL-3 CHUNK-8 ERR-6", "a reset of another model with a length offset of 16,384")
def _(s, src):
    s.reset(edit=both(flip("prefix"), replace("length_offset", varint(16384))), fault="length_offset")


@bad("order-length-offset-quality", 103, "DEC-6 CHUNK-8 ERR-6", "an unknown quality with a length offset of 16,384")
def _(s, src):
    s.set_quality(200, edit=replace("length_offset", varint(16384)), fault="length_offset")


for body in (99, 100, 227, 228, 16511):
    bad(f"bad-length-offset-long-{body}", 303, "CHUNK-3 CHUNK-8", f"kind C0 for a body of {body:,} bytes, length offset 100",
        length_offset=100)(lambda s, src, body=body: s.put([["kind", b"\xc0"], ["length", varint(body)]], "length"))


@bad("bad-length-offset-limit", 302, "CHUNK-2 CHUNK-8", "a short form above the limit", max_bytes=100, max_frames=4,
     length_offset=90)
def _(s, src):
    s.put([["length", b"\x0b"]], "length")  # 101


@bad("bad-length-offset-limit-first", 302, "CHUNK-2 CHUNK-8", "a length offset above the limit, in the short form", max_bytes=100,
     max_frames=4, length_offset=101)
def _(s, src):
    s.put([["length", b"\0"]], "length")


@bad("bad-length-offset-limit-medium", 302, "CHUNK-2 CHUNK-8", "a medium form below the length offset and above the limit",
     max_bytes=100, max_frames=4, length_offset=200)
def _(s, src):
    s.put([["length", b"\x80\x65"]], "length")  # 101


@bad("bad-length-offset-old", 402, "CHECK-1 CHUNK-8", "a length by the length offset from before a reset", check=2)
def _(s, src):
    s.reset(length_offset=2)
    s.length_offset = 0
    s.frame(*src.frame(s.model), fault="check")


@bad("bad-length-offset-rewound", 402, "CHECK-1 CHUNK-8", "a writer that takes the length offset back with a rewind", check=2)
def _(s, src):
    s.set_quality(1, length_offset=2)
    some(s, src, 1)
    s.rewind(2)
    s.length_offset = 0
    s.frame(*src.frame(s.model), fault="check")


@vector("bad-length-offset-medium-cut", "input that ends inside the two bytes of the medium form", "CHUNK-6 CHUNK-8",
        code=401, container=True)
def _():
    s, src = Stream(A(), length_offset=200), source(186)
    some(s, src, 2)
    s.put([["length", b"\x80"]], "behind")
    return s
