"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastdl as fd

from . import functional as F, init
from .module import Module
from .parameter import Parameter


class _BatchNorm(Module):
    weight: Parameter | None
    bias: Parameter | None
    running_mean: fd.Tensor | None
    running_var: fd.Tensor | None
    num_batches_tracked: fd.Tensor | None
    _ranks: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name in ("weight", "bias"):
            value = Parameter(fd.empty((num_features,), dtype=dtype, device=device)) if affine else None
            self.register_parameter(name, value)
        tracked = track_running_stats
        self.register_buffer("running_mean", fd.zeros((num_features,), dtype=dtype, device=device) if tracked else None)
        self.register_buffer("running_var", fd.ones((num_features,), dtype=dtype, device=device) if tracked else None)
        self.register_buffer("num_batches_tracked", fd.zeros((), dtype=fd.int64, device=device) if tracked else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            init.ones_(self.weight)
            init.zeros_(self.bias)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        if input.ndim not in self._ranks:
            needs = " or ".join(f"{r}-d" for r in self._ranks)
            raise fd.ShapeError(f"batch_norm: got shape {tuple(input.shape)}; {type(self).__name__} needs {needs} input")
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            with fd.no_grad():
                self.num_batches_tracked.add_(1)
            if self.momentum is None:  # cumulative average
                momentum = 1.0 / float(self.num_batches_tracked.item())
        by_batch = self.training or self.running_mean is None
        return fd.batch_norm(input, self.weight, self.bias, self.running_mean, self.running_var, by_batch, momentum, self.eps)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation (Ioffe and Szegedy, 2015) of (N, C) or (N, C, L); arguments as :class:`BatchNorm2d`."""

    _ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation (Ioffe and Szegedy, 2015) of (N, C, H, W).

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the newest batch in the running statistics; None: the average over all batches.
    affine : bool
        Whether there are `weight` and `bias`.
    track_running_stats : bool
        Without them, evaluation uses the batch's statistics too.
    device, dtype : optional

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> norm = nn.BatchNorm2d(3)
    >>> abs(norm(fd.random.normal((8, 3, 4, 4), 2.0, 3.0)).mean().item()) < 1e-5
    True
    """

    _ranks = (4,)


class LayerNorm(Module):
    """Layer normalisation (Ba et al., 2016) over the last dimensions.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Sizes of the dimensions normalised over.
    eps : float
        Added to the variance.
    elementwise_affine, bias : bool
        Whether there are `weight` and `bias` of that shape.
    device, dtype : optional

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.LayerNorm(4)(fd.ones((2, 3, 4))).shape
    (2, 3, 4)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        shape = self.normalized_shape
        affine = elementwise_affine
        self.register_parameter("weight", Parameter(fd.ones(shape, dtype=dtype, device=device)) if affine else None)
        self.register_parameter("bias", Parameter(fd.zeros(shape, dtype=dtype, device=device)) if affine and bias else None)

    def reset_parameters(self) -> None:
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """Group normalisation (Wu and He, 2018) of (N, C, ...): each example's channels in `num_groups` groups.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.GroupNorm(2, 6)(fd.ones((4, 6, 5, 5))).shape
    (4, 6, 5, 5)
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_channels {num_channels} must be divisible by num_groups {num_groups} >= 1")
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", Parameter(fd.ones((num_channels,), dtype=dtype, device=device)) if affine else None)
        self.register_parameter("bias", Parameter(fd.zeros((num_channels,), dtype=dtype, device=device)) if affine else None)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class _InstanceNorm(Module):
    _rank = 4

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if track_running_stats:
            raise NotImplementedError(f"{type(self).__name__}: track_running_stats=True is not supported")
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.register_parameter("weight", Parameter(fd.ones((num_features,), dtype=dtype, device=device)) if affine else None)
        self.register_parameter("bias", Parameter(fd.zeros((num_features,), dtype=dtype, device=device)) if affine else None)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        sizes = f"{self.num_features}, " + ("L" if self._rank == 3 else "H, W")
        if input.ndim not in (self._rank - 1, self._rank) or input.shape[1 - self._rank] != self.num_features:
            raise fd.ShapeError(f"instance_norm: got shape {tuple(input.shape)}; need (N, {sizes}) or ({sizes})")
        if input.ndim == self._rank - 1:
            return F.instance_norm(input[None], self.weight, self.bias, self.eps)[0]
        return F.instance_norm(input, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of sequences (N, C, L) or (C, L); arguments as :class:`InstanceNorm2d`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.InstanceNorm1d(2)(fd.array([[[1.0, 3.0], [5.0, 5.0]]])).round(3).tolist()
    [[[-1.0, 1.0], [0.0, 0.0]]]
    """

    _rank = 3


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation (Ulyanov et al., 2016) of (N, C, H, W) or (C, H, W) by each image's own statistics.

    As in PyTorch there are no parameters unless `affine=True`. Running statistics are not supported.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the variance.
    momentum : float
        Accepted and not used.
    affine : bool
        Whether there are `weight` and `bias`.
    track_running_stats : bool
        Must be False.
    device, dtype : optional

    Raises
    ------
    ShapeError
        When called with another number of channels or dimensions.
    NotImplementedError
        When `track_running_stats=True`.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.InstanceNorm2d(3)(fd.ones((2, 3, 4, 4))).shape
    (2, 3, 4, 4)
    """


class RMSNorm(Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimensions (Zhang and Sennrich, 2019).

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.RMSNorm(2, eps=0.0)(fd.array([[3.0, 3.0]])).tolist()
    [[1.0, 1.0]]
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        weight = Parameter(fd.ones(self.normalized_shape, dtype=dtype, device=device)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def forward(self, input: fd.Tensor) -> fd.Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
