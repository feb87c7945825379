"""Contiguous float32 is read where it is, half precision is converted once: shown by memory."""

import subprocess
import sys
from pathlib import Path

import numpy
import pytest
from conftest import MODELS

import midspan

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
HERE = Path(__file__).parent
MIB = 1 << 20

# Runs in a process of its own, because the most memory that a process has had never falls.
PROGRAM = """
import sys
sys.path.insert(0, {here!r})
import numpy, midspan
from scripts import Bits

def highest():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

codec = midspan.Codec.load({model!r})
array = numpy.ones({shape!r}, {dtype!r})
hidden = {hidden}
midspan.Encoder(codec, identity=b"").quantise(numpy.ones(codec.hidden_width, numpy.float32))
{before}
begin = highest()
try:
    {call}
except midspan.CallerError as error:
    assert error.number == midspan.ErrorNumber.WRONG_SIDE_INDICES, error
print(highest() - begin)
"""


def growth(model, shape, call, dtype="float32", hidden="array", before=""):
    """Bytes by which a call raises the memory of a process at its highest."""
    text = PROGRAM.format(
        here=str(HERE), model=str(MODELS[model]), shape=shape, dtype=dtype, hidden=hidden, call=call, before=before
    )
    done = subprocess.run([sys.executable, "-c", text], stdout=subprocess.PIPE, check=True)
    return int(done.stdout)


# A model that takes side indices refuses a push without them before it sets anything aside: what is left is what the
# package itself needs. 64 MiB of float32.
REFUSED = {
    "[T, E]": ((65_536, 256), "encoder.push_hidden(hidden)", "encoder = midspan.Encoder(codec)"),
    "[B, T, E]": (
        (64, 1_024, 256),
        "midspan.Together().push_hidden(encoders, hidden)",
        "encoders = [midspan.Encoder(codec) for _ in range(64)]",
    ),
}


@pytest.mark.parametrize("way", REFUSED)
def test_contiguous_float32_is_not_copied(way):
    shape, call, before = REFUSED[way]
    assert growth("default", shape, call, before=before) < 4 * MIB


@pytest.mark.parametrize("way", REFUSED)
@pytest.mark.parametrize("dtype, hidden", [("float16", "array"), ("uint16", "Bits(array)")])
def test_half_precision_is_converted_once(way, dtype, hidden):
    shape, call, before = REFUSED[way]
    size = 4 * int(numpy.prod(shape))
    assert size - MIB < growth("default", shape, call, dtype, hidden, before) < size + 4 * MIB


def test_what_is_not_contiguous_is_copied_once():
    shape, call, before = REFUSED["[T, E]"]
    size = 4 * int(numpy.prod(shape))
    assert size - MIB < growth("default", shape[::-1], call, hidden="array.T", before=before) < size + 4 * MIB


def test_a_push_takes_the_memory_that_it_takes_in_rust(rust):
    shape = 400_000, midspan.Codec.load(MODELS["plain"]).hidden_width
    in_rust = int(rust("peak", MODELS["plain"], shape[0]))
    before = "encoder = midspan.Encoder(codec, memory_limit=1 << 40)"
    size = 4 * int(numpy.prod(shape))
    here = growth("plain", shape, "encoder.push_hidden(hidden)", before=before)
    assert abs(here - in_rust) < 2 * MIB + size // 20
    half = growth("plain", shape, "encoder.push_hidden(hidden)", "float16", before=before)
    assert abs(half - in_rust - size) < 2 * MIB + size // 10
