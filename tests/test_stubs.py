"""The stubs in the package are those that tools/make_stubs.py writes, and they name everything that is there."""

import ast
import importlib.util
import inspect
import pkgutil
from pathlib import Path

import pytest

import fastdl as fd

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fd.__file__).parent


def _maker():
    spec = importlib.util.spec_from_file_location("make_stubs", ROOT / "tools" / "make_stubs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "make"), [("_C.pyi", "extension_stub"), ("__init__.pyi", "package_stub")])
def test_stub_is_up_to_date(name, make):
    text = getattr(_maker(), make)()
    ast.parse(text)
    assert (PACKAGE / name).read_text() == text, "run python tools/make_stubs.py"


def test_typed_marker():
    assert (PACKAGE / "py.typed").exists()


def _names(body):
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.AnnAssign):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield node.targets[0].id
        elif isinstance(node, ast.ImportFrom):
            yield from (a.asname or a.name for a in node.names)


def test_every_public_name_has_a_stub():
    package = set(_names(ast.parse((PACKAGE / "__init__.pyi").read_text()).body))
    lazy = {m.name for m in pkgutil.iter_modules(fd.__path__)} & fd._LAZY  # some of them need optional packages
    public = {n for n in dir(fd) if not n.startswith("_") and (n in lazy or (n not in fd._LAZY and hasattr(fd, n)))}
    assert public - package == set()
    tree = ast.parse((PACKAGE / "_C.pyi").read_text())
    tensor = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Tensor")
    assert {n for n in dir(fd.Tensor) if not n.startswith("_")} - set(_names(tensor.body)) == set()


def test_signatures_survive():
    """A stanza's signature, docstring and name are what help() and editors show."""
    assert list(inspect.signature(fd.softmax).parameters)[:2] == ["x", "axis"]
    assert fd.softmax.__name__ == "softmax" and fd.softmax.__doc__
