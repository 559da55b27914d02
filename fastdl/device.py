"""Devices: `fd.device("cpu")`."""

from __future__ import annotations

from typing import Any

from . import _C
from .errors import DeviceError


class device:
    """Where a tensor's memory is: ``type`` ("cpu") and ``index``.

    Raises
    ------
    DeviceError
        For a device that this build or machine does not have.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.device("cpu"), fd.zeros(1).device == "cpu"
    (device('cpu'), True)
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __new__(cls, name: Any = "cpu") -> device:
        if isinstance(name, device):
            return name
        kind, _, index = str(name).partition(":")
        if kind == "cpu" and index in ("", "0"):
            return _CPU
        if kind == "cuda" and (index == "" or index.isdigit()):
            raise DeviceError(f"device {name!r}: this build has no CUDA kernels; use 'cpu'")
        raise DeviceError(f"device {name!r} is unknown; need 'cpu' or 'cuda[:index]'")

    def __repr__(self) -> str:
        return f"device({str(self)!r})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, (device, str)) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> Any:
        return device, (str(self),)


_CPU = object.__new__(device)
object.__setattr__(_CPU, "type", "cpu")
object.__setattr__(_CPU, "index", None)
_C.set_hook("cpu_device", _CPU)
