"""Reader for the idx format of the MNIST family, and for .npz files: files are untrusted, so every number in them is checked.

idx: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian uint32, then the items, big-endian,
row-major. Gzip files are recognised by their first bytes, whatever their name.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

import fastdl as fd

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_BYTES = 4 << 30
_CHUNK = 1 << 20


def read_idx(path: str | os.PathLike[str], max_bytes: int = _MAX_BYTES) -> np.ndarray:
    """Read an idx file, plain or gzip-compressed.

    Parameters
    ----------
    path : str or os.PathLike
    max_bytes : int
        Refuse files whose header promises more data than this (default 4 GiB).

    Returns
    -------
    numpy.ndarray
        In the machine's byte order.

    Raises
    ------
    fastdl.FormatError
        When the file is not idx, is truncated, has bytes too many, or is too large. The text names file and fault.
    OSError
        When the file cannot be opened or read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from fastdl.data import read_idx
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels-idx1-ubyte"
    >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    >>> read_idx(path)
    array([7, 8, 9], dtype=uint8)
    """
    name = os.fspath(path)
    with open(path, "rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        try:
            if compressed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    return _parse_idx(stream, name, max_bytes)  # type: ignore[arg-type]
            return _parse_idx(raw, name, max_bytes)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise fd.FormatError(f"{name}: broken gzip file: {error}") from error


def _parse_idx(stream: BinaryIO, name: str, max_bytes: int) -> np.ndarray:
    head = stream.read(4)
    if len(head) < 4:
        raise fd.FormatError(f"{name}: truncated: {len(head)} bytes, an idx file starts with 4")
    if head[:2] != b"\0\0" or head[2] not in _TYPES or head[3] == 0:
        raise fd.FormatError(f"{name}: not an idx file: it starts with {head.hex(' ')}, need 00 00, a type 08..0e, a rank >= 1")
    dtype, rank = np.dtype(_TYPES[head[2]]), head[3]
    sizes = stream.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise fd.FormatError(f"{name}: truncated in the header: {len(sizes)} of {4 * rank} bytes of sizes")
    shape = tuple(int.from_bytes(sizes[4 * k : 4 * k + 4], "big") for k in range(rank))
    if rank > 32:
        raise fd.FormatError(f"{name}: {rank} dimensions; at most 32 are supported")
    need = math.prod(shape) * dtype.itemsize
    if need > max_bytes:
        raise fd.FormatError(f"{name}: the header promises {need:,} bytes (shape {shape}); the limit is {max_bytes:,}")
    parts, got = [], 0  # in pieces: a header that lies must not make us allocate what the file does not hold
    while got < need:
        part = stream.read(min(_CHUNK, need - got))
        if not part:
            raise fd.FormatError(f"{name}: truncated: shape {shape} needs {need:,} bytes of data, the file has {got:,}")
        parts.append(part)
        got += len(part)
    if stream.read(1):
        raise fd.FormatError(f"{name}: there is data after the {need:,} bytes of shape {shape}")
    items = np.frombuffer(b"".join(parts), dtype).reshape(shape)
    return items.astype(dtype.newbyteorder("="))  # a copy of our own: writable


def read_npz(path: str | os.PathLike[str], max_bytes: int = _MAX_BYTES) -> dict[str, np.ndarray]:
    """Read every array of an .npz file; nothing is unpickled, and sizes are checked before they are believed.

    Parameters
    ----------
    path : str or os.PathLike
    max_bytes : int
        Refuse files that unpack to more than this.

    Returns
    -------
    dict of str to numpy.ndarray

    Raises
    ------
    fastdl.FormatError
        When the file or one of its arrays is broken, holds Python objects or is too large.
    OSError
        When the file cannot be opened or read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from fastdl.data import read_npz
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.npz"
    >>> np.savez(path, x=np.arange(3))
    >>> read_npz(path)
    {'x': array([0, 1, 2])}
    """
    with open(path, "rb") as stream:
        return parse_npz(stream, os.fspath(path), max_bytes)


def parse_npz(stream: Any, name: str, max_bytes: int = _MAX_BYTES) -> dict[str, np.ndarray]:
    """:func:`read_npz` for an open file; `name` is used in messages."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
            if not members:
                raise fd.FormatError(f"{name}: no .npy arrays in this zip file")
            if sum(m.file_size for m in members) > max_bytes:
                raise fd.FormatError(f"{name}: unpacks to more than the limit of {max_bytes:,} bytes")
            return {m.filename[:-4]: _parse_npy(archive.read(m), f"{name}: {m.filename}") for m in members}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, fd.FormatError):
            raise
        raise fd.FormatError(f"{name}: broken .npz file: {error}") from error


def _parse_npy(content: bytes, name: str) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(stream)
    except Exception as error:  # numpy parses the header as a Python literal: broken text raises many classes
        raise fd.FormatError(f"{name}: broken header: {error}") from error
    if dtype.hasobject:
        raise fd.FormatError(f"{name}: holds Python objects, which are never loaded")
    need = math.prod(shape) * dtype.itemsize
    if any(s < 0 for s in shape) or len(content) - stream.tell() != need:
        raise fd.FormatError(f"{name}: shape {shape} of {dtype} needs {need:,} bytes, there are {len(content) - stream.tell():,}")
    items = np.frombuffer(content, dtype, offset=stream.tell()) if need else np.empty(0, dtype)
    return items.reshape(shape, order="F" if fortran else "C").copy()
