"""Optimizer: parameter groups, state, and the numbers that kernels read at run time.

Every update is one in-place kernel call per parameter. Settings (learning rate, betas ...) and the step count live in a small
float64 tensor, `hyper`, that kernels read when they run. Assigning `group["lr"]` writes into it at once, so eager steps and
captured ones see the same values, and schedulers need no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

import fastdl as fd
from fastdl import _C


class _Hyper:
    """One hyper tensor: settings, and the step count in its last slot. NumPy and the tensor share the memory."""

    def __init__(self, values: list[float], steps: float, device: Any) -> None:
        self.host = np.array([*values, steps], np.float64)
        self.tensor = fd.from_numpy(self.host)
        self.shared = str(device).startswith("cpu")
        if not self.shared:
            self.tensor = self.tensor.to(device)
        self.counter = self.tensor[len(values) :]

    def write(self, values: list[float]) -> None:
        if _C.recording():
            _C.refuse_capture(
                "param_groups: a captured function must not change settings of an optimiser (a scheduler's step does): replays would not "
                "change them again; do it outside, between the calls"
            )
        self.host[:-1] = values
        if not self.shared:
            with fd.no_grad():
                self.tensor[:-1].copy_(fd.from_numpy(self.host[:-1]))

    @property
    def steps(self) -> float:
        return float(self.counter.tolist()[0])

    def set_steps(self, steps: float) -> None:
        with fd.no_grad():
            self.counter.fill_(steps)


class ParamGroup(dict[str, Any]):
    """A dict of settings; assigning one checks it and passes it on to the kernels."""

    def __init__(self, owner: Optimizer, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._owner = owner
        self._hypers: list[_Hyper] = []

    def __setitem__(self, key: str, value: Any) -> None:
        before = self.get(key)
        super().__setitem__(key, value)
        if key == "params" or not self._hypers:
            return
        try:
            self._owner._check(self)
        except (TypeError, ValueError):
            super().__setitem__(key, before)
            raise
        self.publish()

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def publish(self) -> None:
        values = self._owner._hyper_values(self)
        for hyper in self._hypers:
            hyper.write(values)


class _Slot:
    """A parameter in its group: its hyper tensor (the group's, unless it has missed steps) and its state arrays."""

    __slots__ = ("args", "hyper", "kernel", "param")

    def __init__(self, param: Any, hyper: _Hyper, kernel: Callable[..., Any]) -> None:
        self.param = param
        self.kernel = kernel if param.dtype.itemsize > 2 else _in_float32(kernel)
        self.place(hyper, None)

    def place(self, hyper: _Hyper, arrays: tuple[Any, ...] | None) -> None:
        _C.structure_changed()  # captured steps hold what was here before
        self.hyper = hyper
        self.args = None if arrays is None else (*arrays, hyper.tensor)  # what the kernel gets after parameter and gradient

    @property
    def arrays(self) -> tuple[Any, ...] | None:
        return None if self.args is None else self.args[:-1]


def _in_float32(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The same update for a 16-bit parameter: computed, and its state kept, in float32; only the parameter is rounded."""

    def update(param: Any, grad: Any, *args: Any) -> None:
        wide = param.astype(fd.float32)
        kernel(wide, grad.astype(fd.float32), *args)
        param.copy_(wide)

    return update


def _state_dtype(param: Any) -> Any:
    return param.dtype if param.dtype.itemsize > 2 else fd.float32


class Optimizer:
    """Base class of optimisers.

    Subclasses define the class attributes and methods below; see :class:`~fastdl.optim.SGD` for the shortest example.

    Parameters
    ----------
    params : iterable of Parameter, of (name, Parameter), or of dict
        Dicts are parameter groups: `{"params": [...], "lr": 0.1}`; what they do not set comes from `defaults`.
    defaults : dict
        Settings of every group.

    Attributes
    ----------
    param_groups : list of dict
        Settings may be changed at any time: `optimizer.param_groups[0]["lr"] = 0.01`.

    Raises
    ------
    ValueError
        When there are no parameters, one occurs twice, or a setting is out of range.
    TypeError
        When something is not a leaf tensor.
    """

    #: The update of one parameter in place: _kernel(param, grad, *state arrays, hyper).
    _kernel: ClassVar[Callable[..., Any]]
    #: Names of the state arrays in `state_dict`, in the order of the kernel's arguments.
    _state_names: ClassVar[tuple[str, ...]] = ()
    #: Those of them that are 0-d float32, as PyTorch keeps them; the others have the parameter's shape.
    _scalar_state: ClassVar[tuple[str, ...]] = ()
    #: Whether the update is one kernel, not a composition of ops.
    _fused: ClassVar[bool] = True

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, fd.Tensor):
            raise TypeError("params: got a tensor; need an iterable of parameters, for example model.parameters()")
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self._slots: list[list[_Slot]] = []
        self._seen: set[int] = set()
        entries = list(params)
        if not entries:
            raise ValueError(f"{type(self).__name__}: got no parameters")
        if isinstance(entries[0], Mapping):
            for entry in entries:
                self.add_param_group(entry)
        else:
            self.add_param_group({"params": entries})

    # ---- what subclasses define ----------------------------------------------------------------------------------------

    def _check(self, group: Mapping[str, Any]) -> None:
        """Raise ValueError when a setting is out of range."""

    def _hyper_values(self, group: Mapping[str, Any]) -> list[float]:
        """Settings in the order of the kernel's hyper tensor, without the step count."""
        raise NotImplementedError

    def _used_state(self, group: Mapping[str, Any]) -> tuple[bool, ...]:
        """For each of `_state_names`, whether this group's settings need it."""
        raise NotImplementedError

    # ---- groups --------------------------------------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own."""
        given = param_group["params"]
        members = [given] if isinstance(given, fd.Tensor) else list(given)
        params = [member[1] if isinstance(member, tuple) else member for member in members]
        name = type(self).__name__
        for p in params:
            if not isinstance(p, fd.Tensor):
                raise TypeError(f"{name}: can only optimise tensors; got {type(p).__name__}")
            if not p.is_leaf:
                raise ValueError(f"{name}: can only optimise leaf tensors; got the result of an operation, shape {tuple(p.shape)}")
            if id(p) in self._seen:
                raise ValueError(f"{name}: a parameter of shape {tuple(p.shape)} occurs twice")
            self._seen.add(id(p))
        group = ParamGroup(self, {**self.defaults, **param_group, "params": params})
        self._check(group)
        device = params[0].device if params else "cpu"
        common = _Hyper(self._hyper_values(group), 0.0, device)
        group._hypers.append(common)
        self.param_groups.append(group)
        self._slots.append([_Slot(p, common, self._kernel) for p in params])

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters (or fill them with zeros)."""
        for slots in self._slots:
            for slot in slots:
                if set_to_none:
                    slot.param.grad = None
                elif slot.param.grad is not None:
                    slot.param.grad.zero_()

    # ---- stepping ------------------------------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; the others, and their state, stay as they are.

        Parameters
        ----------
        closure : callable, optional
            Evaluated first, with gradients on; its result is returned.
        """
        loss = None
        if closure is not None:
            with fd.enable_grad():
                loss = closure()
        recording = _C.set_grad_enabled(False)
        try:
            for group, slots in zip(self.param_groups, self._slots, strict=True):
                common = group._hypers[0]
                counted = False
                together: list[tuple[Any, ...]] = []  # on a device: few launches for all parameters
                for slot in slots:
                    param = slot.param
                    grad = param.grad
                    if grad is None:
                        if slot.hyper is common and len(slots) > 1:
                            self._split(group, slot, counted)
                        continue
                    if slot.hyper is not common or not counted:
                        counter = slot.hyper.counter
                        counter += 1.0
                        counted = counted or slot.hyper is common
                    if slot.args is None:
                        slot.place(slot.hyper, self._new_arrays(group, param))
                    if self._fused and slot.kernel is self._kernel and param.device.index is not None:
                        together.append((param, grad, *slot.args))  # type: ignore[misc]
                    else:
                        slot.kernel(param, grad, *slot.args)  # type: ignore[misc]
                if together:
                    _C.step_many(self._kernel, together)
        finally:
            _C.set_grad_enabled(recording)
        return loss

    def _split(self, group: ParamGroup, slot: _Slot, counted: bool) -> None:
        """A parameter that misses a step counts its own steps from now on, so that bias corrections stay exact."""
        own = _Hyper(self._hyper_values(group), group._hypers[0].steps - counted, slot.param.device)
        group._hypers.append(own)
        slot.place(own, slot.arrays)

    def _new_arrays(self, group: ParamGroup, param: Any) -> tuple[Any, ...]:
        pairs = zip(self._state_names, self._used_state(group), strict=True)
        return tuple([self._new_state(name, param) if used else None for name, used in pairs])

    def _new_state(self, name: str, param: Any) -> Any:
        scalar = name in self._scalar_state
        return fd.zeros(() if scalar else param.shape, dtype=fd.float32 if scalar else _state_dtype(param), device=param.device)

    # ---- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Settings and state in PyTorch's structure: parameters are numbered in order through all groups.

        The arrays are the optimiser's own, not copies.

        Returns
        -------
        dict
            `{"state": {number: {"step": ..., name: Tensor, ...}}, "param_groups": [{..., "params": [numbers]}]}`
        """
        state: dict[int, dict[str, Any]] = {}
        groups = []
        number = 0
        for group, slots in zip(self.param_groups, self._slots, strict=True):
            packed = {key: value for key, value in group.items() if key != "params"}
            packed["params"] = list(range(number, number + len(slots)))
            groups.append(packed)
            for slot in slots:
                if slot.arrays is not None:
                    arrays = zip(self._state_names, slot.arrays, strict=True)
                    state[number] = {"step": slot.hyper.steps, **{name: a for name, a in arrays if a is not None}}
                number += 1
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy settings and state from :meth:`state_dict` of an optimiser of the same kind over equal parameters.

        Raises
        ------
        ValueError
            When the numbers of groups or parameters, names or shapes differ; nothing is changed then.
        """
        name = type(self).__name__
        groups, state = state_dict["param_groups"], {int(k): v for k, v in state_dict["state"].items()}
        if len(groups) != len(self.param_groups):
            raise ValueError(f"{name}.load_state_dict: got {len(groups)} parameter groups, need {len(self.param_groups)}")
        plan: list[tuple[_Slot, float, tuple[Any, ...]]] = []
        for packed, group, slots in zip(groups, self.param_groups, self._slots, strict=True):
            if len(packed["params"]) != len(slots):
                raise ValueError(f"{name}.load_state_dict: got {len(packed['params'])} parameters in a group, need {len(slots)}")
            merged = {**group, **{key: value for key, value in packed.items() if key != "params"}}
            self._check(merged)
            for number, slot in zip(packed["params"], slots, strict=True):
                if number in state:
                    plan.append((slot, float(state[number].get("step", 1.0)), self._checked_arrays(merged, slot, state[number])))
        loaded = {id(slot): (steps, arrays) for slot, steps, arrays in plan}
        for packed, group, slots in zip(groups, self.param_groups, self._slots, strict=True):
            group.update({key: value for key, value in packed.items() if key != "params"})
            self._place(group, slots, loaded)

    def _checked_arrays(self, group: Mapping[str, Any], slot: _Slot, entry: Mapping[str, Any]) -> tuple[Any, ...]:
        arrays: list[fd.Tensor | None] = []
        for name, used in zip(self._state_names, self._used_state(group), strict=True):
            array = entry.get(name)
            if not used:
                arrays.append(None)
                continue
            copy = self._new_state(name, slot.param)
            need = tuple(copy.shape)
            if array is None or tuple(array.shape) != need:
                got = "nothing" if array is None else f"shape {tuple(array.shape)}"
                raise ValueError(f"{type(self).__name__}.load_state_dict: {name}: got {got}, need shape {need}")
            copy.copy_(fd.asarray(array).detach())
            arrays.append(copy)
        return tuple(arrays)

    def _place(self, group: ParamGroup, slots: list[_Slot], loaded: Mapping[int, tuple[float, tuple[Any, ...] | None]]) -> None:
        """Put loaded state into the slots; those with the most common step count share the group's hyper tensor."""
        counts = [loaded[id(slot)][0] if id(slot) in loaded else 0.0 for slot in slots]
        usual = max(set(counts), key=counts.count) if counts else 0.0
        common = group._hypers[0]
        del group._hypers[1:]
        common.set_steps(usual)
        for slot, steps in zip(slots, counts, strict=True):
            hyper = common
            if steps != usual:
                hyper = _Hyper(self._hyper_values(group), steps, slot.param.device)
                group._hypers.append(hyper)
            slot.place(hyper, loaded[id(slot)][1] if id(slot) in loaded else None)

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: parameters, settings and state; the hyper tensors are made anew."""
        slots = [[(slot.hyper.steps, slot.arrays) for slot in slots] for slots in self._slots]
        return {"defaults": self.defaults, "groups": [dict(group) for group in self.param_groups], "slots": slots}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Optimizer.__init__(self, state["groups"], state["defaults"])
        for group, slots, packed in zip(self.param_groups, self._slots, state["slots"], strict=True):
            held = zip(slots, packed, strict=True)
            self._place(group, slots, {id(slot): (steps, arrays) for slot, (steps, arrays) in held})

    def __repr__(self) -> str:
        lines = []
        for k, group in enumerate(self.param_groups):
            lines.append(f"  group {k}: {len(group['params'])} tensors")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items()) if key != "params"]
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


def check_at_least(name: str, settings: Mapping[str, Any], least: float, *keys: str) -> None:
    """Every named setting must be a number >= `least` (NaN is not)."""
    for key in keys:
        if not settings[key] >= least:
            raise ValueError(f"{name}: {key} must be >= {least}; got {settings[key]}")
