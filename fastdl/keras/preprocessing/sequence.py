"""Sequences of different lengths as one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastdl.errors import ValueError_


def pad_sequences(
    sequences: Sequence[Any], maxlen: int | None = None, dtype: Any = "int32", padding: str = "pre", truncating: str = "pre", value: Any = 0.0
) -> np.ndarray:
    """An array (N, maxlen, ...) of sequences, filled up with `value` and cut.

    Parameters
    ----------
    sequences : sequence of sequences
    maxlen : int, optional
        Default: the longest.
    dtype : dtype
    padding, truncating : {"pre", "post"}
        Where to fill and where to cut.
    value : number

    Raises
    ------
    ValueError
        When `padding` or `truncating` is something else, or elements differ in shape.

    Examples
    --------
    >>> from fastdl import keras
    >>> keras.preprocessing.sequence.pad_sequences([[1], [2, 3, 4]], maxlen=2).tolist()
    [[0, 1], [3, 4]]
    """
    for name, word in (("padding", padding), ("truncating", truncating)):
        if word not in ("pre", "post"):
            raise ValueError_(f"pad_sequences: {name} must be 'pre' or 'post'; got {word!r}")
    rows = [np.asarray(s) for s in sequences]
    if any(r.ndim == 0 for r in rows):
        raise ValueError_("pad_sequences: every element must be a sequence")
    length = max((len(r) for r in rows), default=0) if maxlen is None else maxlen
    shapes = {r.shape[1:] for r in rows if len(r)}
    if len(shapes) > 1:
        raise ValueError_(f"pad_sequences: elements have shapes {sorted(shapes)}; need one")
    result = np.full((len(rows), length, *(shapes.pop() if shapes else ())), value, dtype)
    for out, r in zip(result, rows, strict=True):
        if not len(r) or not length:
            continue
        kept = r[-length:] if truncating == "pre" else r[:length]
        out[slice(length - len(kept), None) if padding == "pre" else slice(len(kept))] = kept
    return result
