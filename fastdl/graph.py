"""Captured functions: recorded once, then replayed without Python.

A call of a captured function is one loop in C++ over the kernel launches that an earlier call made, on memory planned beforehand. The
numbers are those of the eager call, bit for bit. What differs from call to call comes in through tensors: arguments, parameters,
buffers, optimiser state, learning rates (which live in tensors, see :mod:`fastdl.optim`) and random streams, which move on as
they do eagerly. What Python computes itself is fixed when the call is recorded, as in JAX's `jit` and PyTorch's `compile`.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, overload

import numpy as np

from . import _C, random as _random
from ._C import Tensor
from ._watch import Watch, is_value
from .errors import TypeError_
from .ops.creation import asarray

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("fastdl")
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PASSES = (
    "dead_code", "constants", "common", "in_place", "slices", "fuse", "epilogue", "norms", "pooling", "images", "updates", "recompute",
    "recompute_convolutions", "graphs", "arena",
)  # fmt: skip
_MOST_PROGRAMS = 16  # of one function; the least recently used goes
_MANY_KINDS = 24  # of calls, none recorded: time for a warning
_MOST_KEYS = 256  # calls that were seen but not recorded
_recording = threading.Lock()
_TRIES = 3  # recordings of one kind of call that may fail because the first calls build state


def _user_line() -> str:
    """Where in the user's code we are, for messages."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back  # type: ignore[assignment]
    return f" (in {frame.f_code.co_filename}, line {frame.f_lineno})" if frame is not None else ""


_C.set_hook("user_line", _user_line)


def _static_key(o: Any) -> Any:
    if is_value(o):
        return type(o), repr(o)  # repr: -0.0 is not 0.0
    return type(o), id(o)


def _key(tree: Any) -> Any:
    """What a call looks like: structure, shapes, strides, dtypes, devices, and the other arguments."""
    if isinstance(tree, Tensor):
        t = (tuple(tree.shape), tree.dtype.name, tree.strides, str(tree.device))
        return (id(tree), *t) if tree.requires_grad else t
    if isinstance(tree, (tuple, list)):
        return type(tree), tuple([_key(x) for x in tree])
    if type(tree) is dict:
        return tuple([(k, _key(v)) for k, v in tree.items()])
    if isinstance(tree, np.ndarray):
        return tuple(tree.shape), str(tree.dtype), getattr(tree, "strides", None)
    return _static_key(tree)


def _tensors(tree: Any) -> Any:
    """NumPy arrays among the arguments become tensors on the same memory, in eager calls as in recorded ones."""
    if type(tree) in (tuple, list):
        return type(tree)([_tensors(x) for x in tree])
    if type(tree) is dict:
        return {k: _tensors(v) for k, v in tree.items()}
    return asarray(tree) if isinstance(tree, np.ndarray) else tree


def _has_graph(tree: Any) -> bool:
    if isinstance(tree, Tensor):
        return tree.grad_fn is not None
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    return isinstance(tree, (tuple, list)) and any(_has_graph(x) for x in tree)


def _objects(tree: Any) -> Iterator[Any]:
    """Arguments that count by which object they are."""
    if type(tree) in (tuple, list) or (isinstance(tree, tuple) and hasattr(tree, "_fields")):
        for x in tree:
            yield from _objects(x)
    elif type(tree) is dict:
        for x in tree.values():
            yield from _objects(x)
    elif not is_value(tree) and not isinstance(tree, (Tensor, np.ndarray)):
        yield tree


def _same_containers(a: Any, b: Any) -> bool:
    """Whether two trees of arguments hold the same objects in the same places."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same_containers, a, b))
    if type(a) is dict:
        return list(a) == list(b) and all(_same_containers(x, b[k]) for k, x in a.items())
    return a is b


def _copy_containers(tree: Any) -> Any:
    if type(tree) in (tuple, list):
        return type(tree)([_copy_containers(x) for x in tree])
    return {k: _copy_containers(v) for k, v in tree.items()} if type(tree) is dict else tree


class _Called:
    """Modules that are called while a function is recorded, their modes, and what the `forward` of users' classes reads."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.modules: list[tuple[Any, bool]] = []
        self._known: set[int] = set()

    def append(self, entry: tuple[Any, bool]) -> None:
        self.modules.append(entry)
        if type(entry[0]).__module__.partition(".")[0] != "fastdl" and id(entry[0]) not in self._known:
            self._known.add(id(entry[0]))
            self.watch.module(entry[0])


class _Entry:
    """One recorded call: the program, and what it assumed about modules and Python values."""

    __slots__ = ("capture", "modules", "watch")

    def __init__(self, capture: Any, modules: list[Any], watch: Watch) -> None:
        self.capture = capture
        self.modules = [(weakref.ref(m), training) for m, training in modules]
        self.watch = watch

    def same_modes(self) -> bool:
        return all((m := ref()) is not None and m.training == training for ref, training in self.modules)


