"""What all tests share: models, hidden states, and the Rust library to compare with."""

import os
import subprocess
from pathlib import Path

import numpy
import pytest

import midspan

ROOT = Path(__file__).resolve().parents[3]
MODELS = {
    "plain": ROOT / "src/example.safetensors",
    # The default model, which takes side indices.
    "default": ROOT / "crates/midspan-cli/model/codec.safetensors",
    # Without an encoder's part: they code integers.
    "small": ROOT / "spec/examples/side.safetensors",
    "predicted": ROOT / "spec/examples/predicted.safetensors",
    "other": ROOT / "spec/examples/other.safetensors",
}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With MIDSPAN_PYTHON_TOOLS=required, a test that misses a package fails."""
    report = yield
    text = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if "could not import" in text and os.environ.get("MIDSPAN_PYTHON_TOOLS") == "required":
        report.outcome, report.longrepr = "failed", text
    return report


@pytest.fixture(scope="session")
def codecs():
    return {name: midspan.Codec.load(path) for name, path in MODELS.items()}


@pytest.fixture(scope="session")
def codec(codecs):
    """A small model without side indices."""
    return codecs["plain"]


def states(codec, frames, seed=1):
    """Hidden states [frames, E] within the range of every quality."""
    return numpy.random.default_rng(seed).normal(0, 0.3, (frames, codec.hidden_width)).astype(numpy.float32)


def events_of(decoder, side=()):
    """All events up to where more is needed; asks for side indices are answered with these, by frame."""
    events = []
    for event in decoder.events():
        events.append(event)
        if isinstance(event, midspan.SideWanted):
            decoder.give_side(side[event.index : event.index + event.count])
    return events


@pytest.fixture(scope="session")
def rust():
    """Runs examples/rust.rs, which MIDSPAN_RUST names if it is built already."""
    program = os.environ.get("MIDSPAN_RUST")
    if program is None:
        build = ["cargo", "build", "-q", "--release", "-p", "midspan-python", "--example", "rust"]
        subprocess.run(build, cwd=ROOT, check=True)
        program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/rust"

    def run(*arguments):
        return subprocess.run([program, *map(str, arguments)], stdout=subprocess.PIPE, check=True).stdout

    return run
