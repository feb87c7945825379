"""Chapter 5 for one frame at a time, in Python's integers, straight down the text."""
from math import isqrt


def clamp(x, lo, hi):
    return max(lo, min(hi, x))


def clamp16(x):
    return clamp(x, -32767, 32767)


def round_shift(x, s):
    return (x + 2 ** (s - 1)) // 2**s


def linear(layer, x, q=None):
    multiplier = layer["multiplier"] if q is None else layer["multiplier"][q]
    shift = layer["shift"] if q is None else layer["shift"][q]
    result = []
    for row, bias, m, s in zip(layer["weight"], layer["bias"], multiplier, shift):
        acc = bias + sum(a * b for a, b in zip(row, x))
        result.append(round_shift(acc * m, s))
    return result


def norm(x, numerator):
    s = max(1, isqrt(sum(v * v for v in x) * 256))
    r = numerator // s
    return [clamp16(round_shift(v * r, 20)) for v in x]


class Context:
    """What g_y has seen since the context's start."""

    def __init__(self, net, embedding=None):
        self.net = net
        self.embedding = embedding  # by age, side index and dimension (4.8)
        self.side = []  # the side index of each frame
        self.seen = [[] for _ in net["blocks"]]  # per block: (k, v) of each frame

    def rewind(self, frames):
        del self.side[frames:]
        for block in self.seen:
            del block[frames:]

    def attention(self, block, seen, n):
        net = self.net
        q, k, v = ([clamp(y, -2047, 2047) for y in linear(block[l], n)] for l in "qkv")
        seen.append((k, v))
        t = len(seen) - 1
        c = len(q) // block["heads"]
        a = []
        for g in range(block["heads"]):
            head = range(g * c, g * c + c)
            z = {}
            for u in range(max(0, t - net["window"] + 1), t + 1):
                dot = sum(q[j] * seen[u][0][j] for j in head)
                score = round_shift(dot * block["score.multiplier"][g], block["score.shift"][g])
                z[u] = clamp(score, -(2**20), 2**20) + block["position"][g][t - u]
            top = max(z.values())
            e = {u: net["exp"][min(top - z[u], 1023)] for u in z}
            r = 2**36 // sum(e.values())
            a += [round_shift(sum(e[u] * seen[u][1][j] for u in z) * r, 36) for j in head]
        return a

    def side_sums(self):
        """5.5, of the newest frame"""
        sums = [0] * len(self.embedding[0][0])
        for rows, index in zip(self.embedding, reversed(self.side)):
            if index != len(rows):
                sums = [a + b for a, b in zip(sums, rows[index])]
        return sums

    def next(self, w, q, scales, side=None):
        """Means and scale indices of the next frame."""
        net = self.net
        if self.embedding:
            self.side.append(side)
            w = [*w, *self.side_sums()]
        x = [
            clamp16(round_shift(v * m, s))
            for v, m, s in zip(w, net["input.multiplier"][q], net["input.shift"][q])
        ]
        for block, seen in zip(net["blocks"], self.seen):
            a = self.attention(block, seen, norm(x, block["norm1"]))
            x = [clamp16(i + clamp16(j)) for i, j in zip(x, linear(block["o"], a))]
            p = [clamp16(y) for y in linear(block["proj"], x)]
            u = [clamp(y, -2048, 2047) for y in linear(block["up"], norm(p, block["norm2"]))]
            g = [net["activation"][y + 2048] for y in u]
            x = [clamp16(i + clamp16(j)) for i, j in zip(p, linear(block["down"], g))]
        if net["blocks"]:
            x = norm(x, net["output.norm"])
        out = [y + o for y, o in zip(linear(net["output"], x, q), net["output.offset"][q])]
        half = len(out) // 2
        means = [clamp(y, -(2**20), 2**20) for y in out[:half]]
        return means, [clamp(y, 0, scales - 1) for y in out[half:]]


def predicted(model, q, means, past):
    """6.13: the means of a frame of quality q; `past` has (quality, Y) of the frames before it, the newest first."""
    p = model.prediction
    x = [[clamp16(round_shift(y * m, s)) for y, m, s in zip(ys, p["input.multiplier"][of], p["input.shift"][of])]
         for of, ys in past[: len(p["diagonal"])]]
    x += [[0] * model.e for _ in range(len(p["diagonal"]) - len(x))]
    sums = [sum(weights[c] * row[c] for weights, row in zip(p["diagonal"], x)) for c in range(model.e)]
    if p["reduce"]:
        few = [clamp16(v) for v in linear(p["reduce"], [v for row in x for v in row])]
        sums = [acc + sum(a * b for a, b in zip(row, few)) for acc, row in zip(sums, p["expand"])]
    scaling = zip(p["output.multiplier"][q], p["output.shift"][q])
    return [clamp(mean + round_shift(acc * m, s), -(2**20), 2**20) for mean, acc, (m, s) in zip(means, sums, scaling)]
