"""Random small models that keep every rule of chapter 4."""
import hashlib
import json
import math
import random
import struct

SIZES = {"I8": 1, "U8": 1, "I16": 2, "U16": 2, "I32": 4, "I64": 8, "F32": 4, "BF16": 2}
PACK = {"I8": "b", "U8": "B", "I16": "h", "U16": "H", "I32": "i", "I64": "q", "F32": "f"}
CODES = {"I8": 0, "U8": 1, "I16": 2, "U16": 3, "I32": 4, "I64": 5, "F32": 6}


def f32(x):
    """The nearest binary32, ties to even."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def flat(values):
    return [y for x in values for y in flat(x)] if isinstance(values, (list, tuple)) else [values]


def shape_of(values):
    return [len(values)] + shape_of(values[0]) if isinstance(values, (list, tuple)) else []


def pack(dtype, values):
    values = flat(values)
    return struct.pack(f"<{len(values)}{PACK[dtype]}", *values)


class Tensors(dict):
    """name -> (dtype, shape, bytes)"""

    def put(self, name, dtype, values, shape=None):
        self[name] = (dtype, shape_of(values) if shape is None else shape, pack(dtype, values))

    def file(self, metadata=None, order=None):
        header = {}
        if metadata is not None:
            header["__metadata__"] = metadata
        data = b""
        for name in order or sorted(self, key=lambda n: -SIZES[self[n][0]]):
            dtype, shape, piece = self[name]
            header[name] = {"dtype": dtype, "shape": shape,
                            "data_offsets": [len(data), len(data) + len(piece)]}
            data += piece
        return wrap(json.dumps(header, separators=(",", ":")), data)

    def fingerprint(self):
        """4.6"""
        text = b"midspan-model-1\n"
        for name in sorted(n.encode() for n in self if n.startswith("decoder.")):
            dtype, shape, piece = self[name.decode()]
            text += struct.pack("<I", len(name)) + name
            text += struct.pack("<BI", CODES[dtype], len(shape))
            text += b"".join(struct.pack("<Q", x) for x in shape) + piece
        return hashlib.sha256(text).digest()


def wrap(header, data):
    header = header.encode() if isinstance(header, str) else header
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


class Model:
    """Parameters in plain lists, and the tensors that hold them."""

    def __init__(self, name, seed, e, c, q=1, widths=(8,), heads=None, window=4, w=(-40, 40),
                 y=(-200, 200), scales=((1, 2), (3, 3), (8, 1)), extreme=False, lean=False, mapped=False, sparse=False,
                 side=None, side_tables=(), predicts=None):
        """`side`: ages, vocabulary and width of side indices (4.8). `predicts`: P and R of prediction (4.9).

        `side_tables`: the first value of each of their tables, and the number of its values.
        """
        self.name = name
        self.random = random.Random(seed)
        self.e, self.c, self.q = e, c, q
        self.w_min, self.w_max = w
        self.y_min, self.y_max = y
        self.s = len(scales)
        self.extreme = extreme
        self.lean = lean
        ages, self.vocabulary, side_width = side or (0, 0, 0)
        d = [c + side_width, *widths]
        self.config = [1, seed, e, c, q, *w, *y, self.s, 2 if sparse else int(mapped), side_width]
        self.widths = d
        heads = heads or [1] * (len(d) - 1)
        self.net = self.network(d, heads, window)
        if lean:
            self.repeat_outputs()
        self.fraction_bits = [f for _, f in scales]
        self.base = [sum(2**f for f in self.fraction_bits[:i]) for i in range(self.s)]
        self.hyper_prior = [self.hyper_prior_table() for _ in range(q * c)]
        self.target = [
            self.table(sigma, fraction / 2**f)
            for sigma, f in scales for fraction in range(2**f)
        ]
        rnd = self.random
        if lean:
            step = [rnd.choice([0.25, 0.375, 0.75, 1.5]) for _ in range(self.PERIOD)]
            offset = [rnd.randint(-2, 2) / 2 for _ in range(self.PERIOD)]
            self.step = [[step[i % self.PERIOD] for i in range(e)] for _ in range(q)]
            self.offset = [[offset[i % self.PERIOD] for i in range(e)] for _ in range(q)]
        else:
            self.step = [[f32(rnd.uniform(0.01, 3)) for _ in range(e)] for _ in range(q)]
            self.offset = [[f32(rnd.uniform(-2, 2)) for _ in range(e)] for _ in range(q)]
        if extreme:
            self.step[0][:3] = [f32(1e-45), f32(3.0e38), f32(1e-38)]
            self.offset[0][:3] = [0.0, f32(-3e38), -0.0]
        self.synthesis = None
        if mapped:
            # Small numbers of few bits: every order of 6.7's sum gives the same hidden state, to the bit.
            self.step = [[rnd.choice([0.125, 0.25, 0.5, 1.0, 2.0]) for _ in range(e)] for _ in range(q)]
            self.offset = [[rnd.randint(-32, 32) / 16 for _ in range(e)] for _ in range(q)]
            self.synthesis = [[float(rnd.randint(-2, 2)) for _ in range(e)] for _ in range(e)]
        self.sparse = None
        if sparse:
            # Rows of every length from none to all channels before; sums whose order matters.
            shares = [0, 0.3, 0.7, 1]
            self.sparse = []
            for c in range(e):
                index = [i for i in range(c) if rnd.random() < shares[c % 4]]
                self.sparse.append([(i, f32(rnd.uniform(-0.5, 0.5))) for i in index])
        self.embedding = None
        if side:
            self.embedding = [[[rnd.choice([rnd.randint(-127, 127), -127, 127]) for _ in range(side_width)]
                               for _ in range(self.vocabulary)] for _ in range(ages)]
            assert len(side_tables) == 1 + self.vocabulary // 256 + 1
            self.side = [self.table(max(1, m / 3), first + rnd.randrange(m), first, m) for first, m in side_tables]
        self.prediction = self.make_prediction(*predicts) if predicts else None
        self.tensors = self.to_tensors()
        self.fingerprint = self.tensors.fingerprint()

    def make_prediction(self, frames, rank):
        """4.9: means move by about the Y before them; every fifth channel has weights at their bounds."""
        rnd = self.random

        def rows(ratio):
            pairs = [[self.scaling(ratio * rnd.choice([0.5, 1, 2])) for _ in range(self.e)] for _ in range(self.q)]
            return [[m for m, _ in row] for row in pairs], [[s for _, s in row] for row in pairs]

        input_multiplier, input_shift = rows(40)
        limit = 32767 // frames
        diagonal = [[rnd.choice([-limit, limit]) if c % 5 == 4 else rnd.randint(-900 // frames, 2000 // frames)
                     for c in range(self.e)] for _ in range(frames)]
        expand = [[rnd.randint(-127, 127) for _ in range(rank)] for _ in range(self.e)] if rank else None
        # A Y of 3 is about 120 in the common unit, and a sum about 150,000: a step or two in means.
        output_multiplier, output_shift = rows(64 / 100000)
        return {
            "input.multiplier": input_multiplier, "input.shift": input_shift, "diagonal": diagonal,
            "reduce": self.layer(rank, frames * self.e, 120, 300) if rank else None, "expand": expand,
            "output.multiplier": output_multiplier, "output.shift": output_shift,
        }

    # -- the network ---------------------------------------------------------------------------

    # After so many channels a lean model begins again, so that it is small in packages. A prime, so that no lane and no
    # vector of a processor has its length.
    PERIOD = 61

    def repeat_outputs(self):
        """Makes means, and scales, of channel i those of channel i mod PERIOD."""
        place = [half * self.e + i % self.PERIOD for half in range(2) for i in range(self.e)]
        output = self.net["output"]
        for name in ("weight", "bias"):
            output[name] = [output[name][i] for i in place]
        for name in ("multiplier", "shift"):
            output[name] = [[row[i] for i in place] for row in output[name]]
        self.net["output.offset"] = [[row[i] for i in place] for row in self.net["output.offset"]]

    def scaling(self, ratio):
        """multiplier and shift for about `ratio`"""
        shift = 46
        while shift > 1 and ratio * 2**shift > 32767:
            shift -= 1
        return min(32767, max(0, round(ratio * 2**shift * self.random.uniform(0.7, 1)))), shift

    def layer(self, m, n, rms_in, rms_out, quality=False):
        rnd = self.random
        limit = 127 if self.extreme and n < 400 else 60
        limit = min(limit, 65535 // n - 2)
        weight = [[rnd.randint(-limit, limit) for _ in range(n)] for _ in range(m)]
        expected = rms_in * limit * 0.58 * math.sqrt(n)
        bias = [rnd.randint(-int(expected), int(expected)) for _ in range(m)]
        if self.extreme:
            for row in weight[::3]:
                for j in range(n):
                    row[j] = rnd.choice([-127, 127]) if n < 500 else row[j]
            for i in range(m):
                room = 32767 * (65535 - sum(abs(a) for a in weight[i]))
                bias[i] = rnd.choice([room, -room]) if i % 5 == 1 else bias[i]

        def rows():
            pairs = [self.scaling(rms_out / expected) for _ in range(m)]
            if self.extreme and m > 2:
                pairs[0] = (32767, 46)
                pairs[1] = (32767, 1)
                pairs[2] = (0, 5)
            return [p[0] for p in pairs], [p[1] for p in pairs]

        layer = {"weight": weight, "bias": bias}
        if quality:
            both = [rows() for _ in range(self.q)]
            layer["multiplier"] = [b[0] for b in both]
            layer["shift"] = [b[1] for b in both]
        else:
            layer["multiplier"], layer["shift"] = rows()
        return layer

    def network(self, d, heads, window):
        rnd = self.random
        one = 2**24
        rms = 1000

        def numerator(width):
            return int((9000 if self.extreme else rms) * math.sqrt(width) * one)

        blocks = []
        for b, h in enumerate(heads):
            wide, narrow = d[b], d[b + 1]
            block = {
                "heads": h, "norm1": numerator(wide), "norm2": numerator(narrow),
                "q": self.layer(wide, wide, rms, 700), "k": self.layer(wide, wide, rms, 700),
                "v": self.layer(wide, wide, rms, 900), "o": self.layer(wide, wide, 700, 800),
                "proj": self.layer(narrow, wide, 1500, 1200),
                "up": self.layer(4 * narrow, narrow, rms, 700),
                "down": self.layer(narrow, 4 * narrow, 500, 900),
            }
            if self.extreme and b == 1:
                block["norm1"] = 2**46
            ratio = 150 / (700 * 700 * math.sqrt(wide / h))
            pairs = [self.scaling(ratio) for _ in range(h)]
            block["score.multiplier"] = [p[0] for p in pairs]
            block["score.shift"] = [p[1] for p in pairs]
            block["position"] = [
                [-12 * g * x + rnd.randint(-40, 40) for x in range(window)] for g in range(h)
            ]
            if self.extreme:
                block["score.multiplier"][3] = 32767
                block["score.shift"][3] = 1
                block["position"][1] = [rnd.choice([-(2**20), 2**20]) for _ in range(window)]
            blocks.append(block)
        gains = [0.4, rms / 15] if self.extreme else [rms / 15]
        inputs = [[self.scaling(gains[i % len(gains)]) for i in range(d[0])] for _ in range(self.q)]
        activation = [
            round((i - 2048) / (1 + math.exp(-(i - 2048) / 300))) for i in range(4096)
        ]
        exp = [round(4095 * math.exp(-i / 128)) for i in range(1024)]
        if self.extreme:
            activation = [rnd.choice([-32767, 32767, rnd.randint(-32767, 32767)]) for _ in activation]
            exp = [4095] + [rnd.choice([0, 4095, rnd.randint(0, 4095)]) for _ in exp[1:]]
        output = self.layer(2 * self.e, d[-1], rms, 1, quality=True)
        offset = []
        for q in range(self.q):
            mean, scale = 500 * (1 + q), self.s
            expected = rms * 60 * 0.58 * math.sqrt(d[-1])
            for i in range(2 * self.e):
                if self.extreme and i % 4 == 0:
                    continue
                m, s = self.scaling((mean if i < self.e else scale) / expected)
                output["multiplier"][q][i], output["shift"][q][i] = m, s
            offset.append(
                [rnd.randint(-400, 400) for _ in range(self.e)]
                + [rnd.randint(0, self.s - 1) for _ in range(self.e)]
            )
            if self.extreme:
                offset[q][0] = 2**20
                offset[q][1] = -(2**20)
                offset[q][self.e] = -(2**20)
                offset[q][self.e + 1] = 2**20
        return {
            "window": window, "exp": exp, "activation": activation, "blocks": blocks,
            "input.multiplier": [[p[0] for p in row] for row in inputs],
            "input.shift": [[p[1] for p in row] for row in inputs],
            "output.norm": numerator(d[-1]), "output": output, "output.offset": offset,
        }

    # -- tables --------------------------------------------------------------------------------

    def table(self, sigma, centre, first=None, m=None):
        """(first, boundaries with 0 and 65,536)"""
        half = max(0, round(1.6 * sigma)) if not self.lean else 0
        if first is None:
            first = -half
            m = 2 * half + 1
        weight = [math.exp(-abs(first + i - 1 - centre) / sigma) for i in range(m + 2)]
        spare = 65536 - (m + 2)
        total = sum(weight)
        c = [0]
        for i in range(m + 2):
            c.append(c[-1] + 1 + int(spare * weight[i] / total))
        c[-1] = 65536
        return first, c

    def hyper_prior_table(self):
        rnd = self.random
        if self.lean:
            return self.table(2, 0, 0, 1)
        sigma = rnd.uniform(0.8, 6)
        centre = rnd.randint(-6, 6)
        half = max(1, round(1.5 * sigma))
        first = max(self.w_min, centre - half)
        return self.table(sigma, centre, first, min(self.w_max, centre + half) - first + 1)

    # -- the file ------------------------------------------------------------------------------

    def to_tensors(self):
        t = Tensors()
        net = self.net
        p = "decoder.network."
        t.put("decoder.config", "I32", self.config)
        t.put(p + "widths", "I32", self.widths)
        if net["blocks"]:
            t.put(p + "heads", "I32", [b["heads"] for b in net["blocks"]])
            t.put(p + "window", "I32", [net["window"]])
            t.put(p + "exp", "U16", net["exp"])
            t.put(p + "activation", "I16", net["activation"])
        t.put(p + "input.multiplier", "I32", net["input.multiplier"])
        t.put(p + "input.shift", "U8", net["input.shift"])
        for b, block in enumerate(net["blocks"]):
            at = f"{p}blocks.{b}."
            t.put(at + "norm1", "I64", [block["norm1"]])
            t.put(at + "norm2", "I64", [block["norm2"]])
            for name in ("q", "k", "v", "o", "proj", "up", "down"):
                self.put_layer(t, at + name, block[name])
            t.put(at + "score.multiplier", "I32", block["score.multiplier"])
            t.put(at + "score.shift", "U8", block["score.shift"])
            t.put(at + "position", "I32", block["position"])
        if net["blocks"]:
            t.put(p + "output.norm", "I64", [net["output.norm"]])
        self.put_layer(t, p + "output", net["output"])
        t.put(p + "output.offset", "I32", net["output.offset"])
        self.put_bank(t, "decoder.hyper_prior.", self.hyper_prior)
        t.put("decoder.target.fraction_bits", "U8", self.fraction_bits)
        self.put_bank(t, "decoder.target.", self.target)
        t.put("decoder.quality.step", "F32", self.step)
        t.put("decoder.quality.offset", "F32", self.offset)
        if self.synthesis:
            t.put("decoder.synthesis", "F32", self.synthesis)
        if self.sparse:
            self.put_sparse(t, "decoder.synthesis.", self.sparse)
        if self.embedding:
            t.put("decoder.side.embedding", "I8", self.embedding)
            self.put_bank(t, "decoder.side.", self.side)
        if self.prediction:
            at, p = "decoder.prediction.", self.prediction
            for name, dtype in (("input.multiplier", "I32"), ("input.shift", "U8"), ("diagonal", "I16"),
                                ("output.multiplier", "I32"), ("output.shift", "U8")):
                t.put(at + name, dtype, p[name])
            if p["reduce"]:
                self.put_layer(t, at + "reduce", p["reduce"])
                t.put(at + "expand", "I8", p["expand"])
        return t

    @staticmethod
    def put_sparse(t, prefix, rows):
        entries = [entry for row in rows for entry in row]
        t.put(prefix + "count", "U16", [len(row) for row in rows])
        t.put(prefix + "index", "U16", [index for index, _ in entries])
        t.put(prefix + "weight", "F32", [weight for _, weight in entries])

    @staticmethod
    def put_layer(t, name, layer):
        t.put(name + ".weight", "I8", layer["weight"])
        t.put(name + ".bias", "I32", layer["bias"])
        t.put(name + ".multiplier", "I32", layer["multiplier"])
        t.put(name + ".shift", "U8", layer["shift"])

    @staticmethod
    def put_bank(t, prefix, tables):
        t.put(prefix + "first", "I32", [first for first, _ in tables])
        t.put(prefix + "size", "U16", [len(c) - 3 for _, c in tables])
        t.put(prefix + "boundaries", "U16", flat([c[1:-1] for _, c in tables]))
