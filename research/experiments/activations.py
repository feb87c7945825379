"""What g_y loses in bits if its layers read activations of 8 bits in place of 16.

    python activations.py --midspan PROGRAM --model CODEC.safetensors --text TEXT --work FOLDER [--frames N] --out RESULT

Hidden states of TEXT pass through the codec at each quality. Its W and Y then cost what g_y's densities say, in bits a
frame without framing: as they are, and with the input of every linear layer rounded to a signed byte times a power of
two. That power is either one for each layer, the one with the least squared error on the first 1,024 frames, or one for
each frame of each layer, the least that clamps nothing; this one also for layers of some kinds alone. Keys, queries, values and the densities stay as they are. Nothing
is trained again, so a model trained for it would lose less. Needs NumPy."""
import argparse
import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "../baselines"), os.path.join(HERE, "../../conformance/reference")]

from files import Midspan, load  # noqa: E402
from midspan_reference import network  # noqa: E402
from midspan_reference.conventions import round_shift  # noqa: E402
from midspan_reference.model import load as load_model  # noqa: E402

FIRST = 1024
EXPONENTS = range(9)  # of a byte's unit: 127 · 2^8 is nearly all that 16 bits hold


def rounded(x, exponent):
    unit = 1 << np.asarray(exponent)
    return np.clip((x + (unit >> 1)) // unit, -127, 127) * unit


class Layers:
    """Takes the place of the reference's linear layer. `mode`: "16 bits", "a frame" or "a layer"; `only`: the layers that
    read bytes, by identity, or None for all."""

    def __init__(self, mode, exponents, only=None):
        self.mode, self.exponents, self.only = mode, exponents, only

    def __call__(self, layer, x, q=None):
        if self.mode == "16 bits" or self.only is not None and id(layer) not in self.only:
            pass
        elif self.mode == "a frame":
            largest = np.abs(x).max(axis=1, keepdims=True)
            x = rounded(x, sum((largest > (127 << exponent)).astype(int) for exponent in EXPONENTS[:-1]))
        else:
            x = rounded(x, self.exponent(id(layer), x))
        # Sums stay below 2^31 (5.1), so float64 is exact, and fast.
        acc = (x.astype(float) @ layer.weight.T.astype(float)).astype(np.int64) + layer.bias
        row = ... if q is None else q
        return round_shift(acc * layer.multiplier[row], layer.shift[row])

    def exponent(self, layer, x):
        if layer not in self.exponents:
            losses = [((rounded(x, exponent) - x) ** 2).mean() for exponent in EXPONENTS]
            self.exponents[layer] = int(np.argmin(losses))
        return self.exponents[layer]


def groups(net):
    """Layers by what they read."""
    of = {"after a norm": ("q", "k", "v", "up"), "attention's averages": ("o",), "residual": ("proj",), "activations": ("down",)}
    found = {name: {id(block.layers[k]) for block in net.blocks for k in kinds} for name, kinds in of.items()}
    return found | {"all but the output": set().union(*found.values()), "output": {id(net.output)}}


def densities(model, w, ids, starts, quality, layers):
    """Means and scale indices of all frames, each [T, E]."""
    network.linear, found = layers, []
    for begin, end in zip(starts, [*starts[1:], len(w)]):
        state = network.State(model.network, model.embedding)
        found.append(state.run(w[begin:end], quality, None if ids is None else ids[begin:end]))
    found = np.concatenate(found)
    return np.clip(found[:, : model.e], -(2**20), 2**20), np.clip(found[:, model.e :], 0, model.s - 1)


class Costs:
    """Bits of values under the tables of targets."""

    def __init__(self, model):
        self.model = model
        self.first = np.array([first for first, _ in model.target])
        widest = max(len(boundaries) for _, boundaries in model.target)
        self.lengths = np.array([len(boundaries) - 3 for _, boundaries in model.target])  # values in the table
        self.bits = np.zeros((len(self.lengths), widest))
        for table, (_, boundaries) in enumerate(model.target):
            self.bits[table, : len(boundaries) - 1] = 16 - np.log2(np.diff(boundaries))
        self.base, self.fraction = np.array(model.base), np.array(model.fraction_bits)

    def __call__(self, y, means, scales):
        """6.2"""
        f = self.fraction[scales]
        q = np.where(f == 6, means, (means + (1 << np.maximum(5 - f, 0))) >> (6 - f))
        k = q >> f
        table = self.base[scales] + q - (k << f)
        index = y - self.first[table] - np.clip(k, self.model.y_min, self.model.y_max)
        length = self.lengths[table]
        outside = np.maximum(-1 - index, index - length)  # d of 3.4, where it is 0 or more
        bits = self.bits[table, np.clip(index + 1, 0, length + 1)]
        return (bits + np.where(outside >= 0, 2 * np.floor(np.log2(np.maximum(outside, 0) + 1)) + 1, 0)).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--midspan", required=True, help="the program")
    parser.add_argument("--model", required=True, help="the embedded codec model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--work", required=True, help="folder for streams")
    parser.add_argument("--frames", type=int, default=5120)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    os.makedirs(options.work, exist_ok=True)
    midspan = Midspan(options.midspan)
    states, stream, decoded = (os.path.join(options.work, name) for name in ("states", "stream", "decoded"))
    midspan("eval", "--text", options.text, "--frames", options.frames, "--export", states)
    found = load(states, ["ids", "starts"])
    ids, starts = found["ids"].tolist(), found["starts"].tolist()
    with open(options.model, "rb") as file:
        model = load_model(file.read())
    if model.prediction is not None:
        sys.exit("models that predict from decoded frames are not measured here")
    ids = [min(token, model.vocabulary) for token in ids] if model.vocabulary else None
    costs, exponents, result = Costs(model), {}, []
    for quality in range(model.q):
        midspan("encode", states, "-o", stream, "--quality", quality, "--reset-every", starts[1])
        midspan("decode", stream, "-o", decoded)
        found = load(decoded, ["w", "y"])
        w, y = found["w"].astype(np.int64), found["y"].astype(np.int64)
        hyper_prior = sum(
            16 - np.log2(boundaries[i + 1] - boundaries[i])
            for (first, boundaries), column in zip(model.hyper_prior[quality * model.c :], w.T)
            for i in np.clip(column - first + 1, 0, len(boundaries) - 2).tolist()
        ) / len(w)
        bits = {"hyper-prior": hyper_prior}
        for mode in ("16 bits", "a frame", "a layer"):
            layers = Layers(mode, exponents)
            if mode == "a layer":
                end = max(start for start in starts if start <= FIRST) or len(w)
                densities(model, w[:end], ids, [start for start in starts if start < end], quality, layers)
            bits[mode] = costs(y, *densities(model, w, ids, starts, quality, layers)) / len(y)
        for name, only in groups(model.network).items():
            layers = Layers("a frame", exponents, only)
            bits[f"a frame, {name}"] = costs(y, *densities(model, w, ids, starts, quality, layers)) / len(y)
        result.append({"quality": quality, "frames": len(w)} | bits)
        print(json.dumps(result[-1]), flush=True)
    with open(options.out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
