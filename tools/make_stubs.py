"""Writes fastdl/_C.pyi and fastdl/__init__.pyi from the live package, for type checkers and editors.

    python tools/make_stubs.py [--check]

The extension's Tensor gets most of its methods in fastdl/tensor.py and the package most of its functions from op stanzas, which no
type checker can follow; so the stubs are written from what is there, and tests/test_stubs.py compares them with the package.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import sys
import types
from pathlib import Path
from typing import Any

import fastdl
from fastdl import _C
from fastdl._C import Op, Tensor

HEAD = '"""{}\n\nWritten by tools/make_stubs.py; do not edit."""\n\n# ruff: noqa\n# mypy: disable-error-code="override, misc"\n'

# What the C code does not say about itself.
ATTRIBUTES = {
    "shape": "tuple[_int, ...]",
    "strides": "tuple[_int, ...]",
    "ndim": "_int",
    "size": "_int",
    "itemsize": "_int",
    "nbytes": "_int",
    "dtype": "DType",
    "device": "device",
    "__cuda_array_interface__": "dict[str, Any]",
    "is_leaf": "_bool",
    "grad_fn": "str | None",
    "_version": "_int",
    "T": "Tensor",
    "mT": "Tensor",
    "real": "Tensor",
    "imag": "Tensor",
    "data": "Tensor",
}
SETTABLE = {"requires_grad": "_bool", "grad": "Tensor | None"}
METHODS = {
    "item": "(self, *index: _int) -> Any",
    "tolist": "(self) -> Any",
    "detach": "(self) -> Tensor",
    "requires_grad_": "(self, requires_grad: _bool = True) -> Self",
    "is_contiguous": "(self) -> _bool",
    "data_ptr": "(self) -> _int",
    "reshape": "(self, *shape: Any) -> Tensor",
    "view": "(self, *shape: Any) -> Tensor",
    "dim": "(self) -> _int",
    "__array_function__": "(self, func: Any, types: Any, args: tuple, kwargs: dict) -> Any",
    "__array_ufunc__": "(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any",
    "__array_namespace__": "(self, /, *, api_version: str | None = None) -> Any",
    "__class_getitem__": "(cls, item: Any) -> Any",
    "__init__": "(self, *args: Any, **kwargs: Any) -> None",
    "__getitem__": "(self, key: Any, /) -> Tensor",
    "__setitem__": "(self, key: Any, value: TensorLike, /) -> None",
    "__delitem__": "",
    "__contains__": "(self, value: Any, /) -> _bool",
    "__iter__": "(self) -> Iterator[Tensor]",
    "__len__": "(self) -> _int",
    "__bool__": "(self) -> _bool",
    "__int__": "(self) -> _int",
    "__index__": "(self) -> _int",
    "__float__": "(self) -> _float",
    "__complex__": "(self) -> complex",
    "__hash__": "(self) -> _int",
    "__divmod__": "(self, other: TensorLike, /) -> tuple[Tensor, Tensor]",
    "__rdivmod__": "(self, other: TensorLike, /) -> tuple[Tensor, Tensor]",
    "__buffer__": "(self, flags: _int, /) -> memoryview",
}
UNARY = "__abs__ __neg__ __pos__ __invert__".split()
BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split()
COMPARE = "__eq__ __ne__ __lt__ __le__ __gt__ __ge__".split()
INHERITED = (set(dir(object)) | {"__module__"}) - set(COMPARE) - {"__hash__", "__init__", "__reduce_ex__", "__format__"}

MODULE_RETURNS = {  # pybind11 says "object"; these are known to be tensors
    "as_strided", "broadcast_to", "empty", "from_buffer", "from_dlpack", "permute", "reshape",
}  # fmt: skip


def operators() -> dict[str, str]:
    """Signatures of the arithmetic operators."""
    table = {name: "(self) -> Tensor" for name in UNARY}
    table |= {name: "(self, other: Any, /) -> Tensor" for name in COMPARE}
    for name in BINARY:
        table[f"__{name}__"] = table[f"__r{name}__"] = "(self, other: TensorLike, /) -> Tensor"
        table[f"__i{name}__"] = "(self, other: TensorLike, /) -> Self"
    return table


def text_of(annotation: Any, argument: bool) -> str:
    """An annotation as written in a stub."""
    if annotation is inspect.Parameter.empty:
        return "Any"
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if argument:
        text = re.sub(r"\bTensor\b", "TensorLike", text)
    return text


def signature_of(fn: Any, method: bool = False) -> str:
    """`(x: TensorLike, axis: Axes = None) -> Tensor` of a function or stanza."""
    parts: list[str] = []
    seen_keyword = seen_slash = False
    parameters = list(inspect.signature(fn).parameters.values())
    for k, p in enumerate(parameters):
        if p.kind is p.KEYWORD_ONLY and not seen_keyword and not any(q.kind is q.VAR_POSITIONAL for q in parameters):
            parts.append("*")
            seen_keyword = True
        if method and k == 0:
            parts.append("self")
        else:
            star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
            default = "" if p.default is p.empty else f" = {p.default!r}" if isinstance(p.default, int | float | str | None) else " = ..."
            if isinstance(p.default, float) and (p.default != p.default or p.default in (float("inf"), float("-inf"))):
                default = " = ..."
            parts.append(f"{star}{p.name}: {text_of(p.annotation, True)}{default}")
        last_positional = k + 1 == len(parameters) or parameters[k + 1].kind is not p.POSITIONAL_ONLY
        if p.kind is p.POSITIONAL_ONLY and last_positional and not seen_slash:
            parts.append("/")
            seen_slash = True
    result = text_of(inspect.signature(fn).return_annotation, False)
    return f"({', '.join(parts)}) -> {result}"


def first_line(doc: str | None) -> str:
    """The first sentence or line of a docstring, for a stub's docstring."""
    line = (doc or "").strip().splitlines()[0] if (doc or "").strip() else ""
    return line.replace("\\", "\\\\").replace('"""', "'''")


