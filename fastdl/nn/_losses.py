"""Losses as functions, under PyTorch's names and arguments; `functional` re-exports them, `loss` wraps them in modules."""

from __future__ import annotations

import math

import fastdl as fd
from fastdl import Tensor


def _reduce(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")


def _same_shape(name: str, input: Tensor, target: Tensor) -> None:
    """Losses never broadcast: (N, 1) against (N,) would silently compare every pair."""
    if input.shape != target.shape:
        raise fd.ShapeError(f"{name}: input is {tuple(input.shape)} but target is {tuple(target.shape)}; need equal shapes")


def mse_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(input - target)^2."""
    _same_shape("mse_loss", input, target)
    return _reduce(fd.square(input - target), reduction)


def l1_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """|input - target|."""
    _same_shape("l1_loss", input, target)
    return _reduce(abs(input - target), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
    if beta < 0:
        raise ValueError(f"smooth_l1_loss: beta must be >= 0; got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    _same_shape("smooth_l1_loss", input, target)
    d = abs(input - target)
    return _reduce(fd.where(d < beta, fd.square(d) * (0.5 / beta), d - 0.5 * beta), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2)."""
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be > 0; got {delta}")
    _same_shape("huber_loss", input, target)
    d = abs(input - target)
    return _reduce(fd.where(d <= delta, 0.5 * fd.square(d), delta * (d - 0.5 * delta)), reduction)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """-(t log(p) + (1 - t) log(1 - p)); logarithms are cut at -100, as in PyTorch."""
    _same_shape("binary_cross_entropy", input, target)
    loss = -(target * fd.maximum(fd.log(input), -100.0) + (1 - target) * fd.maximum(fd.log1p(-input), -100.0))
    return _reduce(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None
) -> Tensor:
    """Binary cross entropy of sigmoid(input), without overflow."""
    _same_shape("binary_cross_entropy_with_logits", input, target)
    if pos_weight is None:
        loss = (1 - target) * input - fd.log_sigmoid(input)
    else:
        loss = (1 - target) * input - (1 + (pos_weight - 1) * target) * fd.log_sigmoid(input)
    return _reduce(loss if weight is None else loss * weight, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy between logits and classes.

    Parameters
    ----------
    input : Tensor
        Logits (N, C), (C,) or (N, C, d1, ...).
    target : Tensor
        Class numbers (N), () or (N, d1, ...), or probabilities of the shape of `input`.
    weight : Tensor, optional
        Weight of each class (C).
    ignore_index : int
        Targets that count for nothing.
    reduction : {"mean", "sum", "none"}
        The mean is over the targets that count (their weights, when there are weights).
    label_smoothing : float
        Part of each target's probability, in [0, 1], that is spread evenly over all classes.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> F.cross_entropy(fd.zeros((2, 4)), fd.array([1, 3])).item()
    1.38629...
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1]; got {label_smoothing}")
    if input.ndim == 0:
        raise fd.ShapeError("cross_entropy: logits are 0-d; need (C,), (N, C) or (N, C, d1, ...)")
    if target.shape == input.shape and "float" in str(target.dtype):
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    if input.ndim == 2:
        if target.ndim != 1 or target.shape[0] != input.shape[0]:
            raise fd.ShapeError(f"cross_entropy: logits are {tuple(input.shape)} but target is {tuple(target.shape)}; need (N,)")
    else:
        need = input.shape[:1] + input.shape[2:] if input.ndim > 1 else ()
        if tuple(target.shape) != tuple(need):
            raise fd.ShapeError(
                f"cross_entropy: logits are {tuple(input.shape)} but target is {tuple(target.shape)}; need {tuple(need)}"
            )
    if weight is not None:
        return _weighted_cross_entropy(input, target, weight, ignore_index, reduction, label_smoothing)
    rows = input if input.ndim == 2 else _as_rows(input)
    labels = target if target.ndim == 1 else fd.reshape(target, (-1,))
    loss = fd.cross_entropy(rows, labels, label_smoothing=label_smoothing, ignore_index=ignore_index)
    if reduction == "mean":
        return loss.sum() / fd.sum(fd.not_equal(labels, ignore_index), dtype=loss.dtype)
    loss = loss if target.ndim == 1 else fd.reshape(loss, tuple(target.shape))
    return _reduce(loss, reduction)


def _as_rows(input: Tensor) -> Tensor:
    """(C,) or (N, C, d1, ...) as (rows, C)."""
    if input.ndim == 1:
        return fd.reshape(input, (1, -1))
    return fd.reshape(fd.moveaxis(input, 1, -1), (-1, input.shape[1]))


def _soft_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float) -> Tensor:
    axis = 1 if input.ndim > 1 else 0
    classes = input.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    logp = fd.log_softmax(input, axis=axis)
    if weight is not None:
        logp = logp * fd.reshape(weight, (-1,) + (1,) * (input.ndim - 1 - axis))
    loss = -(target * logp).sum(axis=axis)
    if reduction == "mean":
        return loss.sum() / max(1, loss.size)
    return _reduce(loss, reduction)


