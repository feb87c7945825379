"""Bytes and values are those of the Rust library, bit for bit."""

import pytest
import scripts
from conftest import MODELS, states

SCRIPT = """\
push 0 1
push 1 2
push 2 40
checkpoint
quality 1
push 40 41
rewind 38
push 41 44
extension 27 note
reset
push_y 44 46
exact f32 46
exact bf16 47
push 48 64
end"""
SIDE = """\
side sent 0 1 2
push 0 3
side known 0
push 3 4
side known 1 2 0 1
push 4 8
rewind 5
side known 2
push 8 9
side sent 0 1 2 0 1 2
push 9 15
end"""
WAYS = [
    ("plain", "open", SCRIPT),
    ("plain", "open binding=message lanes=3 check=2", SCRIPT),
    ("plain", "open binding=file check=0 rate_weight=0", SCRIPT),
    ("plain", "open mode=layered lanes=2", SCRIPT.replace("exact f32 46\nexact bf16 47\n", "")),
    ("plain", "open mode=layered binding=message datagram_limit=256", SCRIPT.replace("exact bf16 47\n", "")),
    ("default", "open", SIDE),
    ("default", "open mode=layered binding=message", SIDE),
    ("default", "open quality=2 lanes=2", SIDE),
    ("default", "open mode=layered", SIDE),
    ("predicted", "open", "integers 0 20\nreset\nintegers 20 21\nend"),
    ("small", "open lanes=2", SIDE.replace("push", "integers")),
    ("small", "open mode=layered binding=message", SIDE.replace("push", "integers")),
]


@pytest.mark.parametrize("model, opened, calls", WAYS)
def test_a_fresh_stream_is_that_of_rust(codecs, rust, tmp_path, model, opened, calls):
    script = f"{opened}\n{calls}"
    hidden = states(codecs[model], 64)
    (tmp_path / "hidden").write_bytes(hidden.tobytes())
    (tmp_path / "script").write_text(script)
    stream = scripts.encode(codecs[model], hidden, script)
    assert stream == rust("encode", MODELS[model], tmp_path / "hidden", tmp_path / "script")

    (tmp_path / "stream").write_bytes(stream)
    lines = scripts.decode(codecs[model], script, stream)
    assert lines == rust("decode", MODELS[model], tmp_path / "script", tmp_path / "stream").decode().splitlines()
    assert len(lines) > 5 and lines[-1].startswith("ended")
