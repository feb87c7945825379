"""What a step costs through the Python package, beside the same in Rust (`examples/rust.rs`).

    python call.py [--model MODEL] [--steps N] [--rounds N] [--program RUST]

A step is one frame: the hidden state is pushed and its bytes are taken; they are pushed into a decoder, and its events
polled. Both programs run in turns, so that a noisy machine disturbs them alike; medians are compared. The model is the
default one unless another is named. A file of `cargo run --release -p midspan-python --example rust -- model OUT` has the
paper's shape.
"""

import argparse
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy

import midspan

ROOT = Path(__file__).resolve().parents[3]


def steps_in_python(codec, steps, convert):
    """Nanoseconds of each step: encode and decode."""
    encoder, decoder = midspan.Encoder(codec, identity=b""), midspan.Decoder(codec)
    times, side = [], [0]
    clock, needed = time.perf_counter_ns, codec.takes_side
    for row in hidden_states(codec.hidden_width, steps):
        hidden = convert(row)
        begin = clock()
        if needed:
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
        if needed and decoder.wanted_side:
            decoder.give_side(side)
            for event in decoder.events():
                if isinstance(event, midspan.Frames):
                    received = event.hidden
        times.append((encoded, clock() - begin))
        assert received.shape == (1, codec.hidden_width)
    return times


def hidden_states(width, steps):
    """Those of `examples/rust.rs`: numbers of a linear congruential generator, from -1 to 1."""
    state, mask = 1, (1 << 64) - 1
    for _ in range(steps):
        row = numpy.empty(width, numpy.float32)
        for place in range(width):
            state = (state * 6364136223846793005 + 1442695040888963407) & mask
            row[place] = (state >> 40) / (1 << 23) - 1
        yield row


def steps_in_rust(program, model, steps):
    done = subprocess.run([program, "time", model, str(steps)], stdout=subprocess.PIPE, check=True, text=True)
    return [tuple(int(word) for word in line.split()) for line in done.stdout.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=ROOT / "crates/midspan-cli/model/codec.safetensors")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", help="examples/rust, if it is built")
    options = parser.parse_args()
    program = options.program
    if program is None:
        build = ["cargo", "build", "-q", "--release", "-p", "midspan-python", "--example", "rust"]
        subprocess.run(build, cwd=ROOT, check=True)
        program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/rust"
    codec = midspan.Codec.load(options.model)
    ways = {"Rust": lambda: steps_in_rust(program, options.model, options.steps)}
    ways["NumPy float32"] = lambda: steps_in_python(codec, options.steps, lambda row: row)
    try:
        import torch

        torch.set_num_threads(1)
        ways["torch float32"] = lambda: steps_in_python(codec, options.steps, torch.from_numpy)
        bfloat16 = lambda row: torch.from_numpy(row).to(torch.bfloat16)  # noqa: E731
        ways["torch bfloat16"] = lambda: steps_in_python(codec, options.steps, bfloat16)
    except ImportError:
        pass
    times = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, run in ways.items():
            # The first steps find cold caches.
            times[name] += run()[options.steps // 10 :]
    print(f"{codec!r}, {options.rounds} rounds of {options.steps} steps of one frame, microseconds (median)")
    rust = [statistics.median(time) for time in zip(*times["Rust"])]
    for name in ways:
        encode, decode = (statistics.median(time) for time in zip(*times[name]))
        ratios = f"{encode / rust[0]:.3f} and {decode / rust[1]:.3f} of Rust's"
        print(f"{name:15} encode {encode / 1000:8.2f}  decode {decode / 1000:8.2f}  {ratios}")


if __name__ == "__main__":
    main()
