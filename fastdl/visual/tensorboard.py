"""Logs for TensorBoard, written with tensorboardX, and a reader of their scalars that needs no TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn


def _package(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"fastdl.visual: logs need tensorboardX: pip install 'fastdl-engine[tensorboard]' ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, fd.Tensor):
        return value.detach().cpu().numpy()
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, Mapping) else value


class SummaryWriter:
    """tensorboardX's SummaryWriter (PyTorch's names: `add_scalar add_scalars add_histogram add_image add_images add_figure add_text`)
    that takes fastdl tensors; closes itself as a context manager.

    Parameters
    ----------
    logdir : str or Path
    **settings
        For tensorboardX.SummaryWriter.
    """

    def __init__(self, logdir: Any, **settings: Any) -> None:
        self._writer = _package("tensorboardX").SummaryWriter(str(logdir), **settings)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("add_"):
            raise AttributeError(f"SummaryWriter has no attribute {name!r}")
        method = getattr(self._writer, name)
        return lambda *args, **kwargs: method(*map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()})

    def add_parameters(self, model: nn.Module, step: int) -> None:
        """Histograms of all parameters and of the gradients that are there."""
        for name, parameter in model.named_parameters():
            self.add_histogram(f"weights/{name}", parameter, step)
            if parameter.grad is not None:
                self.add_histogram(f"gradients/{name}", parameter.grad, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_events(path: Any) -> dict[str, list[tuple[int, float | None]]]:
    """What was logged: for each tag, (step, value) in the order of writing; the value is None for what is no scalar.

    Parameters
    ----------
    path : str or Path
        An event file, or a folder, whose event files are read in the order of their names.

    Raises
    ------
    FormatError
        When a record's checksum is wrong or its length cannot be. A last record that is cut off (its writer still runs) is left out.
    """
    event = _package("tensorboardX.proto.event_pb2").Event
    path = Path(path)
    files = sorted(path.rglob("events.out.tfevents.*")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise fd.FormatError(f"read_events: {path} has no event files")
    found: dict[str, list[tuple[int, float | None]]] = {}
    for file in files:
        for record in _records(file):
            message = event.FromString(record)
            for value in message.summary.value:
                scalar = value.simple_value if value.WhichOneof("value") == "simple_value" else None
                found.setdefault(value.tag, []).append((int(message.step), scalar))
    return found


def _records(file: Path) -> list[bytes]:
    """TFRecord: length (8 bytes), its checksum (4), the data, its checksum (4)."""
    content, start, records = file.read_bytes(), 0, []
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        if _checksum(content[start : start + 8]) != struct.unpack_from("<I", content, start + 8)[0]:
            raise fd.FormatError(f"read_events: {file.name}: the length at byte {start} has a wrong checksum")
        end = start + 12 + length
        if end + 4 > len(content):
            break
        if _checksum(content[start + 12 : end]) != struct.unpack_from("<I", content, end)[0]:
            raise fd.FormatError(f"read_events: {file.name}: the record at byte {start} has a wrong checksum")
        records.append(content[start + 12 : end])
        start = end + 4
    return records


def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


_CRC32C = [int(entry) for entry in _table()]


def _checksum(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord files have it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
