"""Model files: broken ones, and ones at their bounds."""
import struct

from ..encoder import Stream
from ..models import Tensors, pack, wrap
from ..wire import le
from .common import B, MODELS, build_b, some, source, vector


def bad_model(name, code, rules, text, others=()):
    """`others`: numbers that a loader may report in place of `code`."""

    def register(change):
        @vector(name, text, rules, "", code=code, others=list(others), model_file=change)
        def _():
            s, src = Stream(B()), source(90)
            some(s, src, 1)
            s.end()
            s.fault_offset = 0
            s.fault_kinds = []
            return s

        return change

    return register


def copy():
    return Tensors(B().tensors)


def set_values(t, name, change):
    dtype, shape, data = t[name]
    form = {"I8": "b", "U8": "B", "I16": "h", "U16": "H", "I32": "i", "I64": "q", "F32": "f"}[dtype]
    size = struct.calcsize("<" + form)
    values = list(struct.unpack(f"<{len(data) // size}{form}", data))
    change(values)
    t[name] = (dtype, shape, pack(dtype, values))


def value_change(name, at, value):
    def change():
        t = copy()
        set_values(t, name, lambda v: v.__setitem__(at, value))
        return t.file()

    return change


def header_change(edit):
    """`edit` gets the header's text and the data."""

    def change():
        file = B().tensors.file()
        n = int.from_bytes(file[:8], "little")
        return edit(file[8 : 8 + n].decode(), file[8 + n :])

    return change


N = "decoder.network."
bad_model("model-cut", 701, "MODEL-1", "the last byte is missing")(lambda: B().tensors.file()[:-1])
bad_model("model-tail", 701, "MODEL-1", "a byte behind the last tensor")(lambda: B().tensors.file() + b"\0")
bad_model("model-header-length", 701, "MODEL-1", "a header longer than the file")(
    lambda: le(2**40, 8) + B().tensors.file()[8:])
bad_model("model-json", 701, "MODEL-1", "a header that is no JSON")(
    header_change(lambda text, data: wrap(text.replace("]", "", 1), data)))
bad_model("model-duplicate", 701, "MODEL-1", "a name that stands twice")(
    header_change(lambda text, data: wrap(
        text.replace("{", '{"extra":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
                     '"extra":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},', 1), data)))
bad_model("model-hole", 701, "MODEL-1", "a byte between header and tensors that nobody owns")(
    lambda: shifted())
bad_model("model-overlap", 701, "MODEL-1", "a tensor over the bytes of another")(
    header_change(lambda text, data: wrap(
        text.replace("{", '{"extra":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},', 1), data)))


def added(text):
    """Model b's file with `text` before the first entry of its header."""
    return header_change(lambda header, data: wrap(header.replace("{", "{" + text, 1), data))


def entry(name, dtype="U8", shape="[0]", offsets="[0,0]", more=""):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}{more}}},'


bad_model("model-dtype-unknown", 701, "MODEL-1", "a tensor of a dtype that is not in the list")(
    added(entry("extra", dtype="F8_E8M0")))
bad_model("model-key-extra", 701, "MODEL-1", "a fourth key in the entry of a tensor")(
    added(entry("extra", more=',"strides":[1]')))
bad_model("model-key-twice", 701, "MODEL-1", "a dtype that stands twice in an entry")(
    added(entry("extra", more=',"dtype":"U8"')))
bad_model("model-metadata-twice", 701, "MODEL-1", "a key that stands twice in the metadata")(
    added('"__metadata__":{"host":"a","host":"b"},'))
bad_model("model-metadata-number", 701, "MODEL-1", "a number in the metadata")(added('"__metadata__":{"host":1},'))
bad_model("model-number-fraction", 701, "MODEL-1", "a shape with a decimal point")(added(entry("extra", shape="[0.0]")))
bad_model("model-number-sign", 701, "MODEL-1", "an offset of -0")(added(entry("extra", offsets="[-0,0]")))
bad_model("model-surrogate", 701, "MODEL-1", "a name with half a surrogate pair")(added(entry("\\ud800")))
bad_model("model-space-first", 701, "MODEL-1", "a header that begins with a space")(
    header_change(lambda text, data: wrap(" " + text, data)))
