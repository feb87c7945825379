"""Encodes a fresh stream with the `midspan` program and decodes it with the program and with the reference.

    python fresh.py PROGRAM MODEL.safetensors [--frames N] [--seed S]

One stream for each coding mode, frame by frame and in batches with lanes. Hidden states are a smooth
random walk around the model's own offsets, in units of its steps; one in sixteen lies far out, and the
two after it are like it, so that there are runs of every mode (3.5). Side indices are random and in the
stream. Exit code 0 if W, Y and the hidden
states of both decoders agree in every bit.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "reference"))

from midspan_reference.decoder import Decoder  # noqa: E402
from midspan_reference.model import load  # noqa: E402

DTYPES = {"F32": "<f4", "I16": "<i2"}


def write_tensors(path, hidden, ids):
    data = hidden.astype("<f4").tobytes(), ids.astype("<i8").tobytes()
    size = len(data[0])
    header = json.dumps({
        "hidden": {"dtype": "F32", "shape": list(hidden.shape), "data_offsets": [0, size]},
        "ids": {"dtype": "I64", "shape": list(ids.shape), "data_offsets": [size, size + len(data[1])]},
    }).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + b"".join(data))


def read_tensors(path):
    with open(path, "rb") as file:
        data = file.read()
    (size,) = struct.unpack("<Q", data[:8])
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            first, behind = entry["data_offsets"]
            part = data[8 + size + first : 8 + size + behind]
            found[name] = np.frombuffer(part, DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def walk(model, frames, seed):
    """Hidden states [frames, E]."""
    rng = np.random.default_rng(seed)
    state, rows = np.zeros(model.e), []
    for i in range(frames):
        state = 0.8 * state + rng.normal(0, 0.7, model.e)
        far = rng.normal(0, 9999, model.e) if i % 16 == 5 else 0
        like = i % 16 in (6, 7) and i > 5
        rows.append(rows[-1] if like else model.offset[0] + model.step[0] * (state + far))
    return np.array(rows, np.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with open(options.model, "rb") as file:
        model = load(file.read())
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        hidden, stream, decoded = (os.path.join(folder, n) for n in ("hidden", "stream", "decoded"))
        # Side indices, for a model that takes them; V says that a frame has none.
        ids = np.random.default_rng(options.seed).integers(0, model.vocabulary + 1, options.frames)
        write_tensors(hidden, walk(model, options.frames, options.seed), ids)
        for mode in ("joined", "layered"):
            for batch, lanes in ((1, 1), (64, 4)):
                call = [options.program, "encode", hidden, "--out", stream, "--model", options.model,
                        "--mode", mode, "--batch", str(batch), "--lanes", str(lanes)]
                subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
                call = [options.program, "decode", stream, "--out", decoded, "--model", options.model]
                subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
                theirs = read_tensors(decoded)
                decoder = Decoder([model])
                with open(stream, "rb") as file:
                    data = file.read()
                decoder.run(data)
                same = len(decoder.timeline) == options.frames and all(
                    np.array_equal(np.array([getattr(frame, name) for frame in decoder.timeline]),
                                   theirs[name])
                    for name in ("w", "y", "hidden"))
                wrong += not same
                print(f"{mode}, {batch} frames a chunk, {lanes} lanes: {len(data)} bytes,",
                      "equal" if same else "DIFFERENT")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
