"""Experiment (b): frames predicted from the frames before.

    python predictors.py --states FOLDER --name whisper-enc --step 0.36

Linear predictors of the hidden state in its eigenbasis, from the integers of earlier frames of the sequence. Columns:
the mean rounded, with a static table a channel; means in eighths and a bank of 64 scales; scales times a factor that
follows the last frame's energy; and a class W a frame, of eight, with a gain a channel and a factor of the scales, whose
own cost counts."""
import argparse

import numpy as np

from common import Capture, bank_bits, before, channel_bits, solve


def predictors(frames, first):
    """Name -> function (x) -> a function from earlier frames and the mark of first frames to means. `frames` are the
    integers one, two and three frames earlier, [3][T, E]."""
    width = frames[0].shape[1]

    def inputs(ages):
        return lambda f: np.concatenate([f[i] for i in range(ages)], 1)

    def diagonal(ages):
        """One factor a channel and age, and a mean of the first frame."""
        def fit(x):
            parts = np.stack([*frames[:ages], np.broadcast_to(first, x.shape)], 2)  # [T, E, ages + 1]
            gram = np.einsum("tei,tej->eij", parts, parts, dtype=np.float64) + np.eye(ages + 1)
            w = np.linalg.solve(gram, np.einsum("tei,te->ei", parts, x, dtype=np.float64)[:, :, None])[:, :, 0]
            w = w.astype(np.float32)  # [E, ages + 1]
            return lambda f, g: sum(w[:, i] * f[i] for i in range(ages)) + w[:, ages] * g
        return fit

    def blocks(size, ages):
        def fit(x):
            matrices = {}
            for i in range(0, width, size):
                columns = np.concatenate([np.arange(i, min(i + size, width)) + width * k for k in range(ages)])
                matrices[i] = columns, solve(inputs(ages)(frames)[:, columns], x[:, i:i + size])
            return lambda f, g: np.concatenate([inputs(ages)(f)[:, c] @ w for c, w in matrices.values()], 1)
        return fit

    def full(ages):
        def fit(x):
            w = solve(np.concatenate([inputs(ages)(frames), first], 1), x)
            return lambda f, g: np.concatenate([inputs(ages)(f), g], 1) @ w
        return fit

    def low_rank(diagonals, ages, rank, rounds=4):
        """Diagonals and a matrix of low rank: reduced-rank regression of what the diagonals leave, in turn."""
        def fit(x):
            f = inputs(ages)(frames)
            gram = (f.T @ f).astype(np.float64) + np.eye(f.shape[1])
            own = diagonal(diagonals)(x)
            for _ in range(rounds):
                rest = x - own(frames, first)
                size = 1 / np.abs(rest).mean(0)
                w = np.linalg.solve(gram, (f.T @ (rest * size)).astype(np.float64))
                _, vectors = np.linalg.eigh(w.T @ gram @ w)
                v = vectors[:, ::-1][:, :rank]
                down, up = (w @ v).astype(np.float32), (v.T / size).astype(np.float32)
                own = diagonal(diagonals)(x - (f @ down) @ up)
            return lambda f, g: own(f, g) + (inputs(ages)(f) @ down) @ up
        return fit

    return {
        "none": lambda x: lambda f, g: np.zeros_like(f[0]),
        "diagonal of 1 frame": diagonal(1), "diagonal of 2": diagonal(2), "diagonal of 3": diagonal(3),
        "blocks of 16": blocks(16, 1), "blocks of 32": blocks(32, 1),
        "diagonal and rank 8": low_rank(1, 1, 8), "diagonal and rank 32": low_rank(1, 1, 32),
        "diagonal and rank 96": low_rank(1, 1, 96), "diagonal of 2 and rank 64 of 2": low_rank(2, 2, 64),
        "full matrix of 1": full(1), "full matrix of 2": full(2),
    }


def scales(y, mean, first):
    """Mean deviation of each channel, with one of its own in first frames."""
    deviation = np.abs(y - mean)
    usual = np.maximum(deviation[~first].mean(0), 0.004)
    start = (deviation[first].sum(0) + 20 * usual * deviation[first].mean() / usual.mean()) / (first.sum() + 20)
    return usual, start


def energy(y, mean, scale, starts):
    """The last frame's mean deviation over its scales, [T, 1]; 1 in first frames."""
    return before(np.minimum(np.abs(y - mean) / scale, 8).mean(1, keepdims=True), starts, fill=1)


