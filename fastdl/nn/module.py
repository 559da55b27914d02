"""Module: the base of every layer. Parameters, buffers and children are plain attributes, found through small registries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import fastdl as fd
from fastdl import _C

from .parameter import Parameter

_called: list[Any] | None = None  # modules that are called and their modes, while a captured function is recorded (fastdl.graph)

M = TypeVar("M", bound="Module")

# What `forward` raises in everyday mistakes; their text gets the layer's path.
EXPLAINED = (fd.FastdlError, ValueError, TypeError, IndexError, RuntimeError)


class LoadResult(NamedTuple):
    """What :meth:`Module.load_state_dict` did not find, and what it could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class StateDictError(fd.FastdlError, RuntimeError):
    """A state dict does not fit the module: the text lists every missing, unexpected and mismatched entry."""


class HookHandle:
    """Returned by the `register_*_hook` methods; :meth:`remove` takes the hook off again."""

    def __init__(self, module: Module, table: dict[int, Callable[..., Any]], key: int) -> None:
        self._module, self._table, self._key = module, table, key

    def remove(self) -> None:
        self._table.pop(self._key, None)
        _C.structure_changed()
        self._module._drop_empty_hooks()


class _Hooks:
    """Forward hooks of one module; most modules have none and pay nothing."""

    def __init__(self) -> None:
        self.before: dict[int, Callable[..., Any]] = {}
        self.after: dict[int, Callable[..., Any]] = {}
        self.count = 0


