"""Experiment (a): what the token of a frame, which the far end knows, tells of its hidden state.

    python side_tables.py --states FOLDER --name stories-s2 --bits 327.2
    python side_tables.py --states FOLDER --name minilm-s3 --bits 1400

Tables [V, E] of means by token, for this frame's token alone, or one each for the last three; of full rank and reduced,
in int8 to int2; and of scales. Columns: the mean rounded, with a static table a channel, and a bank of 64 scales. The
step is the one at which static tables take `--bits`."""
import argparse

import numpy as np

from common import Capture, bank_bits, before, channel_bits


def sums(ids, rows, vocabulary):
    """Sums of rows by token, [V, E]."""
    order = np.argsort(ids, kind="stable")
    known, at = np.unique(ids[order], return_index=True)
    out = np.zeros((vocabulary, rows.shape[1]))
    out[known] = np.add.reduceat(rows[order].astype(np.float64), at, axis=0)
    return out


def additive(ids, x, vocabulary, ridge=2.0):
    """Tables of all ages at once by least squares, [ages, V, E], and their Gram matrix."""
    size = len(ids) * vocabulary
    gram = np.zeros((size, size))
    for i, a in enumerate(ids):
        for j, b in enumerate(ids):
            np.add.at(gram, (a + i * vocabulary, b + j * vocabulary), 1)
    gram[np.diag_indices(size)] += ridge
    return np.linalg.solve(gram, np.concatenate([sums(a, x, vocabulary) for a in ids])), gram


def empirical_bayes(ids, x, vocabulary):
    """A table for one token, for large vocabularies: in each direction that tells tokens apart, means are shrunk by the
    ratio of what varies within tokens to what varies between them. Also the means of the frames themselves with the
    frame left out, [T, E], so that rare tokens do not look better than they are."""
    x = x.astype(np.float64)
    n = np.bincount(ids, minlength=vocabulary).astype(float)
    total = sums(ids, x, vocabulary)
    mean = total / np.maximum(n, 1)[:, None]
    within = (x.T @ x - (mean * n[:, None]).T @ mean) / max(np.maximum(n - 1, 0).sum(), 1)
    some = (n >= 2) & (n <= 64)
    between = mean[some].T @ mean[some] / some.sum() - within * (1 / n[some]).mean()
    l = np.linalg.cholesky(within + 1e-4 * np.trace(within) / len(within) * np.eye(len(within)))
    inverse = np.linalg.inv(l)
    ratio, u = np.linalg.eigh(inverse @ between @ inverse.T)
    shrink = 1 / np.maximum(ratio, 0.02)
    to, back = inverse.T @ u, u.T @ l.T
    table = (total @ to) / (n[:, None] + shrink)
    others = ((total @ to)[ids] - x @ to) / (n[ids][:, None] - 1 + shrink)
    return table @ back, others @ back, n


def reduced(table, gram, size, rank):
    """The table's best approximation of a rank, with errors weighted by how often tokens occur and by 1 / size."""
    scaled = table / size
    weighed = scaled * gram[:, None] if gram.ndim == 1 else gram @ scaled
    _, u = np.linalg.eigh(scaled.T @ weighed)
    u = u[:, ::-1][:, :rank]
    return (scaled @ u) @ u.T * size


def whole(table, n, bits):
    """The table in integers of so many bits, with a factor a channel."""
    unit = np.sqrt((table**2 * n[:, None]).sum(0) / n.sum()) * {2: 1.2, 3: 0.8, 4: 0.45, 8: 0.06}[bits]
    most = 2 ** (bits - 1)
    return np.clip(np.rint(table / unit), -most + (bits < 8), most - 1) * unit


class Table:
    """Lines of a table of results."""

    def __init__(self, y, yv):
        self.y, self.yv, self.base = y, yv, channel_bits(y, yv)

    def line(self, name, mean, mean_v, scale=None, scale_v=None):
        mean, mean_v = mean.astype(np.float32), mean_v.astype(np.float32)
        if scale is None:
            scale = scale_v = np.abs(self.y - mean).mean(0)
        found = [channel_bits(self.y - np.rint(mean), self.yv - np.rint(mean_v)),
                 bank_bits((self.y, mean, scale), (self.yv, mean_v, scale_v))]
        print(f"| {name} | " + " | ".join(f"{b:.1f} ({100 * (b / self.base - 1):+.1f} %)" for b in found) + " |",
              flush=True)


