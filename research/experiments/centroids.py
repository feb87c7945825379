"""Experiment (c): reconstruction at the conditional mean.

    python centroids.py --states FOLDER --name whisper-enc --first 0.0009 --steps 7 --factor 1.7 --out FILE.json

Y = the nearest integers, or chosen by distance and rate (spec 6.8, r = 2 ln 2 / 12 squared steps a bit, tables fitted
again three times). An integer comes back as itself, or as the mean of the values that it stands for: of the channel,
or of 16 classes of scale, by min(|Y|, 3), in whole 64ths of a step, fitted on the first capture. Bits a frame at equal
squared error weighted by the sensitivity, at goals of the nearest integers' cosine of hidden rows, on the second."""
import argparse
import json

import numpy as np

from common import Capture

RATE = 2 * np.log(2) / 12  # squared steps a bit
MOST = 3  # integers of at least this size share a mean


class Costs:
    """A static table a channel with a geometric prior, that gives each value its bits."""

    def __init__(self, y):
        self.limit = np.maximum(np.quantile(np.abs(y), 0.9995, axis=0).astype(np.int64) + 1, 2)  # [E]
        self.most = int(self.limit.max())
        size, width = 2 * self.most + 2, y.shape[1]
        self.offset = np.arange(width) * size
        counts = np.bincount(self.places(y)[0].ravel(), minlength=width * size).reshape(width, size).astype(float)
        k = np.arange(size) - self.most - 1
        total = counts.sum(1)
        spread = np.maximum((counts[:, 1:] * np.abs(k[1:])).sum(1) / np.maximum(total, 1), 0.02)
        ratio = (np.sqrt(1 + spread**2) - 1) / spread
        prior = ((1 - ratio) / (1 + ratio))[:, None] * ratio[:, None] ** np.abs(k)
        prior[:, 0] = 1e-3
        inside = np.abs(k) <= self.limit[:, None]
        inside[:, 0] = True
        counts = np.where(inside, counts + (2 + 1e-3 * total)[:, None] * prior, 0)
        self.cost = (-np.log2(np.maximum(counts, 1e-12) / counts.sum(1, keepdims=True))).ravel().astype(np.float32)

    def places(self, y):
        y = y.astype(np.int64)
        beyond = np.abs(y) - self.limit
        return np.where(beyond > 0, 0, y + self.most + 1) + self.offset, beyond

    def __call__(self, y):
        place, beyond = self.places(y)
        bits, far = self.cost[place], beyond > 0
        bits[far] += 2 * np.floor(np.log2(beyond[far])) + 2
        return bits


def choose(costs, x, back):
    """The nearest integer or the second nearest, by squared distance to what comes back and by rate."""
    near = np.rint(x)
    second = near + np.where(x > near, 1, -1)
    distance = [(x - back(y)) ** 2 + RATE * costs(y) for y in (near, second)]
    return np.where(distance[1] < distance[0], second, near)


def means(x, y, classes):
    """The function from integers to what comes back, fitted on values x of integers y; classes [E]."""
    count = int(classes.max()) + 1
    place = np.minimum(np.abs(y), MOST).astype(np.int64) + classes * (MOST + 1)
    total = count * (MOST + 1)
    n = np.bincount(place.ravel(), minlength=total)
    s = np.bincount(place.ravel(), weights=(np.sign(y) * (x - y)).ravel(), minlength=total)
    shift = (np.rint(64 * s / (n + 8)) / 64).astype(np.float32)
    return lambda y: y + np.sign(y) * shift[np.minimum(np.abs(y), MOST).astype(np.int64) + classes * (MOST + 1)]


