"""Losses against PyTorch: values and gradients for every reduction."""

from __future__ import annotations

import numpy as np
import pytest
from torch_bridge import close, compare, needs_torch, pair, torch

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F

rng = np.random.default_rng(11)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return rng.uniform(0.05, 0.95, shape).astype(np.float32)


def sign(*shape: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape).astype(np.float32)


def distribution(*shape: int) -> np.ndarray:
    x = positive(*shape)
    return (x / x.sum(-1, keepdims=True)).astype(np.float32)


# name, settings, inputs; every input is differentiated
CASES = [
    ("MSELoss", {}, [normal(4, 5), normal(4, 5)]),
    ("L1Loss", {}, [normal(4, 5), normal(4, 5)]),
    ("SmoothL1Loss", {"beta": 0.5}, [normal(4, 5), normal(4, 5)]),
    ("SmoothL1Loss", {"beta": 0.0}, [normal(4, 5), normal(4, 5)]),
    ("HuberLoss", {"delta": 0.7}, [normal(4, 5), normal(4, 5)]),
    ("BCELoss", {}, [positive(4, 5), positive(4, 5)]),
    ("BCEWithLogitsLoss", {}, [3 * normal(4, 5), positive(4, 5)]),
    ("KLDivLoss", {}, [np.log(distribution(4, 5)), distribution(4, 5)]),
    ("KLDivLoss", {"log_target": True}, [np.log(distribution(4, 5)), np.log(distribution(4, 5))]),
    ("PoissonNLLLoss", {}, [normal(4, 5), 5 * positive(4, 5)]),
    ("PoissonNLLLoss", {"log_input": False, "full": True}, [positive(4, 5), 5 * positive(4, 5)]),
    ("TripletMarginLoss", {}, [normal(4, 5), normal(4, 5), normal(4, 5)]),
    ("TripletMarginLoss", {"margin": 2.0, "p": 3.0, "swap": True}, [normal(4, 5), normal(4, 5), normal(4, 5)]),
    ("MultiLabelSoftMarginLoss", {}, [normal(4, 5), positive(4, 5).round()]),
]
# the last input is not differentiated
LABELLED = [
    ("SoftMarginLoss", {}, [normal(4, 5)], sign(4, 5)),
    ("HingeEmbeddingLoss", {"margin": 0.8}, [normal(4, 5)], sign(4, 5)),
    ("MarginRankingLoss", {"margin": 0.3}, [normal(6), normal(6)], sign(6)),
    ("CosineEmbeddingLoss", {"margin": 0.1}, [normal(6, 4), normal(6, 4)], sign(6)),
    ("MultiMarginLoss", {}, [normal(6, 4)], rng.integers(0, 4, 6)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5}, [normal(6, 4)], rng.integers(0, 4, 6)),
    ("CrossEntropyLoss", {}, [normal(6, 4)], rng.integers(0, 4, 6)),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}, [normal(6, 4)], rng.integers(0, 4, 6)),
    ("CrossEntropyLoss", {"ignore_index": 2}, [normal(8, 4)], np.array([0, 2, 1, 3, 2, 2, 0, 1])),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 2}, [normal(8, 4)], np.array([0, 2, 1, 3, 2, 2, 0, 1])),
    ("CrossEntropyLoss", {}, [normal(4, 3)], np.array([0, -100, 1, -100])),
    ("CrossEntropyLoss", {}, [normal(4, 5, 3)], rng.integers(0, 5, (4, 3))),
    ("CrossEntropyLoss", {}, [normal(2, 5, 3, 4)], rng.integers(0, 5, (2, 3, 4))),
    ("CrossEntropyLoss", {}, [normal(5)], np.array(3)),
    ("CrossEntropyLoss", {}, [normal(6, 4)], distribution(6, 4)),
    ("CrossEntropyLoss", {"label_smoothing": 0.3}, [normal(6, 4)], distribution(6, 4)),
    ("NLLLoss", {}, [normal(6, 4)], rng.integers(0, 4, 6)),
    ("NLLLoss", {"ignore_index": 1}, [normal(2, 4, 3)], rng.integers(0, 4, (2, 3))),
]
WEIGHTED = [
    ("CrossEntropyLoss", {}, normal(8, 4), np.array([0, 2, 1, 3, 2, 2, 0, 1])),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 2}, normal(8, 4), np.array([0, 2, 1, 3, 2, 2, 0, 1])),
    ("CrossEntropyLoss", {}, normal(8, 4), distribution(8, 4)),
    ("NLLLoss", {"ignore_index": 3}, normal(2, 4, 3), rng.integers(0, 4, (2, 3))),
    ("MultiMarginLoss", {}, normal(6, 4), rng.integers(0, 4, 6)),
]


