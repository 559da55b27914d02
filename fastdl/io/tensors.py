"""Tensors in safetensors files: eight bytes with the header's length, a JSON header, the bytes of every tensor.

Writing is a few lines and goes straight from each tensor's memory to the file. Reading is left to the safetensors library, whose
parser is built for hostile files: it checks the header, every dtype, size and offset before anything is believed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

import fastdl as fd

from .atomic import write_atomically

# safetensors' name of each dtype; bfloat16 goes through its 16-bit pattern, because NumPy has no such dtype
_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
}
_NAMES = {code: name for name, code in _CODES.items()}


def _pack(name: str, value: Any) -> tuple[str, tuple[int, ...], memoryview]:
    """(safetensors dtype, shape, little-endian bytes) of a tensor or array."""
    if isinstance(value, fd.Tensor):
        value = value.detach().cpu()
        kind = str(value.dtype)
        if kind == "bfloat16":
            bits = np.ascontiguousarray(value.astype(fd.float32).numpy()).view(np.uint32)
            array = (bits >> 16).astype(np.uint16)
        else:
            array = value.numpy()
    else:
        array = np.asarray(value)
        kind = array.dtype.name
    if kind not in _CODES:
        raise fd.DTypeError(f"save: {name!r} has dtype {kind}, which safetensors files cannot hold")
    shape = tuple(array.shape)
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return _CODES[kind], shape, array.reshape(-1).view(np.uint8).data


def save(tensors: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, atomically.

    Parameters
    ----------
    tensors : mapping of str to Tensor or array_like, or Module
        A module stands for its `state_dict()`.
    path : str or os.PathLike
        Replaced when it exists; a failed write leaves the old file as it was.
    metadata : mapping of str to str, optional
        Text to keep in the file's header.

    Raises
    ------
    fastdl.DTypeError
        When a dtype has no place in the format (complex128).
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastdl as fd
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "weights.safetensors"
    >>> fd.save({"w": fd.ones((2, 2))}, path)
    >>> fd.load(path)["w"].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    state = tensors.state_dict() if hasattr(tensors, "state_dict") else tensors
    packed = {}
    for name, value in state.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ValueError(f"save: names must be strings other than '__metadata__'; got {name!r}")
        packed[name] = _pack(name, value)
    for key, text in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"save: metadata must map str to str; got {key!r}: {type(text).__name__}")
    write_atomically(path, _chunks(packed, metadata))


def _chunks(packed: dict[str, tuple[str, tuple[int, ...], memoryview]], metadata: Mapping[str, str] | None) -> Iterator[Any]:
    order = sorted(packed, key=lambda name: (-_item_size(packed[name][0]), name))  # widest first: every tensor lies aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        code, shape, content = packed[name]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, offset + len(content)]}
        offset += len(content)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        yield packed[name][2]


def _item_size(code: str) -> int:
    return {"BOOL": 1, "C64": 8}.get(code) or int(code.lstrip("UIFB")) // 8


def load(path: str | os.PathLike[str], device: Any = None) -> dict[str, fd.Tensor]:
    """Read all tensors of a safetensors file.

    Parameters
    ----------
    path : str or os.PathLike
    device : optional
        Where the tensors go; default: the CPU.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    fastdl.FormatError
        When the file is broken, or holds a dtype that fastdl has not.
    OSError
        When the file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> model = nn.Linear(3, 2)
    >>> fd.save(model, path)
    >>> nn.Linear(3, 2).load_state_dict(fd.load(path))
    LoadResult(missing_keys=[], unexpected_keys=[])
    """
    return load_with_metadata(path, device)[0]


def load_with_metadata(path: str | os.PathLike[str], device: Any = None) -> tuple[dict[str, fd.Tensor], dict[str, str]]:
    """:func:`load`, and the text entries of the file's header."""
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError as error:
        raise ImportError("fastdl needs the package safetensors to read weights: pip install safetensors") from error
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        entries = deserialize(content)
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
        tensors = {name: _unpack(name, entry) for name, entry in entries}
    except SafetensorError as error:
        raise fd.FormatError(f"{os.fspath(path)}: not a valid safetensors file: {error}") from error
    except (ValueError, OverflowError, MemoryError) as error:
        raise fd.FormatError(f"{os.fspath(path)}: {error}") from error
    if device is not None:
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
    return tensors, metadata


def _unpack(name: str, entry: Mapping[str, Any]) -> fd.Tensor:
    code, shape = entry["dtype"], tuple(entry["shape"])
    if code not in _NAMES:
        raise fd.FormatError(f"{name!r} has dtype {code}, which fastdl does not have")
    kind = _NAMES[code]
    bits = np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder("<")
    array = np.frombuffer(bytearray(entry["data"]), bits).astype(bits.newbyteorder("="), copy=False)
    if kind == "bfloat16":
        wide = (array.astype(np.uint32) << 16).view(np.float32)
        return fd.asarray(wide.reshape(shape)).astype(fd.bfloat16)
    return fd.asarray(array.reshape(shape))
