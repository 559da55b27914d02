"""Layers as functions, under PyTorch's names and arguments. `inplace` is accepted and ignored: the results are the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import Tensor

from ._attention import scaled_dot_product_attention
from ._dropout import alpha_dropout, dropout, dropout1d, dropout2d, dropout3d, feature_alpha_dropout
from ._losses import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    cosine_similarity,
    cross_entropy,
    distillation_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    multi_margin_loss,
    multilabel_soft_margin_loss,
    nll_loss,
    pairwise_distance,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from ._sizes import Pair as _Pair, pair as _pair, single as _single
from ._upsampling import conv_transpose1d, conv_transpose2d, interpolate, pixel_shuffle, pixel_unshuffle

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "distillation_loss",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "embedding",
    "feature_alpha_dropout",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool2d",
    "mish",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "pixel_unshuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
]


# ---- activations -----------------------------------------------------------------------------------------------------------


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.relu(input)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.relu6(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return fd.leaky_relu(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return fd.elu(input, alpha)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    return fd.celu(input, alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.selu(input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), exactly ("none") or by the tanh formula ("tanh")."""
    if approximate == "none":
        return fd.gelu(input)
    if approximate == "tanh":
        return fd.gelu_tanh(input)
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh'; got {approximate!r}")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.silu(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.mish(input)


def sigmoid(input: Tensor) -> Tensor:
    return fd.sigmoid(input)


def tanh(input: Tensor) -> Tensor:
    return fd.tanh(input)