class _Holder:
    """The captured method of one instance, in the instance's dict. Copies and pickles of the instance start without programs."""

    def __init__(self) -> None:
        self.owner: Any = None
        self.compiled: Any = None

    def __reduce__(self) -> Any:
        return _Holder, ()


class Compiled:
    """What :func:`compile` returns: call it like the function.

    Attributes
    ----------
    programs : int
        Number of recorded programs.
    reason : str or None
        Why the last kind of call that could not be recorded runs eagerly.
    """

    def __init__(self, fn: Callable[..., Any], passes: Mapping[str, bool], strict: bool = True) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.reason: str | None = None
        self._strict = strict
        self._passes = dict(passes)
        self._entries: list[_Entry] = []
        self._seen: dict[Any, int] = {}
        self._declined: dict[Any, str] = {}
        self._timed = False
        self._last: Watch | None = None
        self._off = os.environ.get("FASTDL_COMPILE", "1").strip().lower() in ("0", "off", "false", "no")

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A captured method: one set of programs per instance."""
        if instance is None:
            return self
        if not hasattr(instance, "__dict__"):
            return self.fn.__get__(instance, owner)
        name = f"_compiled_{self.__qualname__}"  # type: ignore[attr-defined]
        holder = instance.__dict__.get(name)
        if holder is None or holder.owner is not self or holder.compiled.fn.__self__ is not instance:
            holder = instance.__dict__[name] = _Holder()
            holder.owner, holder.compiled = self, Compiled(self.fn.__get__(instance, owner), self._passes, self._strict)
        return holder.compiled

    def __reduce__(self) -> Any:
        return Compiled, (self.fn, self._passes, self._strict)  # copies record anew

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for entry in self._entries:
            if not entry.watch.places or entry.watch.unchanged():
                result = entry.capture.run(args, kwargs, self._timed)
                if result is not NotImplemented:
                    return result
        return self._slow(args, kwargs)

    @property
    def programs(self) -> int:
        return len(self._entries)

    def _slow(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = _tensors(args), _tensors(kwargs)
        if self._off or _C.recording() or _C.anomaly_enabled():  # a captured function inside another is part of it
            return self.fn(*args, **kwargs)
        if any(e.capture.stale() for e in self._entries):  # a parameter, buffer or module was replaced
            self._entries = [e for e in self._entries if not e.capture.stale()]
            self._seen.clear()  # the next call may make state, in optimisers for instance
        for k, entry in enumerate(self._entries):
            if entry.watch.unchanged() and entry.same_modes():
                entry.capture.accept_mode()
                result = entry.capture.run(args, kwargs, self._timed)
                if result is not NotImplemented:
                    self._entries.insert(0, self._entries.pop(k))
                    return result
        watch = self._look(args, kwargs)
        key = (_key(args), _key(kwargs), _C.grad_enabled(), watch.key())
        if key in self._declined or _has_graph(args) or _has_graph(kwargs):
            return self.fn(*args, **kwargs)
        count = self._seen.get(key, 0)
        if len(self._seen) >= _MOST_KEYS:
            self._seen.clear()
        self._seen[key] = count + 1
        if count == 0:
            self._note_kinds(watch)
            return self.fn(*args, **kwargs)
        if not _recording.acquire(blocking=False):  # another thread records: what it notes must be its own
            return self.fn(*args, **kwargs)
        try:
            return self._record(args, kwargs, key, count, watch)
        finally:
            _recording.release()

    def _note_kinds(self, watch: Watch) -> None:
        """Says so, once, when every call is of another kind and nothing is ever replayed."""
        before, self._last = self._last, watch
        if len(self._seen) != _MANY_KINDS or self._entries or before is None:
            return
        changed = before.changed()
        what = f"{changed} is another at each call" if changed else "its arguments are of another kind at each call"
        self.reason = f"{what}; what changes should come in as a tensor"
        _log.warning("compile: %s runs eagerly: %s", self._name, self.reason)

    def _look(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Watch:
        watch = Watch()
        watch.start(self.fn, _objects((args, kwargs)))
        return watch

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, tries: int, watch: Watch) -> Any:
        capture = _C.Capture(self._strict)
        if watch.iterators:
            capture.refuse(
                f"compile: {self._name} uses an iterator ({watch.iterators[0]}); a replay would not ask for the next item. "
                "Take it outside and pass it as an argument"
            )
        called = _Called(watch)
        drawn = watch.random_state()
        copies = capture.begin(args, kwargs)
        if copies is None:  # arguments on overlapping memory
            return self.fn(*args, **kwargs)
        given = _copy_containers(copies)
        new_args, new_kwargs = copies
        before = _random._observe(capture), _observe_modules(called)
        try:
            result = self.fn(*new_args, **new_kwargs)
            if watch.random_state() != drawn:
                capture.refuse(
                    f"compile: {self._name} draws from Python's or NumPy's random generator; the numbers would be the same in every "
                    "later call. Use fd.random, or draw outside and pass the numbers as arguments"
                )
            if (name := watch.changed()) is not None:
                capture.decline(f"it changes {name}, which a replay would not change")
            if not _same_containers(given, copies):
                capture.decline("it changes a list or dict among its arguments")
            del new_args, new_kwargs, copies, given
            if capture.count_leaks(result):
                gc.collect()
            reason, result = capture.finish(result, self._passes)
        finally:
            _random._observe(before[0])
            _observe_modules(before[1])
            capture.abort()
            watch.close()
        if reason is None:
            self._entries.insert(0, _Entry(capture, called.modules, watch))
            del self._entries[_MOST_PROGRAMS:]
            return result
        if tries >= _TRIES:
            self._declined[key] = reason
            if reason != self.reason:
                _log.warning("compile: %s runs eagerly: %s", self._name, reason)
            self.reason = reason
        return result

    @property
    def _name(self) -> str:
        return getattr(self.fn, "__qualname__", repr(self.fn))

    # ---- looking inside --------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, int]:
        """Launches, bytes of the memory plan and number of replays of the program that was used last (empty: none yet)."""
        return self._entries[0].capture.stats() if self._entries else {}

    def dump(self) -> str:
        """The program that was used last: one line per launch with bytes, FLOPs and, after :meth:`timed` calls, microseconds."""
        if self._entries:
            return self._entries[0].capture.dump()
        return f"{self._name}: nothing recorded yet ({self.reason or 'the second call of a kind is recorded'})"

    def timed(self, on: bool = True) -> None:
        """Measure each launch of the calls to come; fused groups run launch by launch meanwhile."""
        self._timed = on

    def clear(self) -> None:
        """Forget all programs."""
        self._entries.clear()
        self._seen.clear()
        self._declined.clear()
        self.reason = None

    def __repr__(self) -> str:
        return f"<compiled {self._name}: {len(self._entries)} programs>"


def _observe_modules(into: Any) -> Any:
    """Modules that are called are noted in `into` from now on; returns what was set before."""
    module: Any = sys.modules.get("fastdl.nn.module")
    if module is None:
        return None
    before = module._called
    module._called = into
    return before


@overload
def compile(fn: F, *, strict: bool = True, passes: Mapping[str, bool] | None = None) -> F: ...
@overload
def compile(fn: None = None, *, strict: bool = True, passes: Mapping[str, bool] | None = None) -> Callable[[F], F]: ...
def compile(fn: Any = None, *, strict: bool = True, passes: Mapping[str, bool] | None = None) -> Any:
    """Capture a function of tensors, such as a whole training step, and replay it without Python.

    The first call with arguments of a kind (structure, shapes, dtypes, devices, other values) runs eagerly, the second is recorded
    while it runs, later ones are replayed. A call of another kind is recorded anew. Numbers are the same as without `compile`.

    Parameters
    ----------
    fn : callable
        May use parameters, buffers, optimisers and random streams by closure; they are read and updated where they are. Values of
        tensors must not be read inside (`item`, `numpy`, `if tensor:`): return them.
    strict : bool
        False: what would be a `CaptureError` makes the function run eagerly instead, with one warning that says why.
    passes : dict of bool, optional
        Turns optimisations off by name: "dead_code", "constants", "common", "in_place", "slices", "fuse", "epilogue", "norms", "pooling", "images", "updates",
        "recompute", "graphs", "arena"; or on: "recompute_convolutions", which takes time to save memory.

    Returns
    -------
    callable
        With `dump()`, `stats()`, `timed()` and `clear()`; see :class:`fastdl.graph.Compiled`.

    Raises
    ------
    CaptureError
        On the second call, when the function reads a tensor's values, draws from Python's random module, or changes settings that
        a replay would not change again.

    Notes
    -----
    A function that cannot be replayed faithfully (it keeps tensors outside, returns tensors that still need gradients) runs eagerly;
    one warning of the logger "fastdl" says why. `FASTDL_COMPILE=0` turns capturing off.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> fd.manual_seed(0)
    Generator(seed=0, offset=0)
    >>> model = nn.Linear(3, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> @fd.compile
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = fd.ones((8, 3)), fd.zeros((8, 1))
    >>> losses = [step(x, y).item() for _ in range(20)]
    >>> losses[-1] < 1e-3 * losses[0], step.programs
    (True, 1)
    """
    if passes is not None and (unknown := set(passes) - set(_PASSES)):
        raise TypeError_(f"compile: unknown passes {sorted(unknown)}; there are {', '.join(_PASSES)}")
    if fn is None:
        return functools.partial(compile, strict=strict, passes=passes)
    if not callable(fn):
        raise TypeError_(f"compile: need a function, not {type(fn).__name__}")
    if isinstance(fn, Compiled):
        return fn
    return Compiled(fn, passes or {}, strict)
