"""What a captured function reads from Python by name: variables of modules and enclosing scopes, attributes, small containers.

A replay does not run Python, so a call that finds other values there is a call of another kind, and a function that changes them
itself cannot be replayed. Modules (`nn.Module`) and optimisers tell of their changes themselves and are left out here.
"""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ._C import Op, Tensor

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep
_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep
_MOST_ITEMS = 64  # containers and arrays with more, and those after twice as many items in all, are taken as data
_MOST_PLACES = 512
_DEEP = 3  # attributes of attributes
_KNOWN = ("fastdl", "numpy", "builtins", "torch", "unittest")
_CONTAINERS = (dict, list, set, tuple, collections.deque)
_ITERATORS = (
    types.GeneratorType, itertools.count, itertools.cycle, itertools.chain, map, filter, zip, enumerate,
    *map(type, (iter(()), iter([]), iter({}), iter(set()), iter(range(0)))),
)  # fmt: skip
# Methods that Python calls without their name.
_IMPLICIT = ("__call__", "__getitem__", "__enter__", "__exit__", "__iter__", "__len__", "__bool__", "__float__", "__index__", "__getattr__",
             "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__pow__", "__neg__")  # fmt: skip
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

    Functions that it names are looked into as well, if they are Python code of users, and so are objects: their attributes under any of
    the names that occur in those functions, with what their methods, properties and operators read.

    Attributes
    ----------
    places : list of (callable, key, value)
        callable(key) is the value now.
    iterators : list of str
        Names of iterators among them: a replay would not ask for the next item.
    generators : list
        Random generators of Python and NumPy among them.
    """

    def __init__(self) -> None:
        self.places: list[tuple[Callable[[Any], Any], Any, Any]] = []
        self.names: list[str] = []  # for messages, like places
        self.iterators: list[str] = []
        self.generators: list[Any] = []
        self._seen: set[Any] = set()
        self._items = 0  # of containers
        self._words: set[str] = set(_IMPLICIT)  # names in the functions
        self._objects: list[tuple[Any, str, int]] = []
        self._looked: dict[int, set[str]] = {}  # object: names that were looked for

    def start(self, fn: Any, objects: Iterable[Any]) -> None:
        """fn and the arguments that are neither tensors nor values."""
        self._function(fn)
        for o in objects:
            self._look_into(o, "an argument", 0)
        self._finish()

    def close(self) -> None:
        """Lets go of what was only needed to find the places."""
        self._objects.clear()
        self._looked.clear()
        self._seen.clear()

    def module(self, module: Any) -> None:
        """A module of a user's class that is called: what its `forward` reads, and the method itself, which may be replaced."""
        for base in type(module).__mro__:
            if "forward" in vars(base):
                if (id(base), "forward") not in self._seen:
                    self._seen.add((id(base), "forward"))
                    self._add(vars(base).get, "forward", vars(base)["forward"], f"{base.__name__}.forward")
                self._function(vars(base)["forward"])
                break
        self._objects.append((module, type(module).__name__, 0))
        self._finish()

    def _finish(self) -> None:
        before = -1
        while before != (before := len(self._words) + len(self._objects) + len(self.places)):
            for o, title, depth in list(self._objects):
                self._attributes(o, title, depth)

    def _function(self, fn: Any, owner: Any = None) -> None:
        met: list[Any] = []
        while not any(fn is f for f in met):  # wrappers may go in a circle
            met.append(fn)
            if isinstance(fn, types.MethodType):
                owner, fn = fn.__self__, fn.__func__
                self._look_into(owner, type(owner).__name__, 0)
            elif isinstance(fn, functools.partial):
                for value in (*fn.args, *fn.keywords.values()):
                    self._look_into(value, "an argument of a partial", 0)
                fn = fn.func
            elif isinstance(wrapped := _own(fn).get("__wrapped__"), types.FunctionType | types.MethodType):
                if isinstance(fn, types.FunctionType):
                    self._one_function(fn)
                fn = wrapped
            else:
                break
        if isinstance(fn, types.FunctionType):
            self._one_function(fn)
        elif callable(fn):
            self._look_into(fn, type(fn).__name__, 0)

    def _one_function(self, fn: types.FunctionType) -> None:
        code = fn.__code__
        if id(fn) in self._seen or _of_a_library(code.co_filename):
            return
        self._seen.add(id(fn))
        names = _names(code)
        self._words |= names
        for name, cell in zip(code.co_freevars, fn.__closure__ or ()):
            try:
                self._place(cell.__getattribute__, "cell_contents", cell.cell_contents, name, 0)
            except ValueError:  # not assigned yet
                continue
        scope = fn.__globals__
        for name in names:
            if name in scope:
                self._place(scope.get, name, scope[name], name, 0)
        for value in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
            self._look_into(value, f"a default of {fn.__name__}", 0)

    def _attributes(self, o: Any, title: str, depth: int) -> None:
        """Attributes of o under the names that occur, and what methods and properties of these names read."""
        looked = self._looked.setdefault(id(o), set())
        names = self._words - looked
        looked |= names
        own, module = _own(o), _is_module(o)
        if module and _root(type(o)) == "fastdl":
            names &= {"training"}
        for name in names:
            if name in own:
                value = own[name]
                if not (module and (isinstance(value, Tensor) or _is_module(value))):  # modules tell of those themselves
                    self._place(own.get, name, value, f"{title}.{name}", depth + 1)
                continue
            for base in () if isinstance(o, types.ModuleType) else (o if isinstance(o, type) else type(o)).__mro__:
                if name not in vars(base):
                    continue
                at = vars(base)[name]
                if _root(base) in _KNOWN or _root(base) in sys.stdlib_module_names:
                    break
                if isinstance(at, property):
                    self._function(at.fget, o)
                elif isinstance(at, (classmethod, staticmethod)):
                    self._function(at.__func__, o)
                elif isinstance(at, types.FunctionType):
                    self._add(vars(base).get, name, at, f"{base.__name__}.{name}")
                    self._function(at, o)
                elif isinstance(at, types.MemberDescriptorType):  # a slot
                    try:
                        self._place(o.__getattribute__, name, getattr(o, name), f"{title}.{name}", depth + 1)
                    except AttributeError:  # not set yet
                        continue
                else:
                    self._place(vars(base).get, name, at, f"{base.__name__}.{name}", depth + 1)
                break

    def _add(self, get: Callable[[Any], Any], key: Any, value: Any, title: str) -> bool:
        if len(self.places) >= _MOST_PLACES:
            return False
        self.places.append((get, key, value))
        self.names.append(title)
        return True

    def _place(self, get: Callable[[Any], Any], key: Any, value: Any, title: str, depth: int) -> None:
        if isinstance(value, (types.ModuleType, type)):
            self._look_into(value, title, depth)
        elif self._add(get, key, value, title):
            self._look_into(value, title, depth)

    def _look_into(self, o: Any, title: str, depth: int) -> None:
        kind = type(o)
        if isinstance(o, (types.FunctionType, types.MethodType, functools.partial)) or "__wrapped__" in _own(o):
            self._function(o)
        elif isinstance(o, np.ndarray):
            if id(o) not in self._seen and o.size <= _MOST_ITEMS and not o.dtype.hasobject:  # Python may read numbers from it
                self._seen.add(id(o))
                self._add(lambda _: o.tobytes(), None, o.tobytes(), title)
        elif is_value(o) or isinstance(o, (Tensor, Op, types.BuiltinFunctionType)) or depth > _DEEP or id(o) in self._seen:
            return
        elif isinstance(o, types.ModuleType):
            path = _own(o).get("__file__")
            if path and not _of_a_library(path) and "site-packages" not in path:
                self._seen.add(id(o))
                self._objects.append((o, title, depth))
        elif isinstance(o, (np.random.Generator, np.random.RandomState, random.Random)):
            self.generators.append(o)
        elif isinstance(o, _ITERATORS):
            self.iterators.append(title)
        elif _is_module(o) and _root(kind) == "fastdl":  # tells of its changes itself, but its mode may be read without a call
            self._seen.add(id(o))
            self._objects.append((o, title, depth))
        elif isinstance(o, _CONTAINERS) or _root(o if isinstance(o, type) else kind) not in _KNOWN:
            self._seen.add(id(o))
            if isinstance(o, _CONTAINERS) and len(o) <= _MOST_ITEMS and self._items + len(o) <= 2 * _MOST_ITEMS:
                self._items += len(o)
                if not isinstance(o, tuple):
                    self._add(_Items(o).unchanged, None, True, title)
                for item in dict.values(o) if isinstance(o, dict) else list(o):
                    self._look_into(item, f"an item of {title}", depth + 1)
            self._objects.append((o, title, depth))

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
        state: list[Any] = [random.getstate()]
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            legacy = numpy_random.get_state()
            state += [legacy[1].tobytes(), legacy[2]]
        for g in self.generators:
            if isinstance(g, random.Random):
                state.append(g.getstate())
            else:
                state.append(repr(g.bit_generator.state if isinstance(g, np.random.Generator) else g.get_state()))
        return state


def _root(kind: type) -> str:
    """The package that a class belongs to."""
    return str(kind.__module__).partition(".")[0]


def _own(o: Any) -> Any:
    """The attributes of o itself; no code of o runs."""
    try:
        return object.__getattribute__(o, "__dict__")
    except AttributeError:
        return {}


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