def _weighted_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor, ignore_index: int, reduction: str, label_smoothing: float
) -> Tensor:
    axis = 1 if input.ndim > 1 else 0
    logp = fd.log_softmax(input, axis=axis)
    loss = nll_loss(logp, target, weight, ignore_index, "none")
    kept = fd.not_equal(target, ignore_index)
    total = (fd.take(weight, fd.where(kept, target, 0), axis=0) * kept).sum()
    if label_smoothing:
        classes = input.shape[axis]
        per_class = fd.reshape(weight, (-1,) + (1,) * (input.ndim - 1 - axis))
        smooth = -(logp * per_class).sum(axis=axis) * kept
        loss = (1 - label_smoothing) * loss + (label_smoothing / classes) * smooth
    return loss.sum() / total if reduction == "mean" else _reduce(loss, reduction)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[n, target[n]] for log-probabilities (N, C), (C,) or (N, C, d1, ...)."""
    axis = 1 if input.ndim > 1 else 0
    need = tuple(input.shape[:axis]) + tuple(input.shape[axis + 1 :])
    if tuple(target.shape) != need:
        raise fd.ShapeError(f"nll_loss: input is {tuple(input.shape)} but target is {tuple(target.shape)}; need {need}")
    kept = fd.not_equal(target, ignore_index)
    safe = fd.where(kept, target, 0)
    picked = fd.squeeze(fd.take_along_axis(input, fd.expand_dims(safe, axis), axis=axis), axis=axis)
    scale = kept.astype(input.dtype)
    if weight is not None:
        scale = scale * fd.take(weight, safe, axis=0)
    loss = -picked * scale
    return loss.sum() / scale.sum() if reduction == "mean" else _reduce(loss, reduction)


def kl_div(input: Tensor, target: Tensor, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target * (log(target) - input): input holds log-probabilities; "batchmean" divides the sum by the batch size."""
    _same_shape("kl_div", input, target)
    if log_target:
        loss = fd.exp(target) * (target - input)
    else:
        positive = target > 0  # 0 log 0 is 0
        loss = fd.where(positive, target * fd.log(fd.where(positive, target, 1.0)), 0.0) - target * input
    if reduction == "batchmean":
        return loss.sum() / input.shape[0]
    return _reduce(loss, reduction)


def distillation_loss(
    input: Tensor, teacher: Tensor, target: Tensor | None = None, temperature: float = 2.0, alpha: float = 0.5, reduction: str = "mean"
) -> Tensor:
    """What a student learns from a teacher's logits and, in part, from the true classes (Hinton, Vinyals and Dean, 2015).

    Parameters
    ----------
    input, teacher : Tensor
        Logits (N, C); the teacher's get no gradient.
    target : Tensor, optional
        Classes (N) or probabilities (N, C); without them only the teacher counts.
    temperature : float
        Both softmaxes are of logits / temperature; the divergence is scaled by its square, so that gradients keep their size.
    alpha : float
        Weight of the teacher, in [0, 1]; the cross entropy with `target` has 1 - alpha.
    reduction : {"mean", "sum", "none"}
        Over the rows.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl.nn import functional as F
    >>> z = fd.array([[2.0, 0.0, -1.0]])
    >>> F.distillation_loss(z, z).item()
    0.0
    """
    _same_shape("distillation_loss", input, teacher)
    if input.ndim != 2:
        raise fd.ShapeError(f"distillation_loss: logits are {tuple(input.shape)}; need (N, C)")
    if not temperature > 0 or not 0 <= alpha <= 1:
        raise ValueError(f"distillation_loss: need temperature > 0 and alpha in [0, 1]; got {temperature} and {alpha}")
    soft = fd.log_softmax(teacher.detach() / temperature, 1)
    loss = kl_div(fd.log_softmax(input / temperature, 1), soft, "none", log_target=True).sum(axis=1) * temperature**2
    if target is not None:
        loss = alpha * loss + (1 - alpha) * cross_entropy(input, target, reduction="none")
    return _reduce(loss, reduction)