def small(c, x, table):
    """A vocabulary whose Gram matrix fits: tables of three ages, all ranks."""
    size = c.vocabulary
    ages = [[c.ids_x, c.ids_v]] + [[before(c.ids_x, c.starts_x, k), before(c.ids_v, c.starts_v, k)] for k in (1, 2)]

    def mean(w, part, count):
        return sum(w[k * size:(k + 1) * size][ages[k][part]] for k in range(count))

    def line(name, w, count, **scales):
        table.line(name, mean(w, 0, count), mean(w, 1, count), **scales)
    n = np.concatenate([np.bincount(a, minlength=size) for a, _ in ages])
    for count, name in ((1, "1 token"), (3, "3 tokens")):
        w, gram = additive([a for a, _ in ages[:count]], x, size)
        error = np.abs(x - mean(w, 0, count)).mean(0)
        line(f"{name}, full", w, count)
        for rank in (8, 16, 32, 48):
            line(f"{name}, rank {rank}", reduced(w, gram, error, rank), count)
        for bits in (8, 4, 3, 2):
            line(f"{name}, full, int{bits}", whole(w, n[:len(w)], bits), count)
        # Scales by this token, shrunk towards 1 by twenty frames.
        deviation = np.abs(table.y - mean(w, 0, count))
        usual = deviation.mean(0)
        each = (sums(c.ids_x, deviation / usual, size) + 20) / (n[:size] + 20)[:, None]
        log = np.log(each)
        _, u = np.linalg.eigh(log.T @ (log * n[:size, None]))
        for rank in (1, 8, 16, len(u)):
            v = u[:, ::-1][:, :rank]
            factor = np.exp(log @ v @ v.T)
            line(f"{name}, full, scales by this token of rank {rank}", w, count,
                 scale=usual * factor[c.ids_x], scale_v=usual * factor[c.ids_v])


def large(c, x, table):
    """A large vocabulary, whose tokens are rare: one age, empirical Bayes."""
    w, others, n = empirical_bayes(c.ids_x, x, c.vocabulary)
    seen = n > 0
    print(f"{seen.sum()} tokens in the first capture, {(n == 1).sum()} of them once; "
          f"{100 * (~seen[c.ids_v]).mean():.1f} % of the frames of the second have another")
    table.line("1 token, full", others, w[c.ids_v])
    for bits in (8, 4):
        table.line(f"1 token, full, int{bits}", others, whole(w, n, bits)[c.ids_v])
    size = 1 / np.abs(x - others).mean(0)
    scaled = w * size
    _, u = np.linalg.eigh(scaled.T @ (scaled * n[:, None]))
    for rank in (8, 16, 32, 48, 64, 96, 128):
        v = u[:, ::-1][:, :rank]
        table.line(f"1 token, rank {rank}", (others * size) @ v @ v.T / size, (scaled @ v @ v.T / size)[c.ids_v])
    for least in (2, 4, 8):
        keep = n >= least
        table.line(f"1 token, full, {keep.sum()} tokens that occur {least} times or more",
                   others * (n[c.ids_x] > least)[:, None], (w * keep[:, None])[c.ids_v])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", required=True, help="folder of captures")
    parser.add_argument("--name", default="stories-s2")
    parser.add_argument("--bits", type=float, default=327.2)
    args = parser.parse_args()
    c = Capture(args.states, args.name, weighted=True)
    step = np.abs(c.x).mean()
    for _ in range(6):  # one bit a channel for each halving of the step
        bits = channel_bits(np.rint(c.x / step), np.rint(c.v / step))
        step *= 2 ** ((bits - args.bits) / c.x.shape[1])
    x, v = c.x / np.float32(step), c.v / np.float32(step)
    table = Table(np.rint(x), np.rint(v))
    print(f"{args.name}, step {step:.5f}: {table.base:.1f} bits a frame by a static table a channel")
    print("| mean from | rounded, table a channel | bank of 64 scales |\n| --- | --- | --- |")
    (small if c.vocabulary <= 2048 else large)(c, x, table)


if __name__ == "__main__":
    main()
