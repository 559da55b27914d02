"""Sizes, strides and paddings as layers take them: one number, or one per axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Pair = int | Sequence[int]


def pair(value: Any) -> tuple[int, int]:
    """One number for both axes, or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def single(value: Any) -> int:
    """A number, or a sequence that holds one."""
    return value if isinstance(value, int) else int(value[0])
