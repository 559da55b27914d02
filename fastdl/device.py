"""Devices: `fd.device("cpu")`, `fd.device("cuda:0")`, and where new tensors go by default."""

from __future__ import annotations

import os
from typing import Any

from . import _C
from ._C import Tensor
from .errors import DeviceError


class device:
    """Where a tensor's memory is: ``type`` ("cpu" or "cuda") and ``index`` (None for the CPU; "cuda" alone means "cuda:0").

    Raises
    ------
    DeviceError
        For a device that this build or machine does not have; the text says what is missing.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.device("cpu"), fd.zeros(1).device == "cpu"
    (device('cpu'), True)
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __new__(cls, name: Any = "cpu", index: int | None = None) -> device:
        if isinstance(name, device):
            return name
        kind, _, number = str(name).partition(":")
        if index is not None and not number:
            number = str(index)
        if kind == "cpu" and number in ("", "0"):
            return _CPU
        if kind == "cuda" and (number == "" or number.isdigit()):
            return _cuda_device(int(number or 0))
        raise DeviceError(f"device {name!r} is unknown; need 'cpu' or 'cuda[:index]'")

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == (other if other != "cuda" else "cuda:0")
        return str(self) == str(other) if isinstance(other, device) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> Any:
        return device, (str(self),)


def _make(kind: str, index: int | None) -> device:
    d = object.__new__(device)
    object.__setattr__(d, "type", kind)
    object.__setattr__(d, "index", index)
    return d


_CPU = _make("cpu", None)
_CUDA: dict[int, device] = {}


def _cuda_device(index: int) -> device:
    """The one object of a CUDA device; DeviceError if it cannot be used."""
    if index not in _CUDA:
        _C.cuda_require(index)
        _CUDA[index] = _make("cuda", index)
    return _CUDA[index]


_C.set_hook("cpu_device", _CPU)
_C.set_hook("cuda_device", _cuda_device)

_default: device | None = None


def get_default_device() -> device:
    """Where new tensors go when no device is given: the CPU, or what FASTDL_DEVICE or `set_default_device` names."""
    global _default
    if _default is None:
        _default = device(os.environ.get("FASTDL_DEVICE") or "cpu")
    return _default


def set_default_device(name: Any) -> None:
    """Sets where new tensors go when no device is given.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.set_default_device("cpu")
    >>> fd.get_default_device()
    device('cpu')
    """
    global _default
    _default = device(name)


def cuda_index(name: Any) -> int:
    """The index of the CUDA device that a ``device=`` argument means, or -1 for the CPU."""
    d = (_default or get_default_device()) if name is None else device(name)
    return -1 if d.index is None else d.index


def place(t: Tensor, name: Any) -> Tensor:
    """t on the device that a ``device=`` argument means (None: the default one); t itself if it is there."""
    index = cuda_index(name)
    if t.device.index == (None if index < 0 else index):
        return t
    return move(t, "cpu" if index < 0 else "cuda", index)


def move(t: Tensor, kind: str, index: int) -> Tensor:
    """A copy of t on another device; the gradient comes back to t's own."""
    moved = _C.to_device(t, kind, max(index, 0))
    if t.requires_grad and _C.grad_enabled():
        home = t.device
        back = (home.type, -1 if home.index is None else home.index)
        _C.record((moved,), (t,), _moved_back, "to", (back,))
    return moved


def _moved_back(g: Tensor, home: tuple[str, int]) -> tuple[Tensor]:
    return (move(g, *home),)