@needs_torch
@pytest.mark.filterwarnings("ignore:reduction")  # torch's advice about kl_div
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def test_loss(case: tuple, reduction: str) -> None:
    name, settings, inputs = case
    ours, theirs = (getattr(n, name)(reduction=reduction, **settings) for n in (nn, torch.nn))
    compare(ours, theirs, inputs, work=20.0)


@needs_torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", LABELLED, ids=lambda c: f"{c[0]}-{c[1]}-{c[2][0].shape}")
def test_loss_with_labels(case: tuple, reduction: str) -> None:
    name, settings, inputs, labels = case
    ours, theirs = (getattr(n, name)(reduction=reduction, **settings) for n in (nn, torch.nn))
    compare(lambda *x: ours(*x, fd.asarray(labels)), lambda *x: theirs(*x, torch.tensor(labels)), inputs, work=20.0, modules=False)


@needs_torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("case", WEIGHTED, ids=lambda c: f"{c[0]}-{c[1]}")
def test_class_weights(case: tuple, reduction: str) -> None:
    name, settings, x, labels = case
    weight = np.array([0.5, 2.0, 1.0, 0.1], np.float32)
    ours = getattr(nn, name)(weight=fd.array(weight), reduction=reduction, **settings)
    theirs = getattr(torch.nn, name)(weight=torch.tensor(weight), reduction=reduction, **settings)
    compare(lambda a: ours(a, fd.asarray(labels)), lambda a: theirs(a, torch.tensor(labels)), [x], work=20.0, modules=False)


@needs_torch
def test_pos_weight_and_weight() -> None:
    w, p = positive(5), 3 * positive(5)
    ours = nn.BCEWithLogitsLoss(weight=fd.array(w), pos_weight=fd.array(p))
    theirs = torch.nn.BCEWithLogitsLoss(weight=torch.tensor(w), pos_weight=torch.tensor(p))
    compare(ours, theirs, [normal(4, 5), positive(4, 5)], work=20.0, modules=False)
    compare(nn.BCELoss(weight=fd.array(w)), torch.nn.BCELoss(weight=torch.tensor(w)), [positive(4, 5), positive(4, 5)], work=20.0)


@needs_torch
@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll(full: bool) -> None:
    compare(
        nn.GaussianNLLLoss(full=full), torch.nn.GaussianNLLLoss(full=full), [normal(4, 5), normal(4, 5), positive(4, 5)], work=20
    )


@needs_torch
def test_kl_batchmean() -> None:
    inputs = [np.log(distribution(4, 5)), distribution(4, 5)]
    compare(nn.KLDivLoss("batchmean"), torch.nn.KLDivLoss(reduction="batchmean"), inputs, work=20.0)


@needs_torch
def test_extreme_logits_stay_finite() -> None:
    x = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    T = torch.nn.functional
    ours, theirs = pair(x)
    a, b = F.cross_entropy(ours, fd.array([1, 1])), T.cross_entropy(theirs, torch.tensor([1, 1]))
    close(a, b, "cross entropy")
    y = np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)
    close(
        F.binary_cross_entropy_with_logits(fd.array(x), fd.array(y)),
        T.binary_cross_entropy_with_logits(torch.tensor(x), torch.tensor(y)),
        "bce",
    )
    p = np.array([0.0, 1.0, 0.5], np.float32)
    close(
        F.binary_cross_entropy(fd.array(p), fd.array(1 - p)),
        T.binary_cross_entropy(torch.tensor(p), torch.tensor(1 - p)),
        "bce at 0 and 1",
    )


def test_all_ignored_is_nan_as_in_torch() -> None:
    assert np.isnan(F.cross_entropy(fd.ones((2, 3)), fd.array([-100, -100])).item())


def test_shapes_are_never_broadcast() -> None:
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.binary_cross_entropy, F.kl_div):
        with pytest.raises(fd.ShapeError, match=r"\(4, 1\).*\(4,\)"):
            loss(fd.ones((4, 1)), fd.ones((4,)))
    with pytest.raises(fd.ShapeError):
        F.cross_entropy(fd.ones((4, 3)), fd.array([0, 1, 2]))
    with pytest.raises(IndexError):
        F.cross_entropy(fd.ones((2, 3)), fd.array([0, 3])).item()
    with pytest.raises(ValueError):
        F.mse_loss(fd.ones(2), fd.ones(2), reduction="average")
