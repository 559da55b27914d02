"""The few functions of Keras's backend that programs still call."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layers.base import clear_session
from .losses import EPSILON

__all__ = ["clear_session", "epsilon", "floatx", "get_value", "image_data_format"]


def epsilon() -> float:
    """The small number in losses: 1e-7."""
    return EPSILON


def floatx() -> str:
    """The dtype of weights."""
    return "float32"


def image_data_format() -> str:
    """Images are (N, H, W, C)."""
    return "channels_last"


def get_value(x: Any) -> Any:
    """A number or tensor as NumPy."""
    return x.numpy() if hasattr(x, "numpy") else np.asarray(x)
