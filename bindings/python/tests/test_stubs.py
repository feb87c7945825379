"""The stub says what the extension module has: names, parameters, defaults, docstrings.

With MIDSPAN_WRITE_STUBS=1 the docstrings are written instead of compared.
"""

import ast
import inspect
import os
import sys
from pathlib import Path

import pytest

import midspan
from midspan import _midspan

STUB = Path(__file__).parents[1] / "python/midspan/_midspan.pyi"
FUNCTION = ast.FunctionDef


def documented(node, found):
    """The object that a definition stands for, and whether its docstring is shown."""
    return inspect.getdoc(found) if not node.name.startswith("__") else None


def definitions(tree):
    """Pairs of a definition and what it stands for."""
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, FUNCTION)) and not node.name.startswith("_"):
            found = getattr(_midspan, node.name)
            yield node, found
            if isinstance(node, ast.ClassDef):
                yield from ((inner, vars(found).get(inner.name)) for inner in node.body if isinstance(inner, FUNCTION))


def written(text):
    """The stub with the module's docstrings."""
    lines = text.splitlines()
    places = []
    for node, found in definitions(ast.parse(text)):
        inner = "    " + " " * node.col_offset
        doc = documented(node, found)
        shown = []
        if doc:
            first, *rest = doc.splitlines()
            end = [inner + '"""'] if rest else []
            shown = [f'{inner}"""{first}' + ("" if rest else '"""'), *((inner + line).rstrip() for line in rest), *end]
        old = node.body[0] if ast.get_docstring(node) is not None else None
        places.append((node, old, shown))
    for node, old, shown in reversed(places):
        if isinstance(node, FUNCTION):
            head = node.body[0].lineno - 1 if old else node.end_lineno - 1
            if old:
                lines[old.lineno - 1 : old.end_lineno] = shown
            elif shown:
                lines[head] = lines[head].removesuffix(" ...")
                lines[head + 1 : head + 1] = shown
        else:
            lines[node.lineno : old.end_lineno if old else node.lineno] = shown
    return "\n".join(lines) + "\n"


def test_docstrings_are_those_of_the_module():
    text = STUB.read_text(encoding="utf-8")
    if os.environ.get("MIDSPAN_WRITE_STUBS") == "1":
        STUB.write_text(written(text), encoding="utf-8")
        return
    assert written(text) == text, "MIDSPAN_WRITE_STUBS=1 pytest tests/test_stubs.py"


def parameters_of(node):
    """Names, kinds and defaults as the stub has them; without self and cls."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found = [(argument.arg, False, default) for argument, default in zip(positional, defaults)]
    found += [("*" + arguments.vararg.arg, False, None)] if arguments.vararg else []
    found += [(a.arg, True, default) for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    value = {None: inspect.Parameter.empty}
    return [
        (name, only, value[None] if default is None else ast.literal_eval(default))
        for name, only, default in found
        if name not in ("self", "cls")
    ]


def signature_of(function):
    parameters = inspect.signature(function).parameters.values()
    return [
        ("*" * (p.kind == p.VAR_POSITIONAL) + p.name, p.kind == p.KEYWORD_ONLY, p.default)
        for p in parameters
        if p.name not in ("self", "cls")
    ]


TREE = ast.parse(STUB.read_text(encoding="utf-8"))
CLASSES = [node for node in TREE.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_a_class_has_what_its_stub_has(node):
    found = getattr(_midspan, node.name)
    stated = {inner.name: inner for inner in node.body if isinstance(inner, FUNCTION)}
    public = {name for name in vars(found) if not name.startswith("_")}
    assert public == {name for name in stated if not name.startswith("_")}
    for name, inner in stated.items():
        if any(isinstance(mark, ast.Name) and mark.id == "property" for mark in inner.decorator_list):
            assert inspect.isgetsetdescriptor(vars(found)[name])
        elif name == "__new__":
            # Python 3.9 does not tell the signature of a class.
            assert sys.version_info < (3, 10) or parameters_of(inner) == signature_of(found)
        elif not name.startswith("__"):
            assert parameters_of(inner) == signature_of(getattr(found, name)), name
        if not name.startswith("_"):
            assert len(inspect.getdoc(vars(found)[name])) > 15, f"{node.name}.{name} is not documented"
    assert inspect.getdoc(found)


def test_functions_have_what_their_stubs_have():
    for node in TREE.body:
        if isinstance(node, FUNCTION):
            assert parameters_of(node) == signature_of(getattr(_midspan, node.name))
    stated = {node.name for node in TREE.body if isinstance(node, (ast.ClassDef, FUNCTION))} - {"_Tensor"}
    assert {name for name in dir(_midspan) if not name.startswith("_")} == stated
    assert stated < set(midspan.__all__)
