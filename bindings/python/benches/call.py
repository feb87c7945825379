"""What a step costs through the Python package, beside the same in Rust (`examples/rust.rs`).

    python call.py [--model MODEL] [--steps N] [--rounds N] [--program RUST]

A step is one frame: the hidden state is pushed and its bytes are taken; they are pushed into a decoder, and its events
polled. All ways take turns of 100 steps on one core, so that a noisy machine disturbs them alike; medians are compared.
Each round has new processes, because where memory lies decides more than the calls do. The model is the default one
unless another is named: `cargo run --release -p midspan-python --example rust -- model OUT` writes one of the paper's
shape.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy

import midspan

ROOT = Path(__file__).resolve().parents[3]
TURN = 100
# For so many steps a turn fetches its weights and contexts back into the caches.
COLD = 50


class Python:
    """Steps through the package, with hidden states as `convert` makes them of NumPy's."""

    def __init__(self, codec, convert):
        self.codec, self.convert = codec, convert
        self.encoder, self.decoder = midspan.Encoder(codec, identity=b""), midspan.Decoder(codec)
        self.random = numpy.random.default_rng(1)

    def turn(self):
        """Nanoseconds of each step: encode and decode."""
        encoder, decoder, clock = self.encoder, self.decoder, time.perf_counter_ns
        takes_side, side, times = self.codec.takes_side, [0], []
        rows = self.random.uniform(-1, 1, (TURN, self.codec.hidden_width)).astype(numpy.float32)
        for hidden in [self.convert(row) for row in rows]:
            begin = clock()
            if takes_side:
                encoder.set_side(side, "known")
            encoder.push_hidden(hidden)
            data = encoder.take_bytes()
            encoded = clock() - begin
            begin = clock()
            decoder.push(data)
            received = None
            for event in decoder.events():
                if isinstance(event, midspan.Frames):
                    received = event.hidden
                elif isinstance(event, midspan.SideWanted):
                    decoder.give_side(side)
            times.append((encoded, clock() - begin))
            assert received.shape == (1, self.codec.hidden_width)
        return times


class Rust:
    """The same steps in Rust."""

    def __init__(self, program, model):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        self.process = subprocess.Popen([program, "time", model], **pipes)

    def turn(self):
        self.process.stdin.write(f"{TURN}\n")
        times = [int(word) for word in self.process.stdout.readline().split()]
        return list(zip(times[::2], times[1::2]))


def ways_of(program, model):
    codec = midspan.Codec.load(model)
    ways = {"Rust": Rust(program, model), "NumPy float32": Python(codec, lambda row: row)}
    try:
        import torch
    except ImportError:
        return codec, ways
    torch.set_num_threads(1)
    ways["torch float32"] = Python(codec, torch.from_numpy)
    ways["torch bfloat16"] = Python(codec, lambda row: torch.from_numpy(row).to(torch.bfloat16))
    return codec, ways


def one_round(program, model, steps):
    """Medians of each way, microseconds: encode and decode."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    codec, ways = ways_of(program, model)
    times = {name: [] for name in ways}
    for _ in range(-(-steps // (TURN - COLD))):
        for name, way in ways.items():
            times[name] += way.turn()[COLD:]
    medians = {name: [statistics.median(part) / 1000 for part in zip(*times[name])] for name in ways}
    print(json.dumps({"codec": repr(codec), "medians": medians}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=ROOT / "crates/midspan-cli/model/codec.safetensors")
    parser.add_argument("--steps", type=int, default=500, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=9, help="each in new processes, whose memory lies elsewhere")
    parser.add_argument("--program", help="examples/rust, if it is built")
    parser.add_argument("--one-round", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    program = options.program
    if program is None:
        build = ["cargo", "build", "-q", "--release", "-p", "midspan-python", "--example", "rust"]
        subprocess.run(build, cwd=ROOT, check=True)
        program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/rust"
    if options.one_round:
        return one_round(program, options.model, options.steps)
    again = [sys.executable, __file__, "--one-round", "--program", program, "--model", options.model]
    again += ["--steps", str(options.steps)]
    rounds = [json.loads(subprocess.check_output(again, text=True)) for _ in range(options.rounds)]
    print(f"{rounds[0]['codec']}, {options.rounds} rounds of {options.steps} steps of one frame, microseconds")
    for name in rounds[0]["medians"]:
        encode, decode = (statistics.median(part) for part in zip(*(found["medians"][name] for found in rounds)))
        ratios = sorted(sum(found["medians"][name]) / sum(found["medians"]["Rust"]) for found in rounds)
        text = f"both {statistics.median(ratios):.3f} of Rust's, {ratios[0]:.3f} to {ratios[-1]:.3f}"
        print(f"{name:15} encode {encode:8.2f}  decode {decode:8.2f}  {text}")
    return None


if __name__ == "__main__":
    main()
