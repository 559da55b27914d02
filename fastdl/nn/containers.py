"""Containers: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from .activation import ReLU, Sigmoid, Tanh
from .conv import Conv2d
from .linear import Linear
from .module import EXPLAINED, Module, add_layer_path

# Exact types only: a subclass may compute something else.
_FUSED: dict[type, Any] = {Linear: Linear._forward_activated, Conv2d: Conv2d._forward_activated}
_ACTIVATIONS: dict[type, str] = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}


class Sequential(Module):
    """Modules called one after the other.

    Parameters
    ----------
    *modules : Module, or one dict of str to Module
        The layers in order, named "0", "1", ..., or by the dict's keys.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> net = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))
    >>> net(fd.ones((3, 2))).shape
    (3, 1)
    >>> net
    Sequential(
      (0): Linear(in_features=2, out_features=4, bias=True)
      (1): Sigmoid()
      (2): Linear(in_features=4, out_features=1, bias=True)
    )
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named: Iterable[tuple[str, Any]] = modules[0].items()
        else:
            named = ((str(k), module) for k, module in enumerate(modules))
        for name, module in named:
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: entry {name} is a {type(module).__name__}; need an nn.Module")
            self.register_module(name, module)

    def forward(self, x: Any) -> Any:
        modules: Any = [*self._modules.values()]
        count = len(modules)
        k = 0
        module = self
        try:
            while k < count:
                module = modules[k]
                k += 1
                if module._hooks is not None:
                    x = module(x)
                    continue
                fused = _FUSED.get(type(module))
                if fused is not None and k < count:  # an activation that follows is the last touch of the same kernel
                    name = _ACTIVATIONS.get(type(modules[k]))
                    if name is not None and modules[k]._hooks is None:
                        x = fused(module, x, name)
                        k += 1
                        continue
                x = module.forward(x)
        except EXPLAINED as error:
            if module is not self:
                add_layer_path(module, error)
            raise
        return x

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return Sequential(dict(list(self._modules.items())[index]))
        return self._modules[_name_at(self, index)]  # type: ignore[return-value]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _name_at(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        names = list(self._modules)
        for name in names[index] if isinstance(index, slice) else [_name_at(self, index)]:
            delattr(self, name)
        _renumber(self, list(self._modules.values()))

    def append(self, module: Module) -> Sequential:
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        entries = list(self)
        entries.insert(index, module)
        _renumber(self, entries)
        return self


class ModuleList(Module):
    """A list of modules; it has no forward of its own.

    Examples
    --------
    >>> from fastdl import nn
    >>> layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(3)])
    >>> len(layers), len(list(layers.parameters()))
    (3, 6)
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or [])

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._modules.values()))  # type: ignore[arg-type]

    def __contains__(self, module: object) -> bool:
        return any(m is module for m in self._modules.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return self._modules[_name_at(self, index)]  # type: ignore[return-value]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _name_at(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        entries = list(self)
        del entries[index]
        _renumber(self, entries)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def append(self, module: Module) -> ModuleList:
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        entries = list(self)
        entries.insert(index, module)
        _renumber(self, entries)


class ModuleDict(Module):
    """A dict of modules; it has no forward of its own.

    Examples
    --------
    >>> from fastdl import nn
    >>> heads = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(2, 3)})
    >>> list(heads), heads["b"].out_features
    (['a', 'b'], 3)
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._modules))

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def __getitem__(self, name: str) -> Module:
        return self._modules[name]  # type: ignore[return-value]

    def __setitem__(self, name: str, module: Module) -> None:
        self.register_module(name, module)

    def __delitem__(self, name: str) -> None:
        delattr(self, name)

    def keys(self) -> Iterable[str]:
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        return self._modules.values()  # type: ignore[return-value]

    def items(self) -> Iterable[tuple[str, Module]]:
        return self._modules.items()  # type: ignore[return-value]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        for name, module in modules.items() if isinstance(modules, Mapping) else modules:
            self[name] = module

    def pop(self, name: str) -> Module:
        module = self[name]
        del self[name]
        return module

    def clear(self) -> None:
        for name in list(self._modules):
            del self[name]


def _name_at(container: Module, index: int) -> str:
    names = list(container._modules)
    if not -len(names) <= index < len(names):
        raise IndexError(f"{type(container).__name__}: index {index} is out of range for {len(names)} modules")
    return names[index]


def _renumber(container: Module, entries: Iterable[Module | None]) -> None:
    entries = list(entries)
    for name in list(container._modules):
        delattr(container, name)
    for k, module in enumerate(entries):
        container.register_module(str(k), module)