bad_model("model-empty-inside", 701, "MODEL-1", "an empty tensor inside another one's bytes")(
    added(entry("extra", offsets="[1,1]")))
bad_model("model-text-utf8", 701, "MODEL-1", "a name that is no UTF-8")(
    header_change(lambda text, data: wrap(text.encode().replace(b"decoder.config", b"decoder.c\xffnfig"), data)))


def shifted():
    t = copy()
    t["extra"] = ("U8", [8], bytes(8))
    file = t.file(order=["extra", *B().tensors])
    n = int.from_bytes(file[:8], "little")
    text = file[8 : 8 + n].decode().replace('"extra":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},', "")
    return wrap(text.rstrip(), file[8 + n :])


@bad_model("model-missing", 702, "MODEL-2", "no exp table")
def _():
    t = copy()
    del t[N + "exp"]
    return t.file()


@bad_model("model-shape", 703, "MODEL-2", "an exp table of 1,023 entries")
def _():
    t = copy()
    dtype, _, data = t[N + "exp"]
    t[N + "exp"] = (dtype, [1023], data[:-2])
    return t.file()


@bad_model("model-dtype", 703, "MODEL-2", "a window of dtype U8")
def _():
    t = copy()
    t[N + "window"] = ("U8", [1], b"\3")
    return t.file()


@bad_model("model-boundaries", 703, "MODEL-6", "a boundary too many")
def _():
    t = copy()
    name = "decoder.target.boundaries"
    dtype, shape, data = t[name]
    t[name] = (dtype, [shape[0] + 1], data + b"\xff\xff")
    return t.file()


@bad_model("model-unknown", 704, "MODEL-2", "a tensor decoder.extra")
def _():
    t = copy()
    t["decoder.extra"] = ("U8", [1], b"\0")
    return t.file()


def linear(*more):
    """The model "linear", with these tensors of model b's network that only blocks need."""
    t = Tensors(MODELS["linear"].tensors)
    t.update((N + name, B().tensors[N + name]) for name in more)
    return t


bad_model("model-linear-window", 704, "MODEL-2", "a window in a network without blocks")(
    lambda: linear("window").file())
bad_model("model-linear-norm", 704, "MODEL-2", "a norm before the last layer of a network without blocks")(
    lambda: linear("output.norm").file())
bad_model("model-linear-block", 704, "MODEL-2", "a layer of block 0 in a network without blocks")(
    lambda: linear("blocks.0.q.weight").file())


@bad_model("model-no-widths", 703, "MODEL-2", "no width at all")
def _():
    t = linear()
    t[N + "widths"] = ("I32", [0], b"")
    return t.file()


@bad_model("model-two-faults", 705, "MODEL-12 MODEL-3 MODEL-5", "a model format of 2 and a shift of 0: either may be reported",
           others=[708])
def _():
    t = copy()
    set_values(t, "decoder.config", lambda v: v.__setitem__(0, 2))
    set_values(t, N + "blocks.0.q.shift", lambda v: v.__setitem__(1, 0))
    return t.file()


bad_model("model-format", 705, "MODEL-3", "model format 2")(value_change("decoder.config", 0, 2))
bad_model("model-synthesis", 705, "MODEL-3", "a synthesis of 3")(value_change("decoder.config", 10, 3))
bad_model("model-synthesis-missing", 702, "MODEL-2", "a synthesis of 1 without its map")(
    value_change("decoder.config", 10, 1))
bad_model("model-synthesis-unknown", 704, "MODEL-2", "a map with a synthesis of 0")(
    lambda: with_map(0, [10, 10]))
bad_model("model-synthesis-shape", 703, "MODEL-2", "a map of nine columns")(lambda: with_map(1, [10, 9]))
bad_model("model-synthesis-infinite", 708, "MODEL-10", "a map with an infinite value")(
    lambda: with_map(1, [10, 10], float("inf")))
bad_model("model-reserved", 705, "MODEL-5 MODEL-2 MODEL-12",
          "a side width of 1 in a model without side indices: its first width does not fit, and tensors are missing",
          others=[702])(
    value_change("decoder.config", 11, 1))