def soft_margin_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), targets -1 and 1."""
    _same_shape("soft_margin_loss", input, target)
    return _reduce(-fd.log_sigmoid(target * input), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0, reduction: str = "mean") -> Tensor:
    """input where target is 1, max(0, margin - input) where it is -1."""
    _same_shape("hinge_embedding_loss", input, target)
    zero = fd.zeros_like(input)
    loss = fd.where(fd.not_equal(target, 1), fd.relu(margin - input), zero)
    return _reduce(loss + fd.where(fd.not_equal(target, -1), input, zero), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    return _reduce(fd.relu(-target * (input1 - input2) + margin), reduction)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (|x1| |x2|) along `dim`, norms at least `eps`."""
    norm1 = fd.maximum(fd.sqrt(fd.square(x1).sum(axis=dim)), eps)
    norm2 = fd.maximum(fd.sqrt(fd.square(x2).sum(axis=dim)), eps)
    return (x1 * x2).sum(axis=dim) / (norm1 * norm2)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: str = "mean") -> Tensor:
    """1 - cos(input1, input2) where target is 1, max(0, cos - margin) where it is -1; inputs (N, D) or (D,)."""
    squares = [(x * x).sum(axis=-1) + 2.2e-16 for x in (input1, input2)]
    cosine = (input1 * input2).sum(axis=-1) / fd.sqrt(squares[0] * squares[1])
    if cosine.shape != target.shape:
        raise fd.ShapeError(f"cosine_embedding_loss: target is {tuple(target.shape)}; need {tuple(cosine.shape)}")
    zero = fd.zeros_like(cosine)
    loss = fd.where(fd.equal(target, 1), 1 - cosine, zero) + fd.where(fd.equal(target, -1), fd.relu(cosine - margin), zero)
    return _reduce(loss, reduction)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """p-norm of x1 - x2 + eps along the last axis."""
    d = x1 - x2 + eps
    if p == 2:
        return fd.sqrt(fd.square(d).sum(axis=-1, keepdims=keepdim))
    return (abs(d) ** p).sum(axis=-1, keepdims=keepdim) ** (1 / p)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    near = pairwise_distance(anchor, positive, p, eps)
    far = pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = fd.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduce(fd.relu(near - far + margin), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """sum over the other classes of max(0, margin - x[target] + x[j])^p, divided by the number of classes; input (N, C)."""
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p must be 1 or 2; got {p}")
    if input.ndim != 2 or target.ndim != 1 or target.shape[0] != input.shape[0]:
        raise fd.ShapeError(f"multi_margin_loss: got {tuple(input.shape)} and {tuple(target.shape)}; need (N, C) and (N,)")
    own = fd.expand_dims(target, 1)
    gap = fd.relu(margin - fd.take_along_axis(input, own, axis=1) + input)
    gap = gap if p == 1 else fd.square(gap)
    if weight is not None:
        gap = gap * fd.take(weight, own, axis=0)
    others = fd.not_equal(fd.arange(input.shape[1], device=input.device), own)
    return _reduce(fd.where(others, gap, 0.0).sum(axis=1) / input.shape[1], reduction)


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """Binary cross entropy of every class, averaged over the classes (last axis)."""
    _same_shape("multilabel_soft_margin_loss", input, target)
    loss = -(target * fd.log_sigmoid(input) + (1 - target) * fd.log_sigmoid(-input))
    if weight is not None:
        loss = loss * weight
    return _reduce(loss.mean(axis=-1), reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, eps: float = 1e-8, reduction: str = "mean"
) -> Tensor:
    """exp(input) - target * input (log_input), or input - target * log(input + eps); `full` adds Stirling's term."""
    _same_shape("poisson_nll_loss", input, target)
    loss = fd.exp(input) - target * input if log_input else input - target * fd.log(input + eps)
    if full:
        safe = fd.where(target > 1, target, 1.0)
        stirling = safe * fd.log(safe) - safe + 0.5 * fd.log(2 * math.pi * safe)
        loss = loss + fd.where(target > 1, stirling, 0.0)
    return _reduce(loss, reduction)


def gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6, reduction: str = "mean"
) -> Tensor:
    """(log(var) + (input - target)^2 / var) / 2; `var` is kept at least `eps`."""
    _same_shape("gaussian_nll_loss", input, target)
    safe = var + fd.maximum(eps - var, 0.0).detach()  # clamped value, gradient as if it were not
    loss = 0.5 * (fd.log(safe) + fd.square(input - target) / safe)
    return _reduce(loss + 0.5 * math.log(2 * math.pi) if full else loss, reduction)
