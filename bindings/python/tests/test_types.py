"""The types are those of the package, for mypy."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def mypy(*arguments):
    pytest.importorskip("mypy")
    done = subprocess.run([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True, cwd=HERE)
    return done.returncode, done.stdout


def test_the_stub_is_that_of_the_package(tmp_path):
    # `midspan.torch` has its types in its code, and cannot be imported without PyTorch.
    (tmp_path / "mypy.ini").write_text("[mypy]\n[mypy-midspan.torch.*,torch.*,safetensors.*]\nignore_errors = True\n")
    (tmp_path / "allowed").write_text(r"midspan\.torch.*")
    options = ["--mypy-config-file", tmp_path / "mypy.ini", "--allowlist", tmp_path / "allowed"]
    code, told = mypy("mypy.stubtest", "midspan", "--ignore-unused-allowlist", *options)
    assert code == 0, told


def test_the_types_of_the_pytorch_modules_hold():
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    code, told = mypy("mypy", "--strict", "-p", "midspan.torch")
    assert code == 0, told


def test_a_program_is_judged():
    lines = (HERE / "typed.py").read_text().splitlines()
    wanted = {(number, line.split("# error: ")[1]) for number, line in enumerate(lines, 1) if "# error: " in line}
    _, told = mypy("mypy", "--strict", "typed.py")
    found = {
        (int(line.split(":")[1]), line.rsplit("[", 1)[1].rstrip("]"))
        for line in told.splitlines()
        if line.startswith("typed.py:") and ": error:" in line
    }
    assert found == wanted, told