def point(capture, x, v, step):
    """Figures of every kind at a step."""
    x, v = x / np.float32(step), v / np.float32(step)
    g = (capture.b @ capture.sensitivity @ capture.b.T).astype(np.float32)
    width = x.shape[1]
    level = np.log2(np.maximum(np.abs(x).mean(0), 1e-3))
    shared, own = np.clip(np.rint((level + 5) * 1.6), 0, 15).astype(np.int64), np.arange(width)
    out = {"step": step}

    def add(name, costs, y, hidden):
        error = (v - hidden) * np.float32(step)
        rows = hidden * np.float32(step) @ capture.b.astype(np.float32) + capture.mean.astype(np.float32)
        cosine = (rows * capture.hidden).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(capture.hidden, axis=1)
        out[name] = {"bits": float(costs(y).sum() / len(v)), "cosine": float(cosine.mean()),
                     "error": float(((error @ g) * error).sum(1).mean(dtype=np.float64))}

    y, yv = np.rint(x), np.rint(v)
    costs = Costs(y)
    add("nearest", costs, yv, yv)
    add("nearest, means of 16 classes", costs, yv, means(x, y, shared)(yv))
    add("nearest, means of channels", costs, yv, means(x, y, own)(yv))
    for _ in range(3):
        y = choose(costs, x, lambda y: y)
        costs = Costs(y)
    yv = choose(costs, v, lambda y: y)
    add("by rate", costs, yv, yv)
    back = means(x, y, shared)
    add("by rate, means of 16 classes", costs, yv, back(yv))
    for _ in range(3):
        y = choose(costs, x, back)
        costs, back = Costs(y), means(x, y, shared)
    yv = choose(costs, v, back)
    add("by rate and means together", costs, yv, back(yv))
    return out


def line(points, goal):
    """Bits of each kind at the error that the nearest integers make at a cosine."""
    loss = np.log([1 - p["nearest"]["cosine"] for p in points])
    error = {name: np.log([p[name]["error"] for p in points]) for name in points[0] if name != "step"}
    bits = {name: np.log([p[name]["bits"] for p in points]) for name in error}
    if not loss[0] <= np.log(1 - goal) <= loss[-1]:
        return None
    at = np.interp(np.log(1 - goal), loss, error["nearest"])
    found = {name: float(np.exp(np.interp(at, error[name], bits[name]))) for name in error}
    base, rate = found["nearest"], found["by rate"]
    best = min(found["by rate, means of 16 classes"], found["by rate and means together"])
    cells = [f"{100 * (found[name] / base - 1):+.2f} %" for name in found if name != "nearest"]
    return f"| {goal} | {base:.1f} | " + " | ".join(cells) + f" | {100 * (best / rate - 1):+.2f} % |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", required=True, help="folder of captures")
    parser.add_argument("--name", default="whisper-enc")
    parser.add_argument("--first", type=float, required=True, help="the finest step")
    parser.add_argument("--steps", type=int, default=7, help="how many")
    parser.add_argument("--factor", type=float, default=1.7, help="from one to the next")
    parser.add_argument("--every", type=int, nargs=2, default=(1, 1), help="take every Nth frame of each capture")
    parser.add_argument("--goals", type=float, nargs="+", default=(0.999, 0.99, 0.95))
    parser.add_argument("--out", help="all points, JSON")
    args = parser.parse_args()
    capture = Capture(args.states, args.name, weighted=True)
    capture.hidden = capture.hidden[::args.every[1]]
    x, v = capture.x[::args.every[0]], capture.v[::args.every[1]]
    points = [point(capture, x, v, args.first * args.factor**i) for i in range(args.steps)]
    if args.out:
        with open(args.out, "w") as file:
            json.dump(points, file, indent=1)
    names = [name for name in points[0] if name not in ("step", "nearest")]
    print(f"{args.name}, {len(v)} frames")
    print("| cosine | nearest, bits | " + " | ".join(names) + " | means beside the choice by rate, at best |")
    print("| --- " * (len(names) + 3) + "|")
    for goal in args.goals:
        found = line(points, goal)
        print(found or f"| {goal} | outside these steps |")


if __name__ == "__main__":
    main()
