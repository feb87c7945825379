"""Chapter 4: the model file. `load(data)` gives a Model or raises MidspanError (offset 0)."""
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from .conventions import u32le, u64le
from .errors import MidspanError

HEADER_LIMIT = 100_000_000
SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "F64": 8, "I64": 8, "U64": 8,
}
NUMPY = {"I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "I64": "<i8", "F32": "<f4"}
CODES = {"I8": 0, "U8": 1, "I16": 2, "U16": 3, "I32": 4, "I64": 5, "F32": 6}


def bad(code, text):
    return MidspanError(code, 0, text)


def parse_safetensors(data):
    """name -> (dtype, shape, bytes); [MODEL-1]."""

    def pairs(items):
        result = dict(items)
        if len(result) != len(items):
            raise bad(701, "a key stands twice")
        return result

    def refuse(text):
        raise bad(701, f"{text} is not written in digits alone")

    def digits(text):
        return int(text) if text.isdigit() else refuse(text)

    if len(data) < 8:
        raise bad(701, "no header length")
    n = int.from_bytes(data[:8], "little")
    if n > HEADER_LIMIT or n > len(data) - 8:
        raise bad(701, "header length")
    if data[8:9] != b"{":
        raise bad(701, "the header does not begin with a brace")
    try:
        header = json.loads(data[8 : 8 + n].decode("utf-8"), object_pairs_hook=pairs,
                            parse_int=digits, parse_float=refuse, parse_constant=refuse)
        json.dumps(header, ensure_ascii=False).encode()  # no half of a surrogate pair
    except (UnicodeError, json.JSONDecodeError, RecursionError, ValueError) as error:
        raise bad(701, f"header text: {error}") from None
    buffer = data[8 + n :]
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise bad(701, "metadata")

    def natural(x):
        return isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**63

    spans = []
    tensors = {}
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise bad(701, f"entry of {name}")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in SIZES:
            raise bad(701, f"dtype of {name}")
        if not isinstance(shape, list) or not all(natural(x) for x in shape):
            raise bad(701, f"shape of {name}")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(natural(x) for x in offsets):
            raise bad(701, f"offsets of {name}")
        begin, end = offsets
        size = SIZES[dtype]
        for x in shape:
            size *= x
        if begin > end or end > len(buffer) or end - begin != size:
            raise bad(701, f"offsets of {name}")
        spans.append((begin, end))
        tensors[name] = (dtype, tuple(shape), buffer[begin:end])
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise bad(701, "a hole or an overlap between tensors")
        position = end
    if position != len(buffer):
        raise bad(701, "bytes behind the last tensor")
    return tensors


def fingerprint(tensors):
    """4.6"""
    digest = hashlib.sha256(b"midspan-model-1\n")
    for name in sorted((n for n in tensors if n.startswith("decoder.")), key=lambda n: n.encode()):
        dtype, shape, data = tensors[name]
        digest.update(u32le(len(name.encode())) + name.encode())
        digest.update(bytes([CODES[dtype]]) + u32le(len(shape)))
        for x in shape:
            digest.update(u64le(x))
        digest.update(data)
    return digest.digest()


@dataclass
class Linear:
    weight: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


@dataclass
class Block:
    heads: int
    norm1: int
    norm2: int
    layers: dict
    score_multiplier: np.ndarray
    score_shift: np.ndarray
    position: np.ndarray


@dataclass
class Network:
    widths: list
    window: int
    exp: np.ndarray
    activation: np.ndarray
    input_multiplier: np.ndarray
    input_shift: np.ndarray
    blocks: list
    norm: int
    output: Linear
    offset: np.ndarray


@dataclass
class Prediction:
    """4.9"""
    frames: int  # P
    input_multiplier: np.ndarray
    input_shift: np.ndarray
    diagonal: np.ndarray
    reduce: object  # Linear, or None where R is 0
    expand: object  # [E, R], or None
    output_multiplier: np.ndarray
    output_shift: np.ndarray


@dataclass
class Model:
    fingerprint: bytes
    e: int
    c: int
    q: int
    w_min: int
    w_max: int
    y_min: int
    y_max: int
    s: int
    network: Network
    hyper_prior: list  # tables (first, boundaries with 0 and 65,536)
    target: list
    base: list
    fraction_bits: list
    step: np.ndarray
    offset: np.ndarray
    synthesis: object  # [e, e], or a list of rows (4.10), or None
    vocabulary: int  # V of 4.8; 0 where the model takes no side indices
    embedding: object  # [A, V, D], or None
    side: list  # tables
    prediction: object  # Prediction, or None


class Loader:
    def __init__(self, tensors):
        self.tensors = tensors
        self.expected = set()

    def take(self, name, dtype, shape):
        self.expected.add(name)
        if name not in self.tensors:  # [MODEL-2]
            raise bad(702, f"{name} is missing")
        found, dims, data = self.tensors[name]
        if found != dtype or len(dims) != len(shape) or any(
            want is not None and want != have for want, have in zip(shape, dims)
        ):
            raise bad(703, f"{name} is {found} {dims}, not {dtype} {shape}")
        array = np.frombuffer(data, NUMPY[dtype]).reshape(dims)
        return array if dtype == "F32" else array.astype(np.int64)

    def ranged(self, name, dtype, shape, lo, hi, code=708):
        array = self.take(name, dtype, shape)
        if array.size and (array.min() < lo or array.max() > hi):  # [MODEL-5]
            raise bad(code, f"{name} is outside {lo} ... {hi}")
        return array

    def linear(self, name, m, n, q=None):
        lead = [] if q is None else [q]
        layer = Linear(
            self.ranged(name + ".weight", "I8", [m, n], -127, 127),
            self.take(name + ".bias", "I32", [m]),
            self.ranged(name + ".multiplier", "I32", lead + [m], 0, 32767),
            self.ranged(name + ".shift", "U8", lead + [m], 1, 46),
        )
        bound = 32767 * np.abs(layer.weight).sum(axis=1) + np.abs(layer.bias)
        if bound.max() > 32767 * 65535:  # [MODEL-4]
            raise bad(706, f"a row of {name}")
        return layer

    def network(self, p, inputs, outputs, q):
        """4.2, for g_y"""
        widths = self.take(p + "widths", "I32", [None])
        if not 1 <= len(widths) <= 17:
            raise bad(703, "number of blocks")
        if widths.min() < 1 or widths.max() > 8192:
            raise bad(708, "widths")
        d = [int(x) for x in widths]
        if d[0] != inputs:
            raise bad(705, "the first width is not the input's")
        input_multiplier = self.ranged(p + "input.multiplier", "I32", [q, d[0]], 0, 32767)
        input_shift = self.ranged(p + "input.shift", "U8", [q, d[0]], 1, 46)
        output = self.linear(p + "output", outputs, d[-1], q)
        offset = self.ranged(p + "output.offset", "I32", [q, outputs], -(2**20), 2**20)
        if len(d) == 1:  # no blocks, and nothing that they share
            return Network(d, 1, None, None, input_multiplier, input_shift, [], None, output, offset)
        heads = self.take(p + "heads", "I32", [len(d) - 1])
        for h, width in zip(heads, d):
            if h < 1 or width % h or width // h > 512:
                raise bad(705, "heads")
        window = int(self.ranged(p + "window", "I32", [1], 1, 4096)[0])
        exp = self.ranged(p + "exp", "U16", [1024], 0, 4095)
        if exp[0] != 4095:
            raise bad(708, "exp[0]")
        activation = self.ranged(p + "activation", "I16", [4096], -32767, 32767)
        blocks = []
        for b in range(len(d) - 1):
            at = f"{p}blocks.{b}."
            wide, narrow = d[b], d[b + 1]
            shapes = {"q": (wide, wide), "k": (wide, wide), "v": (wide, wide), "o": (wide, wide),
                      "proj": (narrow, wide), "up": (4 * narrow, narrow), "down": (narrow, 4 * narrow)}
            blocks.append(Block(
                int(heads[b]),
                int(self.ranged(at + "norm1", "I64", [1], 1, 2**46)[0]),
                int(self.ranged(at + "norm2", "I64", [1], 1, 2**46)[0]),
                {name: self.linear(at + name, *shape) for name, shape in shapes.items()},
                self.ranged(at + "score.multiplier", "I32", [int(heads[b])], 0, 32767),
                self.ranged(at + "score.shift", "U8", [int(heads[b])], 1, 46),
                self.ranged(at + "position", "I32", [int(heads[b]), window], -(2**20), 2**20),
            ))
        return Network(
            d, window, exp, activation, input_multiplier, input_shift, blocks,
            int(self.ranged(p + "output.norm", "I64", [1], 1, 2**46)[0]), output, offset,
        )

    def bank(self, p, k):
        """4.3"""
        if k > 65536:  # [MODEL-7]
            raise bad(705, "number of tables")
        firsts = self.take(p + "first", "I32", [k])
        sizes = self.ranged(p + "size", "U16", [k], 1, 4096)
        boundaries = self.take(p + "boundaries", "U16", [int((sizes + 1).sum())]).tolist()
        tables = []
        at = 0
        for first, m in zip(firsts.tolist(), sizes.tolist()):
            c = [0] + boundaries[at : at + m + 1] + [65536]
            if any(a >= b for a, b in zip(c, c[1:])):  # [MODEL-6]
                raise bad(707, f"boundaries of {p}")
            tables.append((first, c))
            at += m + 1
        return tables

    def sparse(self, p, e):
        """4.10: for each channel the indices and the weights of its row"""
        count = self.take(p + "count", "U16", [e])
        total = int(count.sum())
        index = self.take(p + "index", "U16", [total])
        weight = self.take(p + "weight", "F32", [total])
        if not np.isfinite(weight).all():
            raise bad(708, "weight")  # [MODEL-10]
        ends = np.cumsum(count)
        rows = [(index[end - n : end], weight[end - n : end]) for n, end in zip(count, ends)]
        for channel, (own, _) in enumerate(rows):
            if len(own) and (own[-1] >= channel or (own[1:] <= own[:-1]).any()):
                raise bad(708, f"row {channel} of {p}")  # [SPARSE-1]
        return rows

    def side(self, d):
        """4.8: V, the embedding and the tables"""
        if d == 0:
            return 0, None, []
        embedding = self.take("decoder.side.embedding", "I8", [None, None, d])
        ages, vocabulary, _ = embedding.shape
        if not (1 <= ages <= 16 and 1 <= vocabulary < 2**20):  # [MODEL-13]
            raise bad(703, "ages or vocabulary")
        if embedding.min() < -127:
            raise bad(708, "embedding")
        tables = self.bank("decoder.side.", 1 + vocabulary // 256 + 1)
        for (first, table), highest in zip(tables, [vocabulary // 256] + [255] * (len(tables) - 1)):
            if first < 0 or first + len(table) - 4 > highest:
                raise bad(707, "side table")  # [MODEL-13]
        return vocabulary, embedding, tables

    def prediction(self, q, e):
        """4.9, or None"""
        at = "decoder.prediction."
        if not any(name.startswith(at) for name in self.tensors):
            return None

        def scaling(name):
            return (self.ranged(f"{at}{name}.multiplier", "I32", [q, e], 0, 32767),
                    self.ranged(f"{at}{name}.shift", "U8", [q, e], 1, 46))

        diagonal = self.ranged(at + "diagonal", "I16", [None, e], -32767, 32767)
        if not 1 <= len(diagonal) <= 4:  # [MODEL-14]
            raise bad(703, "frames of prediction")
        sums = np.abs(diagonal).sum(axis=0)
        reduce = expand = None
        if any(name.startswith((at + "reduce.", at + "expand")) for name in self.tensors):
            expand = self.ranged(at + "expand", "I8", [e, None], -127, 127)
            if not 1 <= expand.shape[1] <= 1024:
                raise bad(703, "rank of prediction")
            reduce = self.linear(at + "reduce", expand.shape[1], diagonal.size)
            sums = sums + np.abs(expand).sum(axis=1)
        if sums.max() > 65535:
            raise bad(706, "a channel of prediction")
        return Prediction(len(diagonal), *scaling("input"), diagonal, reduce, expand, *scaling("output"))

    def model(self):
        config = self.take("decoder.config", "I32", [12]).tolist()
        form, version, e, c, q, w_min, w_max, y_min, y_max, s, synthesis, d = config
        if not (
            form == 1 and version >= 0 and 1 <= e <= 65536 and 1 <= c <= 4096 and 1 <= q <= 256
            and -32767 <= w_min <= 0 <= w_max <= 32767 and w_min < w_max
            and -32767 <= y_min <= 0 <= y_max <= 32767 and y_min < y_max
            and 1 <= s <= 256 and synthesis in (0, 1, 2) and 0 <= d <= 8191
        ):  # [MODEL-3]
            raise bad(705, "configuration")
        network = self.network("decoder.network.", c + d, 2 * e, q)
        hyper_prior = self.bank("decoder.hyper_prior.", q * c)
        fraction_bits = self.ranged("decoder.target.fraction_bits", "U8", [s], 0, 6).tolist()
        base = [sum(2**f for f in fraction_bits[:i]) for i in range(s)]
        target = self.bank("decoder.target.", sum(2**f for f in fraction_bits))
        for first, table in hyper_prior:
            if first < w_min or first + len(table) - 4 > w_max:  # [MODEL-8]
                raise bad(707, "hyper-prior table")
        for first, table in target:
            if not first <= 0 <= first + len(table) - 4:  # [MODEL-9]
                raise bad(707, "target table")
        step = self.take("decoder.quality.step", "F32", [q, e])
        offset = self.take("decoder.quality.offset", "F32", [q, e])
        if not (np.isfinite(step).all() and (step > 0).all() and np.isfinite(offset).all()):
            raise bad(708, "quality")  # [MODEL-10]
        mapped = None
        if synthesis == 1:
            mapped = self.take("decoder.synthesis", "F32", [e, e])
            if not np.isfinite(mapped).all():
                raise bad(708, "synthesis")  # [MODEL-10]
        elif synthesis == 2:
            mapped = self.sparse("decoder.synthesis.", e)
        side = self.side(d)
        prediction = self.prediction(q, e)
        for name in self.tensors:
            if name.startswith("decoder.") and name not in self.expected:
                raise bad(704, f"{name} is unknown")
        return Model(fingerprint(self.tensors), e, c, q, w_min, w_max, y_min, y_max, s, network,
                     hyper_prior, target, base, fraction_bits, step, offset, mapped, *side,
                     prediction)


def load(data):
    return Loader(parse_safetensors(data)).model()