def definition(name: str, signature: str, doc: str | None, indent: str = "") -> str:
    line = first_line(doc)
    body = f'\n{indent}    """{line}"""' if line else " ..."
    return f"{indent}def {name}{signature}:{body}"


def tensor_class() -> list[str]:
    lines = ["class Tensor:", '    """An array of numbers with a dtype, strides, and a gradient."""']
    # Python 3.11 does not list the buffer protocol.
    names = sorted({*dir(Tensor), "__buffer__"} - INHERITED - {"__release_buffer__"})
    known = operators() | METHODS
    for name in [n for n in names if n in ATTRIBUTES] + [n for n in names if n in SETTABLE]:
        kind = ATTRIBUTES.get(name) or SETTABLE[name]
        doc = first_line(getattr(getattr(Tensor, name), "__doc__", None))
        lines += ["    @property", f"    def {name}(self) -> {kind}:" + (f'\n        """{doc}"""' if doc else " ...")]
        if name in SETTABLE:
            lines += [f"    @{name}.setter", f"    def {name}(self, value: {kind}, /) -> None: ..."]
    for name in names:
        if name in ATTRIBUTES or name in SETTABLE or known.get(name) == "":
            continue
        value = inspect.getattr_static(Tensor, name, None)
        if isinstance(value, int):
            lines.append(f"    {name}: _int")
        elif name in known:
            if name == "__class_getitem__":
                lines.append("    @classmethod")
            doc = None if name.startswith("__") else value.__doc__
            lines.append(definition(name, known[name], doc, "    "))
        elif name.startswith("__") and not isinstance(value, types.FunctionType):
            raise SystemExit(f"make_stubs: no signature for Tensor.{name}; add it to METHODS")
        else:
            lines.append(definition(name, signature_of(value, method=True), None if name.startswith("__") else value.__doc__, "    "))
    text = "\n".join(lines)
    # Inside the class the names int, float and bool are methods.
    head, body = text.split("\n", 1)
    body = re.sub(r"(?<=[:\[>|,] )(int|float|bool)\b", r"_\1", body)
    body = re.sub(r"(?<=\[)(int|float|bool)\b", r"_\1", body)
    return [head, body]


