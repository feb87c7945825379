"""The programs of README.md run as they are."""

import re
import sys
from pathlib import Path

import numpy
import pytest
from conftest import ROOT, states

import midspan

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="match came with Python 3.10")
def test_the_programs_of_the_readme_run(codecs, tmp_path, monkeypatch):
    programs = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    sender, receiver, many, container = programs[:4]  # the others are of test_torch_processes.py
    hidden, taken, seen = states(codecs["default"], 5), [], []

    class Transport:
        send = staticmethod(taken.append)

    names = {"ids": [1, 2, 3, 4, 5], "hidden": hidden, "transport": Transport, "second_half": seen.append}
    monkeypatch.chdir(ROOT)
    exec(sender, names)
    (received,) = taken
    exec(receiver, {**names, "midspan": midspan, "codec": names["codec"], "received": received})
    assert [values.shape for values in seen] == [hidden.shape]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "stream.mspan").write_bytes(received)
    exec(container, {"midspan": midspan})
    plain = codecs["plain"]
    sessions = {"encoders": [midspan.Encoder(plain) for _ in range(2)], "decoders": [midspan.Decoder(plain)]}
    exec(many, {"midspan": midspan, **sessions, "hidden": numpy.stack([states(plain, 3)] * 2)})
    assert [encoder.next_index for encoder in sessions["encoders"]] == [3, 3]