class Module:
    """Base class of layers and models: define `__init__` (calling `super().__init__()`) and `forward`.

    Attributes that are parameters, modules or registered buffers are found by `parameters()`, `state_dict()` and the rest.
    Reading them is an ordinary attribute read; only assignment looks at registries.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.hidden = nn.Linear(4, 8)
    ...         self.out = nn.Linear(8, 2)
    ...     def forward(self, x):
    ...         return self.out(fd.relu(self.hidden(x)))
    >>> net = Net()
    >>> net(fd.ones((5, 4))).shape
    (5, 2)
    >>> [name for name, _ in net.named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool
    _hooks: _Hooks | None = None
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, fd.Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]  # buffers that state_dict leaves out

    def __init__(self) -> None:
        own = self.__dict__
        own["training"] = True
        own["_parameters"] = {}
        own["_buffers"] = {}
        own["_modules"] = {}
        own["_transient"] = set()

    # ---- calling -------------------------------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _called is not None and _C.recording():
            _called.append((self, self.training))
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except EXPLAINED as error:
            add_layer_path(self, error)
            raise

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = self._hooks
        assert hooks is not None
        for hook in list(hooks.before.values()):
            changed = hook(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        result = self.forward(*args, **kwargs)
        for hook in list(hooks.after.values()):
            changed = hook(self, args, result)
            if changed is not None:
                result = changed
        return result

    def register_forward_pre_hook(self, hook: Callable[[Any, tuple[Any, ...]], Any]) -> HookHandle:
        """Call `hook(module, args)` before every forward; what it returns (unless None) replaces the arguments."""
        return self._register_hook("before", hook)

    def register_forward_hook(self, hook: Callable[[Any, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call `hook(module, args, output)` after every forward; what it returns (unless None) replaces the output.

        Examples
        --------
        >>> import fastdl as fd
        >>> from fastdl import nn
        >>> layer = nn.Linear(3, 2)
        >>> handle = layer.register_forward_hook(lambda module, args, output: print(output.shape))
        >>> _ = layer(fd.ones((5, 3)))
        (5, 2)
        >>> handle.remove()
        """
        return self._register_hook("after", hook)

    def _register_hook(self, when: str, hook: Callable[..., Any]) -> HookHandle:
        _C.structure_changed()  # captured steps were recorded without the hook
        if self._hooks is None:
            self.__dict__["_hooks"] = _Hooks()
        hooks = self._hooks
        assert hooks is not None
        hooks.count += 1
        table = getattr(hooks, when)
        table[hooks.count] = hook
        return HookHandle(self, table, hooks.count)

    def _drop_empty_hooks(self) -> None:
        if self._hooks is not None and not self._hooks.before and not self._hooks.after:
            del self.__dict__["_hooks"]

    # ---- registries ----------------------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        parameters = own.get("_parameters")
        if parameters is None:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError(f"{type(self).__name__}: call super().__init__() before setting {name!r}")
        elif isinstance(value, Parameter):
            self._claim(name, parameters)
            parameters[name] = value
        elif isinstance(value, Module):
            self._claim(name, self._modules)
            self._modules[name] = value
        elif name in parameters:
            if value is not None:
                raise TypeError(f"{type(self).__name__}.{name}: got {type(value).__name__}; need an nn.Parameter or None")
            parameters[name] = None
        elif name in self._buffers:
            if value is not None and not isinstance(value, fd.Tensor):
                raise TypeError(f"{type(self).__name__}.{name}: got {type(value).__name__}; need a Tensor or None for a buffer")
            self._buffers[name] = value
        elif name in self._modules:
            if value is not None:
                raise TypeError(f"{type(self).__name__}.{name}: got {type(value).__name__}; need an nn.Module or None")
            self._modules[name] = None
        if name in own:
            if own[name] is not value:  # captured steps hold what was there before
                _C.mode_changed() if name == "training" else _C.structure_changed()
        elif hasattr(type(self), name):  # a method, or a default of the class, is covered
            _C.structure_changed()
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _C.structure_changed()
        for registry in (self._parameters, self._buffers, self._modules):
            registry.pop(name, None)
        self._transient.discard(name)
        object.__delattr__(self, name)

    def _claim(self, name: str, registry: dict[str, Any]) -> None:
        """`name` moves to `registry` from whatever it was before."""
        _C.structure_changed()
        for other in (self._parameters, self._buffers, self._modules):
            if other is not registry:
                other.pop(name, None)

    def _check_name(self, name: str, kind: str) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{type(self).__name__}: the name of a {kind} must be a non-empty string without dots; got {name!r}")
        taken = name in self._parameters or name in self._buffers or name in self._modules
        if not taken and hasattr(self, name):
            raise KeyError(f"{type(self).__name__} already has an attribute {name!r}")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter by name; None keeps the name free for one that comes later (or never)."""
        self._check_name(name, "parameter")
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"register_parameter({name!r}): got {type(param).__name__}; need an nn.Parameter or None")
        self._claim(name, self._parameters)
        self._parameters[name] = param
        object.__setattr__(self, name, param)

    def register_buffer(self, name: str, tensor: fd.Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is part of the state but is not trained (running statistics, tables)."""
        self._check_name(name, "buffer")
        if tensor is not None and not isinstance(tensor, fd.Tensor):
            raise TypeError(f"register_buffer({name!r}): got {type(tensor).__name__}; need a Tensor or None")
        self._claim(name, self._buffers)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)
        object.__setattr__(self, name, tensor)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child by name."""
        self._check_name(name, "module")
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"register_module({name!r}): got {type(module).__name__}; need an nn.Module or None")
        self._claim(name, self._modules)
        self._modules[name] = module
        object.__setattr__(self, name, module)

    add_module = register_module

    # ---- traversal -----------------------------------------------------------------------------------------------------

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted paths, parents first."""
        return self._walk(prefix, set() if remove_duplicate else None)

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        seen: set[int] = set()
        for name, child in self._modules.items():
            if child is not None and id(child) not in seen:
                seen.add(id(child))
                yield name, child

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def _members(self, registry: str, prefix: str, recurse: bool, unique: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, unique) if recurse else [(prefix, self)]:
            for name, value in getattr(module, registry).items():
                if value is None or (unique and id(value) in seen):
                    continue
                seen.add(id(value))
                yield (f"{path}.{name}" if path else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names; a shared parameter comes once, under its first name."""
        return self._members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, fd.Tensor]]:
        return self._members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[fd.Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at the dotted path `target`; "" is the module itself."""
        module = self
        for name in target.split(".") if target else []:
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(f"{type(self).__name__} has no module {target!r}: no child {name!r}")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter with the dotted name `target`."""
        path, _, name = target.rpartition(".")
        parameter = self.get_submodule(path)._parameters.get(name)
        if parameter is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")
        return parameter

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn` on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # ---- modes, devices, gradients -------------------------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Training mode (dropout drops, batch norm uses the batch) for this module and all below."""
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be a bool; got {mode!r}")
        for module in self.modules():
            module.__dict__["training"] = mode
        _C.mode_changed()
        return self

    def eval(self: M) -> M:
        """Evaluation mode: the same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def to(self: M, *args: Any, device: Any = None, dtype: Any = None) -> M:
        """Move to a device, or cast floating-point parameters and buffers: `to("cuda")`, `to(fd.float64)`, or both by name.

        A parameter that changes becomes a new `Parameter`: make the optimiser afterwards.
        """
        for arg in args:
            if isinstance(arg, fd.device) or (isinstance(arg, str) and arg.split(":")[0] in ("cpu", "cuda")):
                device = arg
            else:
                dtype = arg
        _C.structure_changed()
        moved: dict[int, Any] = {}

        def convert(tensor: fd.Tensor) -> Any:
            if id(tensor) not in moved:
                changed = tensor.detach()
                if device is not None:
                    changed = changed.to(device)
                if dtype is not None and _is_floating(tensor) and tensor.dtype != dtype:
                    changed = changed.astype(dtype)
                same = changed.dtype == tensor.dtype and changed.device == tensor.device
                if same:
                    moved[id(tensor)] = tensor
                else:
                    moved[id(tensor)] = Parameter(changed, tensor.requires_grad) if isinstance(tensor, Parameter) else changed
            return moved[id(tensor)]

        for module in self.modules():
            for registry in (module._parameters, module._buffers):
                for name, tensor in registry.items():
                    if tensor is not None:
                        value = convert(tensor)
                        registry[name] = value
                        object.__setattr__(module, name, value)
        return self

    def float(self: M) -> M:
        return self.to(fd.float32)

    def double(self: M) -> M:
        return self.to(fd.float64)

    def half(self: M) -> M:
        return self.to(fd.float16)

    def bfloat16(self: M) -> M:
        return self.to(fd.bfloat16)

    def cpu(self: M) -> M:
        return self.to(device="cpu")

    def cuda(self: M, device: Any = "cuda") -> M:
        return self.to(device=device if isinstance(device, str) else f"cuda:{device}")

    # ---- state ---------------------------------------------------------------------------------------------------------

    def state_dict(self, *, prefix: str = "", keep_vars: bool = False) -> dict[str, fd.Tensor]:
        """All parameters and persistent buffers by dotted name, in PyTorch's order; the tensors share the module's memory."""
        state: dict[str, fd.Tensor] = {}
        for path, module in self.named_modules(prefix.removesuffix("."), remove_duplicate=False):
            path = path + "." if path else ""
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    state[path + name] = parameter if keep_vars else parameter.detach()
            for name, buffer in module._buffers.items():
                if buffer is not None and name not in module._transient:
                    state[path + name] = buffer if keep_vars else buffer.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy values (tensors or arrays) into the parameters and buffers of the same names.

        Everything is checked before anything is copied, so a failed call changes nothing.

        Parameters
        ----------
        state_dict : mapping of str to array_like
        strict : bool
            Whether missing and unexpected names are errors. Wrong shapes always are.

        Returns
        -------
        LoadResult
            `missing_keys` and `unexpected_keys`.

        Raises
        ------
        StateDictError
            Lists every name that is missing, unexpected or of another shape.

        Examples
        --------
        >>> import numpy as np
        >>> from fastdl import nn
        >>> layer = nn.Linear(2, 1)
        >>> layer.load_state_dict({"weight": np.ones((1, 2)), "bias": np.zeros(1)})
        LoadResult(missing_keys=[], unexpected_keys=[])
        >>> layer.load_state_dict({"weight": np.ones((3, 2))})
        Traceback (most recent call last):
            ...
        fastdl.nn.module.StateDictError: Linear.load_state_dict: missing: bias; shape of weight: got (3, 2), need (1, 2)
        """
        own = self.state_dict(keep_vars=True)
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {', '.join(missing)}")
        if strict and unexpected:
            problems.append(f"unexpected: {', '.join(unexpected)}")
        values = {}
        for name, target in own.items():
            if name in state_dict:
                value = fd.asarray(state_dict[name]).detach()
                if tuple(value.shape) != tuple(target.shape):
                    problems.append(f"shape of {name}: got {tuple(value.shape)}, need {tuple(target.shape)}")
                values[name] = value
        if problems:
            raise StateDictError(f"{type(self).__name__}.load_state_dict: {'; '.join(problems)}")
        with fd.no_grad():
            for name, value in values.items():
                own[name].copy_(value)
        return LoadResult(missing, unexpected)

    # ---- text ----------------------------------------------------------------------------------------------------------

    def summary(self, input_shape: Any, **settings: Any) -> Any:
        """A table of the layers' output shapes, parameters and FLOPs: :func:`fastdl.summary` of this module."""
        return fd.summary(self, input_shape, **settings)

    def extra_repr(self) -> str:
        """Settings shown between the parentheses of the module's repr."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr().splitlines()
        children = [f"({name}): {_indent(repr(child))}" for name, child in self._modules.items()]
        if not children and len(extra) <= 1:
            return f"{self._get_name()}({''.join(extra)})"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra + children) + "\n)"


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _is_floating(tensor: fd.Tensor) -> bool:
    return "float" in str(tensor.dtype)


def add_layer_path(module: Module, error: BaseException) -> None:
    """Put "path.of.layer (Class): " before the error's text; each enclosing module on the way up extends the path."""
    if len(error.args) != 1 or not isinstance(error.args[0], str):
        return
    inner, path, name, text = getattr(error, "_fastdl_layer", None) or (None, "", type(module).__name__, error.args[0])
    if inner is not None and inner is not module:
        found = next((p for p, m in module.named_modules() if m is inner), "")
        path = f"{found}.{path}" if found and path else found or path
    error.args = (f"{path} ({name}): {text}" if path else f"{name}: {text}",)
    error._fastdl_layer = (module, path, name, text)  # type: ignore[attr-defined]