def extension_functions() -> list[str]:
    """Functions of the extension; pybind11 writes their signatures into the docstrings."""
    lines = []
    for name in sorted(dir(_C)):
        fn = getattr(_C, name)
        if name.startswith("__") or isinstance(fn, type):
            continue
        head = fn.__doc__.strip().splitlines()[0]
        signature = head[len(name) :]
        for pattern, text in (
            (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
            (r"(?:collections\.abc|typing)\.", ""),
            (r"-> object", "-> Tensor" if name in MODULE_RETURNS else "-> Any"),
            (r": object", ": Any"),
            (r"\blist\[str\]", "list[str]"),
        ):
            signature = re.sub(pattern, text, signature)
        rest = fn.__doc__.strip().splitlines()[1:]
        lines.append(definition(name, signature, "\n".join(rest)))
    return lines


def capture_class() -> list[str]:
    """fastdl.graph's recorded calls: a class of pybind11, whose docstrings hold the signatures."""
    lines = ["class Capture:", f'    """{_C.Capture.__doc__}"""', "    def __init__(self, strict: bool = True) -> None: ..."]
    for name, fn in sorted(vars(_C.Capture).items()):
        if not name.startswith("_"):
            names = re.findall(r"(\w+): ", fn.__doc__.splitlines()[0])[1:]
            rest = "".join(f", {n}: Any = ..." if n == "timed" else f", {n}: Any" for n in names)
            lines.append(f"    def {name}(self{rest}) -> Any: ...")
    return lines


def extension_stub() -> str:
    lines = [
        HEAD.format("The compiled core."),
        "from collections.abc import Callable, Iterator, Sequence",
        "from typing import Any, Literal, Self, TypeAlias\n",
        "import numpy as np\n",
        "from .device import device",
        "from .dtypes import DType, DTypeLike",
        "from .typing import Axes, Axis, Pads, Pair, Shape, TensorLike\n",
        "_bool: TypeAlias = bool",
        "_float: TypeAlias = float",
        "_int: TypeAlias = int\n",
        *tensor_class(),
        "",
        "class Op:",
        '    """An op: a stanza and, if it has one, its row of the op table."""',
        "    __name__: str",
        "    __wrapped__: Callable[..., Any]",
        "    has_kernel: bool",
        "    differentiable: bool",
        "    def __init__(self, *args: Any) -> None: ...",
        "    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...",
        "    def __get__(self, instance: Any, owner: Any = None) -> Any: ...",
        "",
        *capture_class(),
        "",
        *extension_functions(),
    ]
    return "\n".join(lines) + "\n"


def package_stub() -> str:
    shipped = {m.name for m in pkgutil.iter_modules(fastdl.__path__) if not m.name.startswith("_")}
    # Modules are listed from the folder: importing them here could need packages that are optional.
    names = [n for n in sorted(dir(fastdl)) if (not n.startswith("_") or n == "__version__") and n not in fastdl._LAZY]
    imports, aliases, functions, constants = [], [], [], []
    for name in names:
        try:
            value = getattr(fastdl, name)
        except AttributeError:
            continue
        home = getattr(value, "__module__", None)
        if isinstance(value, types.ModuleType):
            continue  # which of them are imported by now is chance; see below
        elif isinstance(value, Op):
            if value.__name__ == name:
                functions.append(definition(name, signature_of(value.__wrapped__), value.__doc__))
            else:
                aliases.append(f"{name} = {value.__name__}")
        elif isinstance(value, types.FunctionType) and home == "fastdl":
            functions.append(definition(name, signature_of(value), value.__doc__))
        elif isinstance(value, types.FunctionType | types.BuiltinFunctionType):
            if value.__name__ == name:
                imports.append(f"from {str(home).replace('fastdl', '', 1)} import {name} as {name}")
            else:
                functions.append(definition(name, signature_of(value), value.__doc__))
        elif value is Tensor:
            imports.append("from ._C import Tensor as Tensor")
        elif isinstance(value, type) and home == "fastdl":
            imports.append(f"from .errors import {value.__name__} as {name}")
        elif isinstance(value, type) and str(home).startswith("fastdl."):
            imports.append(f"from {home.replace('fastdl', '', 1)} import {value.__name__} as {name}")
        elif type(value).__name__ == "DType":
            if name != "bool":  # an alias, last: the signatures mean Python's bool
                constants.append(f"{name}: DType")
        elif isinstance(value, float | str):
            constants.append(f"{name}: {type(value).__name__}")
        elif value is None:
            constants.append(f"{name}: None")
    others = {n for n in names if hasattr(fastdl, n) and not isinstance(getattr(fastdl, n), types.ModuleType)}
    lines = [
        HEAD.format("The public names of fastdl."),
        "import builtins",
        "from collections.abc import Callable, Sequence",
        "from typing import Any, Literal\n",
        "import numpy as np\n",
        *(f"from . import {m} as {m}" for m in sorted(shipped - others)),
        *sorted(imports),
        "from .dtypes import DType",
        "from .typing import Axes, Axis, DTypeLike, Pads, Pair, Shape, TensorLike\n",
        *constants,
        "bool: DType\n",
        *functions,
        "",
        *aliases,
    ]
    text = "\n".join(lines) + "\n"
    return re.sub(r"(?<=[:\[>|,] )bool\b(?! as)", "builtins.bool", text)


def main() -> int:
    folder = Path(fastdl.__file__).parent
    stale = []
    for name, text in (("_C.pyi", extension_stub()), ("__init__.pyi", package_stub())):
        path = folder / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text)
            print(f"wrote {path}")
    if stale and "--check" in sys.argv:
        print(f"stale: {', '.join(stale)}; run python tools/make_stubs.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