def classes(train, valid, first, count=8, rounds=6):
    """A class a frame, chosen for its cost: a gain of the mean a channel, and one factor of the scales."""
    (y, mean, scale), (yv, mv, sv) = train, valid
    e = np.abs(y - mean) / scale
    w = np.argsort(np.argsort(e.mean(1))) * count // len(e)
    for _ in range(rounds):
        gain, factor = np.ones((count, y.shape[1]), np.float32), np.ones(count, np.float32)
        for k in range(count):
            own = w == k
            if own.sum() > 60:
                m, prior = mean[own], 20 * (mean[own] ** 2).mean(0) + 1e-2
                gain[k] = ((m * y[own]).sum(0) + prior) / ((m * m).sum(0) + prior)
                factor[k] = max((np.abs(y[own] - m * gain[k]) / scale[own]).mean(), 0.02)
        price = -np.log2((np.bincount(w, minlength=count) + 0.5) / (len(w) + count / 2))

        def choose(y, mean, scale):
            cost = [(np.abs(y - mean * gain[k]) / (scale * factor[k])).sum(1) / np.log(2)
                    + y.shape[1] * np.log2(factor[k]) + price[k] for k in range(count)]
            return np.argmin(cost, 0)
        w = choose(y, mean, scale)
    v = choose(yv, mv, sv)
    # W given the last frame's W; `count` marks the first.
    pairs = [np.where(f, count, np.r_[count, u[:-1]]) * count + u for u, f in ((w, first[0]), (v, first[1]))]
    table = np.bincount(pairs[0], minlength=count * (count + 1)).reshape(-1, count) + 0.5
    own = float(-np.log2(table / table.sum(1, keepdims=True)).ravel()[pairs[1]].mean())
    return own + bank_bits((y, mean * gain[w], scale * factor[w][:, None]), (yv, mv * gain[v], sv * factor[v][:, None]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", required=True, help="folder of captures")
    parser.add_argument("--name", default="whisper-enc")
    parser.add_argument("--step", type=float, default=0.36)
    parser.add_argument("--weighted", action="store_true", help="the eigenbasis weighted by sensitivity")
    args = parser.parse_args()
    c = Capture(args.states, args.name, args.weighted)
    x, v = c.x / np.float32(args.step), c.v / np.float32(args.step)
    y, yv = np.rint(x), np.rint(v)
    marks = []
    for rows, starts in ((x, c.starts_x), (v, c.starts_v)):
        marks.append(np.zeros(len(rows), bool))
        marks[-1][starts] = True
    first, first_v = (mark[:, None].astype(np.float32) for mark in marks)
    frames, frames_v = ([before(q, s, age) for age in (1, 2, 3)] for q, s in ((y, c.starts_x), (yv, c.starts_v)))
    base = channel_bits(y, yv)
    print(f"{args.name}, step {args.step}: {base:.1f} bits a frame by a static table a channel")
    print("| mean from | rounded, table a channel | bank of 64 scales | and the last energy | and W of 8 classes |")
    print("| --- | --- | --- | --- | --- |")
    for name, fit in predictors(frames, first).items():
        predict = fit(x)
        mean, mean_v = predict(frames, first).astype(np.float32), predict(frames_v, first_v).astype(np.float32)
        usual, start = scales(y, mean, marks[0])
        s, sv = (np.where(mark[:, None], start, usual).astype(np.float32) for mark in marks)
        e, ev = energy(y, mean, s, c.starts_x), energy(yv, mean_v, sv, c.starts_v)
        now = np.minimum(np.abs(y - mean) / s, 8).mean(1)
        line = np.polyfit(e[:, 0], now, 1)
        f, fv = (np.maximum(np.polyval(line, u), 0.08) for u in (e, ev))
        f[marks[0]], fv[marks[1]] = 1, 1
        found = [channel_bits(y - np.rint(mean), yv - np.rint(mean_v)),
                 bank_bits((y, mean, s), (yv, mean_v, sv)),
                 bank_bits((y, mean, s * f), (yv, mean_v, sv * fv)),
                 classes((y, mean, s), (yv, mean_v, sv), marks)]
        print(f"| {name} | " + " | ".join(f"{b:.1f} ({100 * (b / base - 1):+.1f} %)" for b in found) + " |", flush=True)


if __name__ == "__main__":
    main()
