"""Chapter 5: g_y, in int64. Frames of a batch are computed side by side."""
import math

import numpy as np

from .conventions import round_shift

ROWS = 64  # frames of attention at a time


def clamp16(x):
    return np.clip(x, -32767, 32767)


def linear(layer, x, q=None):
    """5.1 for x of shape [frames, inputs]; q picks the row of an output layer."""
    acc = x @ layer.weight.T + layer.bias
    multiplier = layer.multiplier if q is None else layer.multiplier[q]
    shift = layer.shift if q is None else layer.shift[q]
    return round_shift(acc * multiplier, shift)


def norm(x, numerator):
    """5.2"""
    ss = (x * x).sum(axis=1)
    s = np.array([max(1, math.isqrt(v << 8)) for v in ss.tolist()], np.int64)
    r = numerator // s
    return clamp16(round_shift(x * r[:, None], 20))


class State:
    """5.6: keys and values of every block, and side indices, for the frames of the context."""

    def __init__(self, network, embedding=None):
        self.network = network
        self.embedding = embedding  # [A, V, D] where the model takes side indices (4.8)
        self.side = []
        self.frames = 0
        self.keys = [np.zeros((0, d), np.int64) for d in network.widths[:-1]]
        self.values = [np.zeros((0, d), np.int64) for d in network.widths[:-1]]

    def rewind(self, frames):
        """[NET-6]"""
        self.frames = frames
        self.side = self.side[:frames]
        self.keys = [k[:frames] for k in self.keys]
        self.values = [v[:frames] for v in self.values]

    def side_sums(self, side):
        """5.5: of each new frame the rows of its own side index and of those before it, each at its age"""
        ages, vocabulary, width = self.embedding.shape
        self.side = self.side + side
        sums = np.zeros((len(side), width), np.int64)
        for i, total in enumerate(sums):
            t = self.frames + i
            for age in range(min(ages, t + 1)):
                if self.side[t - age] < vocabulary:
                    total += self.embedding[age, self.side[t - age]]
        return sums

    def attention(self, b, block, n):
        """5.3"""
        net = self.network
        q = np.clip(linear(block.layers["q"], n), -2047, 2047)
        k = np.clip(linear(block.layers["k"], n), -2047, 2047)
        v = np.clip(linear(block.layers["v"], n), -2047, 2047)
        keys = self.keys[b] = np.concatenate([self.keys[b], k])
        values = self.values[b] = np.concatenate([self.values[b], v])
        c = net.widths[b] // block.heads
        result = np.zeros_like(v)
        for lo in range(0, len(n), ROWS):
            t = self.frames + np.arange(lo, min(lo + ROWS, len(n)))[:, None]
            u = np.arange(max(0, t[0, 0] - net.window + 1), t[-1, 0] + 1)[None, :]
            inside = (u <= t) & (u >= t - net.window + 1)
            distance = np.where(inside, t - u, 0)
            for g in range(block.heads):
                part = slice(g * c, g * c + c)
                dot = q[lo : lo + ROWS, part] @ keys[u[0], part].T
                z = round_shift(dot * block.score_multiplier[g], block.score_shift[g])
                z = np.clip(z, -(2**20), 2**20) + block.position[g][distance]
                z_max = np.where(inside, z, -(2**40)).max(axis=1, keepdims=True)
                e = np.where(inside, net.exp[np.clip(z_max - z, 0, 1023)], 0)
                r = 2**36 // e.sum(axis=1, keepdims=True)
                result[lo : lo + ROWS, part] = round_shift((e @ values[u[0], part]) * r, 36)
        return result

    def run(self, w, q, side=None):
        """5.5 for w of shape [frames, C], all of quality q, and the frames' side indices: means and scale indices."""
        net = self.network
        w = np.asarray(w, np.int64)
        if self.embedding is not None:
            w = np.concatenate([w, self.side_sums(side)], axis=1)
        x = clamp16(round_shift(w * net.input_multiplier[q], net.input_shift[q]))
        for b, block in enumerate(net.blocks):  # 5.4
            a = self.attention(b, block, norm(x, block.norm1))
            x = clamp16(x + clamp16(linear(block.layers["o"], a)))
            p = clamp16(linear(block.layers["proj"], x))
            u = np.clip(linear(block.layers["up"], norm(p, block.norm2)), -2048, 2047)
            g = net.activation[u + 2048]
            x = clamp16(p + clamp16(linear(block.layers["down"], g)))
        self.frames += len(w)
        if net.blocks:
            x = norm(x, net.norm)
        return linear(net.output, x, q) + net.offset[q]