bad_model("model-w-range", 705, "MODEL-3", "w_max below zero")(value_change("decoder.config", 6, -1))
bad_model("model-exp", 708, "MODEL-5", "exp[0] is 4,094")(value_change(N + "exp", 0, 4094))
bad_model("model-activation", 708, "MODEL-5", "an activation of -32,768")(
    value_change(N + "activation", 9, -32768))
bad_model("model-weight", 708, "MODEL-5", "a weight of -128")(
    value_change(N + "blocks.0.up.weight", 5, -128))
bad_model("model-shift-0", 708, "MODEL-5", "a shift of 0")(value_change(N + "blocks.0.q.shift", 1, 0))
bad_model("model-multiplier", 708, "MODEL-5", "a multiplier of 32,768")(
    value_change(N + "output.multiplier", 3, 32768))
bad_model("model-norm", 708, "MODEL-5", "a norm numerator above 2^46")(
    value_change(N + "blocks.0.norm2", 0, 2**46 + 1))
bad_model("model-position", 708, "MODEL-5", "a position bias above 2^20")(
    value_change(N + "blocks.0.position", 2, 2**20 + 1))
bad_model("model-step", 708, "MODEL-10", "a step of zero")(value_change("decoder.quality.step", 4, 0.0))
bad_model("model-offset", 708, "MODEL-10", "an offset that is infinite")(
    value_change("decoder.quality.offset", 2, float("inf")))
bad_model("model-row-bound", 706, "MODEL-4", "a bias one above its row's bound")(
    lambda: row_bound_broken())
bad_model("model-table-order", 707, "MODEL-6", "two equal boundaries")(
    lambda: equal_boundaries())
bad_model("model-table-w", 707, "MODEL-8", "a table of W that begins below w_min")(
    value_change("decoder.hyper_prior.first", 1, -41))
bad_model("model-table-y", 707, "MODEL-9", "a table of Y without the value 0")(
    value_change("decoder.target.first", 3, 1))


def with_map(synthesis, shape, value=1.0):
    t = copy()
    set_values(t, "decoder.config", lambda v: v.__setitem__(10, synthesis))
    t.put("decoder.synthesis", "F32", [0.5, value] * (shape[0] * shape[1] // 2), shape)
    return t.file()


def row_bound_broken():
    row = B().net["blocks"][0]["down"]["weight"][2]
    bias = -(32767 * (65535 - sum(abs(w) for w in row)) + 1)
    return value_change(N + "blocks.0.down.bias", 2, bias)()


def equal_boundaries():
    t = copy()
    set_values(t, "decoder.hyper_prior.boundaries", lambda v: v.__setitem__(1, v[0]))
    return t.file()


def good_model(name, rules, text, model=B):
    def register(change):
        @vector(name, text, rules, "", model_file=change)
        def _():
            s, src = Stream(model()), source(91)
            some(s, src, 3)
            s.end()
            return s

        return change

    return register


@good_model("model-other-names", "MODEL-11", "other tensors, metadata and another order: the same fingerprint")
def _():
    t = copy()
    t["host.extra"] = ("BF16", [3, 2], bytes(range(12)))
    t["empty"] = ("F32", [0, 7], b"")
    t["scalar"] = ("I64", [], bytes(8))
    order = sorted(t, key=lambda n: n[::-1])
    return t.file({"made by": "nobody", "decoder.config": "text"}, order)


@good_model("model-dtypes", "MODEL-1", "a tensor of every dtype, and white space after the header")
def _():
    t = copy()
    sizes = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
             "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8}
    for dtype, size in sizes.items():
        t[f"other.{dtype}"] = (dtype, [2], bytes(2 * size))
    file = t.file(order=sorted(t))
    n = int.from_bytes(file[:8], "little")
    return wrap(file[8 : 8 + n].rstrip() + b" \n\t\r ", file[8 + n :])


def tight():
    """Model b with a bias exactly at its row's bound."""
    m = build_b()
    down = m.net["blocks"][0]["down"]
    down["bias"][2] = -(32767 * (65535 - sum(abs(w) for w in down["weight"][2])))
    m.tensors = m.to_tensors()
    m.fingerprint = m.tensors.fingerprint()
    return m


@good_model("model-row-bound-tight", "MODEL-4", "a bias exactly at its row's bound", tight)
def _():
    return tight().tensors.file()