def logsigmoid(input: Tensor) -> Tensor:
    return fd.log_sigmoid(input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    return fd.softplus(input, beta, threshold)


def softsign(input: Tensor) -> Tensor:
    return fd.softsign(input)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    return fd.hardtanh(input, min_val, max_val)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.hardsigmoid(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    return fd.hardswish(input)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - fd.tanh(input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved by `lambd` towards zero; zero inside [-lambd, lambd]."""
    return fd.where(input > lambd, input - lambd, fd.where(input < -lambd, input + lambd, input * 0))


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], zero inside."""
    return fd.where((input >= -lambd) & (input <= lambd), fd.zeros_like(input), input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else `value`."""
    return fd.where(input <= threshold, fd.full_like(input, value), input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Leaky relu with a learnt slope: `weight` has one entry, or one per channel (axis 1)."""
    slope = weight.reshape((1, -1) + (1,) * (input.ndim - 2)) if weight.size > 1 and input.ndim > 1 else weight
    return fd.where(input > 0, input, slope * input)


def rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False, rng: Any = None
) -> Tensor:
    """Leaky relu whose slope is random in [lower, upper] in training, and their mean otherwise."""
    if not training:
        return fd.leaky_relu(input, (lower + upper) / 2)
    slope = fd.random.uniform(input.shape, lower, upper, dtype=input.dtype, rng=rng)
    return fd.where(input >= 0, input, slope * input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half along `dim`, gated by the sigmoid of the second."""
    size = input.shape[dim]
    if size % 2:
        raise fd.ShapeError(f"glu: size of dim {dim} must be even; got shape {tuple(input.shape)}")
    axis = dim % input.ndim
    lead = (slice(None),) * axis
    return input[(*lead, slice(0, size // 2))] * fd.sigmoid(input[(*lead, slice(size // 2, size))])


def softmax(input: Tensor, dim: int = -1) -> Tensor:
    return fd.softmax(input, dim)


def log_softmax(input: Tensor, dim: int = -1) -> Tensor:
    return fd.log_softmax(input, dim)


def softmin(input: Tensor, dim: int = -1) -> Tensor:
    return fd.softmax(-input, dim)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along `dim` (at least `eps`)."""
    if p == 2:
        norm = fd.sqrt(fd.square(input).sum(axis=dim, keepdims=True))
    else:
        norm = (abs(input) ** p).sum(axis=dim, keepdims=True) ** (1 / p)
    return input / fd.maximum(norm, eps)


# ---- linear, embedding, convolution ------------------------------------------------------------------------------------------


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input (..., in) @ weight (out, in).T + bias (out)."""
    return fd.linear(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y_o = x1 W_o x2 + b_o, for x1 (..., in1), x2 (..., in2), weight (out, in1, in2)."""
    out, in1, in2 = weight.shape
    if input1.shape[-1] != in1 or input2.shape[-1] != in2 or input1.shape[:-1] != input2.shape[:-1]:
        raise fd.ShapeError(
            f"bilinear: inputs {tuple(input1.shape)} and {tuple(input2.shape)} do not fit weight {tuple(weight.shape)}"
        )
    half = fd.matmul(input1, fd.reshape(fd.permute_dims(weight, (1, 0, 2)), (in1, out * in2)))
    half = fd.reshape(half, (*input1.shape[:-1], out, in2))
    y = (half * fd.expand_dims(input2, -2)).sum(axis=-1)
    return y if bias is None else y + bias


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` (num, dim) at the integer `input`; the row `padding_idx` gets no gradient."""
    rows = fd.take(weight, input, axis=0)
    if padding_idx is None:
        return rows
    padding_idx %= weight.shape[0]
    return fd.where(fd.expand_dims(fd.equal(input, padding_idx), -1), rows.detach(), rows)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 one-hot vectors along a new last axis; -1 takes the largest label + 1."""
    if num_classes == -1:
        num_classes = int(tensor.max().item()) + 1
    return fd.one_hot(tensor, num_classes, fd.int64)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair | str = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of (N, C, H, W) or (C, H, W) with weight (O, C / groups, KH, KW); padding may be "valid" or "same"."""
    if isinstance(padding, str):
        input, padding = _string_padding(input, padding, weight.shape[2:], _pair(stride), _pair(dilation))
    if input.ndim == 3:
        return fd.conv2d(input[None], weight, bias, stride, padding, dilation, groups)[0]
    return fd.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Pair = 1,
    padding: _Pair | str = 0,
    dilation: _Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution of (N, C, L) or (C, L) with weight (O, C / groups, K), as a 2-d one of height 1."""
    if isinstance(padding, str):
        input, padding = _string_padding(input, padding, weight.shape[2:], (_single(stride),), (_single(dilation),))
    row = fd.expand_dims(input, -2)
    y = conv2d(
        row,
        fd.expand_dims(weight, -2),
        bias,
        (1, _single(stride)),
        (0, _single(padding)),
        (1, _single(dilation)),
        groups,
    )
    return fd.squeeze(y, axis=-2)


def _string_padding(
    x: Tensor, padding: str, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Numbers for "valid" and "same"; where "same" needs more on one side, that side is padded here."""
    if padding == "valid":
        return x, (0,) * len(kernel)
    if padding != "same":
        raise ValueError(f"conv: padding must be a number, 'valid' or 'same'; got {padding!r}")
    if any(s != 1 for s in stride):
        raise ValueError(f"conv: padding='same' needs stride 1; got {tuple(stride)}")
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if any(t % 2 for t in total):
        x = fd.pad(x, [(0, 0)] * (x.ndim - len(total)) + [(0, t % 2) for t in total], 0.0)
    return x, tuple(t // 2 for t in total)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """Pad the last dimensions: (left, right, top, bottom, ...), the last dimension first.

    Parameters
    ----------
    input : Tensor
    pad : sequence of int
        Two numbers per dimension, starting from the last.
    mode : {"constant", "reflect", "replicate", "circular"}
    value : float
        For "constant".

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> F.pad(fd.array([[1.0, 2.0, 3.0]]), (2, 1), mode="reflect").tolist()
    [[3.0, 2.0, 1.0, 2.0, 3.0, 2.0]]
    """
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: got {len(pad)} numbers for {input.ndim} dimensions; need two per padded dimension")
    sides = [(int(pad[k]), int(pad[k + 1])) for k in range(0, len(pad), 2)]
    if mode == "constant":
        return fd.pad(input, [(0, 0)] * (input.ndim - len(sides)) + sides[::-1], value)
    numpy_modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode not in numpy_modes:
        raise ValueError(f"pad: mode must be 'constant', 'reflect', 'replicate' or 'circular'; got {mode!r}")
    for k, (before, after) in enumerate(sides):
        axis = input.ndim - 1 - k
        size = input.shape[axis]
        if min(before, after) < 0 or max(before, after) > {"reflect": size - 1, "circular": size}.get(mode, math.inf):
            raise ValueError(f"pad: {mode} padding ({before}, {after}) does not fit size {size} of axis {axis}")
        if before or after:  # which source element each padded place shows
            index = np.pad(np.arange(size), (before, after), mode=numpy_modes[mode])  # type: ignore[call-overload]
            input = fd.take(input, fd.asarray(index), axis=axis)
    return input


# ---- pooling -----------------------------------------------------------------------------------------------------------------


def max_pool2d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    if input.ndim == 3:
        return fd.max_pool2d(input[None], kernel_size, stride, padding, dilation, ceil_mode)[0]
    return fd.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode)


def avg_pool2d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    if input.ndim == 3:
        return avg_pool2d(input[None], kernel_size, stride, padding, ceil_mode, count_include_pad)[0]
    return fd.avg_pool2d(input, kernel_size, stride, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Mean over a grid of windows; None keeps a size."""
    if input.ndim == 3:
        return adaptive_avg_pool2d(input[None], output_size)[0]
    return fd.adaptive_avg_pool2d(input, _output_size(input, output_size))


def adaptive_max_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Maximum over a grid of windows; None keeps a size."""
    if input.ndim == 3:
        return adaptive_max_pool2d(input[None], output_size)[0]
    return fd.adaptive_max_pool2d(input, _output_size(input, output_size))


def _output_size(x: Tensor, size: Any) -> tuple[int, int]:
    sizes = (size, size) if size is None or isinstance(size, int) else tuple(size)
    return (x.shape[-2] if sizes[0] is None else sizes[0], x.shape[-1] if sizes[1] is None else sizes[1])


def max_pool1d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    dilation: _Pair = 1,
    ceil_mode: bool = False,
) -> Tensor:
    step = _single(kernel_size if stride is None else stride)
    args = ((1, _single(kernel_size)), (1, step), (0, _single(padding)), (1, _single(dilation)), ceil_mode)
    return fd.squeeze(max_pool2d(fd.expand_dims(input, -2), *args), axis=-2)


def avg_pool1d(
    input: Tensor,
    kernel_size: _Pair,
    stride: _Pair | None = None,
    padding: _Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    step = _single(kernel_size if stride is None else stride)
    args = ((1, _single(kernel_size)), (1, step), (0, _single(padding)), ceil_mode, count_include_pad)
    return fd.squeeze(avg_pool2d(fd.expand_dims(input, -2), *args), axis=-2)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    return fd.squeeze(adaptive_avg_pool2d(fd.expand_dims(input, -2), (1, _single(output_size))), axis=-2)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> Tensor:
    return fd.squeeze(adaptive_max_pool2d(fd.expand_dims(input, -2), (1, _single(output_size))), axis=-2)


# ---- normalisation and dropout ---------------------------------------------------------------------------------------------------


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) by the batch's statistics when training, by the running ones otherwise."""
    return fd.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)


def layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise over the last dimensions, whose sizes are `normalized_shape`."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if tuple(input.shape[-len(shape) :]) != shape:
        raise fd.ShapeError(f"layer_norm: got shape {tuple(input.shape)}; its last dimensions must be {shape}")
    return fd.layer_norm(input, weight, bias, len(shape), eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each of `num_groups` groups of channels (axis 1) of each example."""
    if input.ndim < 2 or num_groups < 1 or input.shape[1] % num_groups:
        raise fd.ShapeError(f"group_norm: got shape {tuple(input.shape)}; axis 1 must be divisible into {num_groups} groups")
    y = fd.layer_norm(fd.reshape(input, (input.shape[0], num_groups, -1)), None, None, 1, eps)
    y = fd.reshape(y, tuple(input.shape))
    per_channel = (1, -1) + (1,) * (input.ndim - 2)
    if weight is not None:
        y = y * fd.reshape(weight, per_channel)
    return y if bias is None else y + fd.reshape(bias, per_channel)


def instance_norm(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each example over its pixels."""
    return group_norm(input, input.shape[1], weight, bias, eps)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimensions; eps None is the dtype's epsilon."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if tuple(input.shape[-len(shape) :]) != shape:
        raise fd.ShapeError(f"rms_norm: got shape {tuple(input.shape)}; its last dimensions must be {shape}")
    if eps is None:
        eps = 2.0**-52 if input.dtype == fd.float64 else 2.0**-23
    axes = tuple(range(-len(shape), 0))
    y = input * fd.rsqrt(fd.square(input).mean(axis=axes, keepdims=True) + eps)
    return y if weight is None else y * weight
