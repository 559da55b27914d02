"""What a captured function reads from Python by name: variables of modules and enclosing scopes, attributes, small containers.

A replay does not run Python, so a call that finds other values there is a call of another kind, and a function that changes them
itself cannot be replayed. Modules (`nn.Module`) and optimisers tell of their changes themselves and are left out here.
"""

from __future__ import annotations

import math
import os
import sys
import sysconfig
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from ._C import Tensor

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
_MOST_ITEMS = 64  # containers with more are taken as data
_MOST_PLACES = 512
_DEEP = 3  # attributes of attributes
_SCALARS = (bool, int, float, complex, str, bytes, type(None))


def is_value(o: Any) -> bool:
    """Whether o counts by what it is, not by which object it is."""
    return isinstance(o, _SCALARS) or isinstance(o, np.generic)


def same(now: Any, value: Any) -> bool:
    """Whether a place still holds `value`."""
    if now is value:
        return True
    if type(now) is not type(value) or not is_value(value):
        return False
    if isinstance(value, (float, np.floating)) and (value == 0 or math.isnan(value)):
        return repr(now) == repr(value)  # -0.0 is not 0.0, NaN is itself
    return bool(now == value)


class _Items:
    """A list, dict or set as it was."""

    def __init__(self, container: Any) -> None:
        self.container = container
        self.items = self._now()

    def _now(self) -> list[Any]:
        c = self.container
        return [*c, *dict.values(c)] if isinstance(c, dict) else list(c)

    def unchanged(self, _: Any) -> bool:
        try:
            now = self._now()
        except (RuntimeError, KeyError):  # another thread is at it
            return False
        return len(now) == len(self.items) and all(map(same, now, self.items))


