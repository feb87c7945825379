"""What the experiments share: captures in an eigenbasis, in steps, and bits of integers about a predicted mean."""
import os
import sys

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "baselines"))
from coding import Tables  # noqa: E402
from files import load  # noqa: E402
from maps import eigenbasis, weighted_eigenbasis  # noqa: E402

LEVELS, LOWEST, HIGHEST = 64, 0.015, 400.0  # scales of the bank of tables, in steps


class Capture:
    """Two captures of a host: tables and predictors are fitted on `train`, and measured on `valid`. x and v are their
    hidden states in the eigenbasis, the channel of most variance first."""

    def __init__(self, folder, name, weighted):
        train, valid = (load(os.path.join(folder, f"{name}.{part}.safetensors")) for part in ("train", "valid"))
        hidden, self.sensitivity = train["hidden"].astype(np.float64), train["sensitivity"].astype(np.float64)
        a, b = weighted_eigenbasis(hidden, self.sensitivity) if weighted else eigenbasis(hidden)
        a, self.b, self.mean, self.hidden = a[:, ::-1], b[::-1], hidden.mean(0), valid["hidden"]
        self.x = ((hidden - self.mean) @ a).astype(np.float32)
        self.v = ((valid["hidden"] - self.mean) @ a).astype(np.float32)
        self.starts_x, self.starts_v = (part["starts"].astype(np.int64) for part in (train, valid))
        if "ids" in train:
            self.ids_x, self.ids_v = (part["ids"].astype(np.int64) for part in (train, valid))
            self.vocabulary = int(max(self.ids_x.max(), self.ids_v.max())) + 1


def before(rows, starts, age=1, fill=0):
    """The rows `age` frames earlier; `fill` in the first frames of sequences."""
    out = np.full_like(rows, fill)
    out[age:] = rows[:-age]
    for i in range(age):
        out[np.minimum(starts + i, len(rows) - 1)] = fill
    return out


def solve(inputs, wanted, ridge=1.0):
    """The matrix that predicts `wanted` from `inputs` with least squares."""
    gram = (inputs.T @ inputs).astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    return np.linalg.solve(gram, (inputs.T @ wanted).astype(np.float64)).astype(np.float32)


def scale_level(scale):
    place = np.log(np.maximum(scale, 1e-6) / LOWEST) * ((LEVELS - 1) / np.log(HIGHEST / LOWEST))
    return np.clip(np.rint(place), 0, LEVELS - 1).astype(np.int32)


class Bank:
    """Tables shared by all channels: one a level of the scale and, where that is below two steps, one an eighth of the
    mean's fraction. A value beyond nine scales takes an escape and an Elias gamma code with a sign."""

    def __init__(self, y, mean, scale, phases=8):
        self.phases = phases
        scales = LOWEST * np.exp(np.arange(LEVELS) * np.log(HIGHEST / LOWEST) / (LEVELS - 1))
        self.wide = scales > 2
        self.limit = np.repeat(np.clip(np.ceil(9 * scales) + 2, 3, 4000).astype(np.int32), phases)  # [tables]
        self.most = int(self.limit.max())
        size = 2 * self.most + 2
        place, _ = self.places(y, mean, scale)
        counts = np.bincount(place.ravel(), minlength=len(self.limit) * size).reshape(-1, size).astype(float)
        k = np.arange(size) - self.most - 1
        # A two-sided geometric of the same mean size, with a weight of two and a thousandth of the counts.
        total = counts[:, 1:].sum(1)
        spread = np.maximum((counts[:, 1:] * np.abs(k[1:])).sum(1) / np.maximum(total, 1), 0.02)
        ratio = (np.sqrt(1 + spread**2) - 1) / spread
        prior = ((1 - ratio) / (1 + ratio))[:, None] * ratio[:, None] ** np.abs(k)
        prior[:, 0] = 1e-3
        counts += (2 + 1e-3 * (total + counts[:, 0]))[:, None] * prior
        inside = np.abs(k) <= self.limit[:, None]
        inside[:, 0] = True
        counts = np.where(inside, counts, 0)
        self.cost = (-np.log2(np.maximum(counts, 1e-12) / counts.sum(1, keepdims=True))).ravel()

    def places(self, y, mean, scale):
        """Each value's place in the tables, and by how much it lies beyond its own."""
        whole = np.rint(mean)
        level = scale_level(np.broadcast_to(scale, y.shape))
        phase = np.minimum(((mean - whole + 0.5) * self.phases).astype(np.int32), self.phases - 1)
        table = level * self.phases + np.where(self.wide[level], 0, phase)
        r = (y - whole).astype(np.int32)
        beyond = np.abs(r) - self.limit[table]
        return table.astype(np.int64) * (2 * self.most + 2) + np.where(beyond > 0, 0, r + self.most + 1), beyond

    def bits(self, y, mean, scale):
        """Bits a frame."""
        place, beyond = self.places(y, mean, scale)
        far = beyond[beyond > 0]
        return float((self.cost[place].sum() + (2 * np.floor(np.log2(far)) + 2).sum()) / len(y))


def channel_bits(train, valid):
    """Bits a frame by a static table a channel."""
    return Tables(train).bits(valid)


def bank_bits(train, valid):
    """Bits a frame by a bank; each argument is (y, mean, scale)."""
    return Bank(*train).bits(*valid)
