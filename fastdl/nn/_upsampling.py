"""Making images and sequences larger: transposed convolution, interpolation, pixel shuffle."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

import fastdl as fd
from fastdl import Tensor

from ._sizes import Pair as _Pair, pair as _pair, single as _single


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
) -> Tensor:
    """Transposed convolution: the gradient of `conv2d` as a layer (Zeiler et al., 2010; Dumoulin and Visin, 2016).

    Parameters
    ----------
    input : Tensor
        (N, C, H, W) or (C, H, W).
    weight : Tensor
        (C, O / groups, KH, KW).
    bias : Tensor, optional
        (O,).
    stride, padding, dilation : int or pair of int
        Those of the convolution that goes the other way.
    output_padding : int or pair of int
        Rows and columns added at the end of the output; smaller than stride or dilation.
    groups : int

    Returns
    -------
    Tensor
        (N, O, OH, OW), OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.

    Raises
    ------
    ShapeError
        When input and weight do not fit, or nothing would be left.
    ValueError
        When output_padding is too large or groups is not a divisor.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> F.conv_transpose2d(fd.array([[[[1.0, 2.0]]]]), fd.ones((1, 1, 1, 2)), stride=(1, 2)).tolist()
    [[[[1.0, 1.0, 2.0, 2.0]]]]
    """
    if input.ndim == 3:
        return conv_transpose2d(input[None], weight, bias, stride, padding, output_padding, groups, dilation)[0]
    if input.ndim != 4 or weight.ndim != 4 or input.shape[1] != weight.shape[0]:
        raise fd.ShapeError(
            f"conv_transpose2d: got input {tuple(input.shape)} and weight {tuple(weight.shape)}; need (N, C, H, W) and (C, O / groups, KH, KW)"
        )
    if groups < 1 or input.shape[1] % groups:
        raise ValueError(f"conv_transpose2d: {input.shape[1]} channels do not divide into groups={groups}")
    s, p, extra, d = _pair(stride), _pair(padding), _pair(output_padding), _pair(dilation)
    if min(s) < 1 or min(d) < 1 or min(p) < 0:
        raise ValueError(f"conv_transpose2d: stride {s} and dilation {d} must be >= 1, padding {p} >= 0")
    if any(not 0 <= e < max(a, b) for e, a, b in zip(extra, s, d, strict=True)):
        raise ValueError(f"conv_transpose2d: output_padding {extra} must be >= 0 and smaller than stride {s} or dilation {d}")
    reach = [(n - 1) * a + b * (k - 1) + 1 for n, a, b, k in zip(input.shape[2:], s, d, weight.shape[2:], strict=True)]
    size = [r - 2 * q + e for r, q, e in zip(reach, p, extra, strict=True)]
    if min(size) < 1:
        raise fd.ShapeError(f"conv_transpose2d: the output of input {tuple(input.shape)} would be {size[0]} x {size[1]}; need at least 1 x 1")
    if any(e >= a for e, a in zip(extra, s, strict=True)):
        # A convolution of so large an image would have more outputs: make the whole image, then cut it out.
        y = fd.conv2d_backward_input(input, weight, s, 0, d, groups, reach)
        y = fd.pad(y, [(0, 0), (0, 0), *((0, max(0, e - q)) for e, q in zip(extra, p, strict=True))], 0.0)
        y = y[:, :, p[0] : p[0] + size[0], p[1] : p[1] + size[1]]
    else:
        y = fd.conv2d_backward_input(input, weight, s, p, d, groups, size)
    return y if bias is None else y + fd.reshape(bias, (1, -1, 1, 1))


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair = 0,
    output_padding: _Pair = 0,
    groups: int = 1,
    dilation: _Pair = 1,
) -> Tensor:
    """:func:`conv_transpose2d` of sequences (N, C, L) or (C, L) with weight (C, O / groups, K)."""
    if input.ndim not in (2, 3) or weight.ndim != 3:
        raise fd.ShapeError(
            f"conv_transpose1d: got input {tuple(input.shape)} and weight {tuple(weight.shape)}; need (N, C, L) and (C, O / groups, K)"
        )
    settings = [(1, _single(stride)), (0, _single(padding)), (0, _single(output_padding)), groups, (1, _single(dilation))]
    y = conv_transpose2d(fd.expand_dims(input, -2), fd.expand_dims(weight, -2), bias, *settings)  # type: ignore[arg-type]
    return fd.squeeze(y, axis=-2)


_RANKS = {"nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4), "linear": (3,), "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}


def interpolate(
    input: Tensor,
    size: _Pair | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Tensor:
    """Resize images or sequences (N, C, ...) to `size`, or by `scale_factor`.

    Parameters
    ----------
    input : Tensor
        (N, C, L), (N, C, H, W) or (N, C, D, H, W).
    size, scale_factor : number or sequence
        One of them, for all axes or each.
    mode : {"nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area"}
        "linear" is for sequences, "bilinear" and "bicubic" (Keys, 1981, a = -0.75) for images, "trilinear" for volumes.
    align_corners : bool, optional
        For the linear and cubic modes: whether the centres of the corner pixels stay where they are.
    recompute_scale_factor : bool, optional
        Use the ratio of the sizes in place of `scale_factor` to place the samples.

    Raises
    ------
    ShapeError, ValueError
        When mode, rank and sizes do not fit one another.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> F.interpolate(fd.array([[[1.0, 3.0]]]), scale_factor=2, mode="linear").tolist()
    [[[1.0, 1.5, 2.5, 3.0]]]
    """
    if mode not in _RANKS:
        raise ValueError(f"interpolate: mode must be one of {', '.join(_RANKS)}; got {mode!r}")
    if input.ndim not in _RANKS[mode]:
        raise fd.ShapeError(f"interpolate: mode {mode!r} needs {' or '.join(f'{r}-d' for r in _RANKS[mode])} input; got shape {tuple(input.shape)}")
    smooth = mode not in ("nearest", "nearest-exact", "area")
    if align_corners is not None and not smooth:
        raise ValueError(f"interpolate: align_corners is for the linear and cubic modes; got mode {mode!r}")
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: need one of size and scale_factor")
    rank = input.ndim - 2
    scales: Sequence[float | None] = [None] * rank
    if size is not None:
        sizes = [size] * rank if isinstance(size, int) else [int(n) for n in size]
    else:
        factors = [float(scale_factor)] * rank if isinstance(scale_factor, (int, float)) else [float(f) for f in scale_factor or ()]
        sizes = [int(n * f) for n, f in zip(input.shape[2:], factors, strict=False)]
        scales = scales if recompute_scale_factor else factors
    if len(sizes) != rank or min(sizes) < 1:
        raise ValueError(f"interpolate: need {rank} sizes >= 1 for input {tuple(input.shape)}; got {sizes}")
    if mode == "area":
        y = fd.adaptive_avg_pool2d(input if rank == 2 else fd.expand_dims(input, 2), sizes if rank == 2 else [1, *sizes])
        return y if rank == 2 else fd.squeeze(y, axis=2)
    for k, (n, factor) in enumerate(zip(sizes, scales, strict=True)):
        axis, old = 2 + k, input.shape[2 + k]
        if smooth:
            if n != old or (factor is not None and factor != 1):
                table = fd.asarray(_mixing(old, n, mode == "bicubic", bool(align_corners), factor)).astype(input.dtype).to(input.device)
                input = fd.swapaxes(fd.matmul(fd.swapaxes(input, axis, -1), table), axis, -1)
        elif n != old or (factor is not None and factor != 1):
            input = fd.take(input, fd.asarray(_nearest(old, n, mode == "nearest-exact", factor)).to(input.device), axis=axis)
    return input


@functools.lru_cache(maxsize=64)
def _nearest(old: int, new: int, exact: bool, factor: float | None) -> np.ndarray:
    """Which of `old` pixels each of `new` shows. In float32, as in PyTorch: the last bit decides between neighbours."""
    step = np.float32(old / new if factor is None else 1 / factor)
    place = np.arange(new, dtype=np.float32)
    if exact:  # rounded after a fused multiply-add, and once more
        fused = ((place + 0.5) * np.float64(step) - 0.5).astype(np.float32)
        place = (np.maximum(fused, 0).astype(np.float64) + 0.5).astype(np.float32)
    else:
        place = place * step
    return np.minimum(np.floor(place).astype(np.int64), old - 1)


@functools.lru_cache(maxsize=64)
def _mixing(old: int, new: int, cubic: bool, align: bool, factor: float | None) -> np.ndarray:
    """(old, new): how much of each old pixel is in each new one."""
    if align:
        place = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        place = (np.arange(new) + 0.5) * (old / new if factor is None else 1 / factor) - 0.5
    if not cubic:
        place = np.maximum(place, 0)
    first = np.floor(place).astype(int)
    part = place - first
    if cubic:
        a = -0.75
        near, far = lambda t: ((a + 2) * t - (a + 3)) * t * t + 1, lambda t: ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        shares = {-1: far(part + 1), 0: near(part), 1: near(1 - part), 2: far(2 - part)}
    else:
        shares = {0: 1 - part, 1: part}
    table = np.zeros((old, new))
    for shift, share in shares.items():
        np.add.at(table, (np.clip(first + shift, 0, old - 1), np.arange(new)), share)
    return table


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(N, C r^2, H, W) -> (N, C, H r, W r): channels become pixels (Shi et al., 2016).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> F.pixel_shuffle(fd.arange(4.0).reshape(1, 4, 1, 1), 2).tolist()
    [[[[0.0, 1.0], [2.0, 3.0]]]]
    """
    r = int(upscale_factor)
    if r < 1 or input.ndim < 3 or input.shape[-3] % (r * r):
        raise fd.ShapeError(f"pixel_shuffle: got shape {tuple(input.shape)}; need (..., C, H, W) with C divisible by {upscale_factor} squared")
    *lead, c, h, w = input.shape
    n = len(lead)
    y = fd.reshape(input, (*lead, c // (r * r), r, r, h, w))
    y = fd.permute_dims(y, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return fd.reshape(y, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(N, C, H r, W r) -> (N, C r^2, H, W): the inverse of :func:`pixel_shuffle`."""
    r = int(downscale_factor)
    if r < 1 or input.ndim < 3 or input.shape[-1] % r or input.shape[-2] % r:
        raise fd.ShapeError(f"pixel_unshuffle: got shape {tuple(input.shape)}; need (..., C, H, W) with H and W divisible by {downscale_factor}")
    *lead, c, h, w = input.shape
    n = len(lead)
    y = fd.reshape(input, (*lead, c, h // r, r, w // r, r))
    y = fd.permute_dims(y, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return fd.reshape(y, (*lead, c * r * r, h // r, w // r))