class Watch:
    """The places that a function reads, and what they held.

    Attributes
    ----------
    places : list of (callable, key, value)
        callable(key) is the value now.
    iterators : list of str
        Names of iterators among them: a replay would not ask for the next item.
    generators : list
        NumPy generators among them.
    """

    def __init__(self) -> None:
        self.places: list[tuple[Callable[[Any], Any], Any, Any]] = []
        self.names: list[str] = []  # for messages, like places
        self.iterators: list[str] = []
        self.generators: list[Any] = []
        self._seen: set[Any] = set()

    def function(self, fn: Any, owner: Any = None) -> None:
        """fn, and the functions that it names, if they are Python code of users."""
        while isinstance(getattr(fn, "__wrapped__", None), types.FunctionType) and not isinstance(fn, types.FunctionType):
            fn = fn.__wrapped__  # a captured function
        if isinstance(fn, types.MethodType):
            fn, owner = fn.__func__, fn.__self__
        code = getattr(fn, "__code__", None)
        if code is None or (code, id(owner)) in self._seen or _of_a_library(code.co_filename):
            return
        self._seen.add((code, id(owner)))
        names = _names(code)
        if owner is not None:
            self.attributes(owner, names, type(owner).__name__, 0)
        for name, cell in zip(code.co_freevars, fn.__closure__ or ()):
            try:
                self._place(cell.__getattribute__, "cell_contents", cell.cell_contents, name, names, 0)
            except ValueError:  # not assigned yet
                continue
        scope = fn.__globals__
        for name in names:
            if name in scope:
                self._place(scope.get, name, scope[name], name, names, 0)
        for default in (fn.__defaults__ or (), (fn.__kwdefaults__ or {}).values()):
            for value in default:
                self._look_into(value, f"a default of {fn.__name__}", names, 0)

    def method(self, kind: type, name: str) -> None:
        """The method of a class, which may be replaced."""
        own = vars(kind)
        self.places.append((own.get, name, own[name]))
        self.names.append(f"{kind.__name__}.{name}")
        self.function(own[name])

    def argument(self, o: Any, fn: Any) -> None:
        """An argument that is neither a tensor nor a value: what fn reads of it."""
        code = getattr(getattr(fn, "__func__", fn), "__code__", None)
        self._look_into(o, "an argument", _names(code) if code is not None else set(), 0)

    def attributes(self, o: Any, names: set[str], title: str, depth: int) -> None:
        """Attributes of o under these names, and what methods of these names read."""
        kind = type(o)
        own = getattr(o, "__dict__", None)
        for name in names:
            if own is not None and name in own:
                self._place(own.get, name, own[name], f"{title}.{name}", names, depth + 1)
            elif isinstance(at := getattr(kind, name, None), types.FunctionType):
                self.function(at, o)
            elif isinstance(at, types.MemberDescriptorType) and hasattr(o, name):  # a slot
                self._place(o.__getattribute__, name, getattr(o, name), f"{title}.{name}", names, depth + 1)

    def _place(self, get: Callable[[Any], Any], key: Any, value: Any, title: str, names: set[str], depth: int) -> None:
        if isinstance(value, (types.ModuleType, type)) or len(self.places) >= _MOST_PLACES:
            return
        if str(getattr(value, "__module__", "")).startswith("fastdl.ops"):
            return
        self.places.append((get, key, value))
        self.names.append(title)
        self._look_into(value, title, names, depth)

    def _look_into(self, o: Any, title: str, names: set[str], depth: int) -> None:
        kind = type(o)
        if isinstance(o, types.FunctionType) or hasattr(o, "__wrapped__") or isinstance(o, types.MethodType):
            self.function(o)
        elif is_value(o) or isinstance(o, (Tensor, np.ndarray, type, types.ModuleType)) or depth > _DEEP or (id(o), "") in self._seen:
            return
        elif kind.__module__.partition(".")[0] == "fastdl":
            return  # tells of its changes itself
        elif hasattr(kind, "__next__"):
            self.iterators.append(title)
        elif isinstance(o, (np.random.Generator, np.random.RandomState)):
            self.generators.append(o)
        else:
            self._seen.add((id(o), ""))
            if isinstance(o, (dict, list, set, tuple)) and len(o) <= _MOST_ITEMS:
                if not isinstance(o, tuple):
                    self.places.append((_Items(o).unchanged, None, True))
                    self.names.append(title)
                for item in o.values() if isinstance(o, dict) else o:
                    self._look_into(item, f"an item of {title}", names, depth + 1)
            if not _is_module(o):
                self.attributes(o, names, title, depth)

    def unchanged(self) -> bool:
        for get, key, value in self.places:
            try:
                now = get(key)
            except (ValueError, AttributeError, RuntimeError):
                return False
            if now is not value and not same(now, value):
                return False
        return True

    def changed(self) -> str | None:
        """The first name that holds something else now."""
        for (get, key, value), name in zip(self.places, self.names, strict=True):
            try:
                now = get(key)
            except (ValueError, AttributeError, RuntimeError):
                return name
            if not same(now, value):
                return name
        return None

    def key(self) -> tuple[Any, ...]:
        return tuple([(type(v), repr(v)) if is_value(v) else (type(v), id(v)) for _, _, v in self.places])

    def random_state(self) -> list[Any]:
        """Changes when Python's random, NumPy's global generator or one of the generators is drawn from."""
        state: list[Any] = [sys.modules["random"].getstate()] if "random" in sys.modules else []
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            legacy = numpy_random.get_state()
            state += [legacy[1].tobytes(), legacy[2]]
        for g in self.generators:
            state.append(repr(g.bit_generator.state) if isinstance(g, np.random.Generator) else repr(g.get_state()))
        return state


def _is_module(o: Any) -> bool:
    module: Any = sys.modules.get("fastdl.nn.module")
    return module is not None and isinstance(o, module.Module)


def _of_a_library(filename: str) -> bool:
    return filename.startswith((_PACKAGE, _NUMPY)) or (filename.startswith(_LIBRARY) and "site-packages" not in filename)


def _names(code: types.CodeType) -> set[str]:
    """Names and strings in a function and in those defined inside: variables of its module, attributes, keys."""
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
        elif isinstance(constant, str) and constant.isidentifier():
            names.add(constant)
    return names
