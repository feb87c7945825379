"""What the package gives out, and the promises of its events and errors."""

import importlib.metadata
import re
import sys
import typing
from dataclasses import fields, is_dataclass

import pytest
from conftest import ROOT

import midspan


def test_everything_named_is_there_and_documented():
    for name in midspan.__all__:
        found = getattr(midspan, name)
        if isinstance(found, type):
            assert found.__module__ == "midspan", name
            assert found.__doc__ and not found.__doc__.startswith(name + "("), f"{name} is not documented"
    assert re.fullmatch(r"\d+\.\d+\.\d+", midspan.__version__)
    assert f'version = "{midspan.__version__}"' in (ROOT / "Cargo.toml").read_text()


def test_types_of_fields_can_be_looked_up():
    for name in midspan.__all__:
        found = getattr(midspan, name)
        if is_dataclass(found):
            hints = typing.get_type_hints(found)
            assert {field.name for field in fields(found)} <= set(hints)


def test_events_and_chunks_have_names_of_their_own():
    for union in (midspan.Event, midspan.Chunk):
        names = []
        for kind in union.__args__:
            assert is_dataclass(kind)
            if sys.version_info >= (3, 10):
                assert kind.__match_args__ == tuple(field.name for field in fields(kind))
            names.append("targets" if kind is midspan.Targets else kind.name)
        assert len(set(names)) == len(names)


@pytest.mark.skipif(sys.version_info < (3, 10), reason="match came with Python 3.10")
def test_events_can_be_matched():
    code = """
match event:
    case midspan.SideWanted(index, count):
        found = index, count
"""
    names = {"midspan": midspan, "event": midspan.SideWanted(3, 4)}
    exec(code, names)
    assert names["found"] == (3, 4)
    with pytest.raises(AttributeError):
        names["event"].index = 1


def test_numbers_are_those_of_the_library_and_of_the_specification():
    named = {number: midspan.error_text(number) for number in range(-100, 1000)}
    named = {number: text for number, text in named.items() if text is not None}
    assert sorted(named) == sorted(midspan.ErrorNumber)
    assert len(set(named.values())) == len(named) and all(len(text) > 5 for text in named.values())
    chapter = (ROOT / "spec/07-limits-errors.md").read_text(encoding="utf-8")
    stated = {int(number) for number in re.findall(r"^\| (\d{3}) \|", chapter, re.M)}
    assert stated and stated <= {int(number) for number in midspan.ErrorNumber}


def test_numbers_have_the_names_that_rust_gives_them():
    source = (ROOT / "src/error.rs").read_text(encoding="utf-8")
    found = re.findall(r"^    (\w+) = (\d+), \"", source, re.M)
    assert {int(number) for _, number in found} == {int(number) for number in midspan.ErrorNumber if number > 0}
    for name, number in found:
        assert midspan.ErrorNumber(int(number)).name == re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def test_classes_say_who_is_at_fault():
    assert issubclass(midspan.CallerError, ValueError) and issubclass(midspan.LibraryError, RuntimeError)
    for kind in (midspan.StreamError, midspan.ModelError, midspan.CallerError, midspan.ResourceError):
        assert issubclass(kind, midspan.Error) and not issubclass(kind, midspan.LibraryError)


def test_nothing_in_the_package_is_for_tests_alone():
    for kind in (midspan.Encoder, midspan.Decoder, midspan.Reader, midspan.Writer, midspan.Together, midspan.Codec):
        assert not [name for name in dir(kind) if re.match("_[a-z]", name)]


def test_the_wheel_has_the_licences():
    files = importlib.metadata.files("midspan")
    if not any(str(file).endswith(".abi3.so") for file in files):
        pytest.skip("it is not installed from a wheel")
    assert {"LICENSE-MIT", "LICENSE-APACHE"} <= {file.name for file in files}
