"""Optimisers and schedules against PyTorch, and the promises around their state."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from torch_bridge import needs_torch, numpy, torch

import fastdl as fd
from fastdl import nn, optim
from fastdl.optim import lr_scheduler as ours_lr

theirs_lr = torch.optim.lr_scheduler if torch else None
SHAPES = [(7, 5), (5,), (3, 2, 2, 2), ()]

OPTIMISERS = [
    ("SGD", {"lr": 0.05}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.5, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "maximize": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.5, "alpha": 0.9, "eps": 1e-5}),
    ("Adagrad", {"lr": 0.05}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.01, "weight_decay": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-6}),
    ("Adagrad", {"lr": 0.05, "maximize": True}),
    ("Adadelta", {"lr": 1.0}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.01, "maximize": True}),
    ("NAdam", {"lr": 0.01}),
    ("NAdam", {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.01, "momentum_decay": 1.0}),
    ("NAdam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
]


def _grad(step: int, k: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.random.default_rng([step, k]).standard_normal(shape).astype(dtype)


def _set(dtype: str) -> tuple[list, list]:
    values = [np.random.default_rng(k).standard_normal(s).astype(dtype) for k, s in enumerate(SHAPES)]
    return [nn.Parameter(fd.array(v)) for v in values], [torch.nn.Parameter(torch.tensor(v)) for v in values]


def _step(optimisers: tuple, sets: tuple, step: int, dtype: str, skip: tuple[int, ...] = ()) -> None:
    for k, (p, q) in enumerate(zip(*sets, strict=True)):
        g = _grad(step, k, tuple(q.shape), dtype)
        p.grad, q.grad = (None, None) if k in skip else (fd.array(g), torch.tensor(g))
    for optimiser in optimisers:
        optimiser.step()


def _same(sets: tuple, dtype: str, steps: int = 100) -> None:
    eps = np.finfo(dtype).eps
    for p, q in zip(*sets, strict=True):
        np.testing.assert_allclose(numpy(p), numpy(q), rtol=eps * 8, atol=eps * steps)


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", OPTIMISERS, ids=lambda c: f"{c[0]}-{c[1]}")
def test_hundred_steps(case: tuple, dtype: str) -> None:
    name, settings = case
    sets = _set(dtype)
    pair = getattr(optim, name)(sets[0], **settings), getattr(torch.optim, name)(sets[1], **settings)
    for step in range(100):
        _step(pair, sets, step, dtype)
    _same(sets, dtype)


@needs_torch
@pytest.mark.parametrize("eps", [1e-8, 0.0, 1e-38])
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_gradients_of_any_size(name: str, eps: float) -> None:
    """Averages of squares that are zero, denormal or infinite, and gradients that are no numbers."""
    sizes = np.array([0.0, 1e-42, 1e-30, 1e-22, 1e-10, 1.0, 1e10, 1e18, 1e20, 1e25, 1e32, 3e38, np.inf, np.nan], "float32")
    g = np.concatenate([sizes, -sizes, np.ones(9, "float32")])  # more than two vectors
    p, q = nn.Parameter(fd.ones(g.shape)), torch.nn.Parameter(torch.ones(g.shape))
    pair = getattr(optim, name)([p], lr=0.01, eps=eps), getattr(torch.optim, name)([q], lr=0.01, eps=eps)
    for _ in range(3):
        p.grad, q.grad = fd.array(g), torch.tensor(g)
        for optimiser in pair:
            optimiser.step()
    np.testing.assert_allclose(numpy(p), numpy(q), rtol=1e-6)


@needs_torch
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
def test_parameters_without_gradient_are_skipped(name: str) -> None:
    sets = _set("float64")
    settings = {"momentum": 0.9} if name == "SGD" else {"weight_decay": 0.1}
    pair = getattr(optim, name)(sets[0], **settings), getattr(torch.optim, name)(sets[1], **settings)
    for step in range(60):
        _step(pair, sets, step, "float64", skip=(0,) if step < 20 else (1, 2) if 30 < step < 40 else ())
    _same(sets, "float64")
    ours, theirs = pair[0].state_dict(), pair[1].state_dict()
    if name != "SGD":
        assert [ours["state"][k]["step"] for k in range(4)] == [float(theirs["state"][k]["step"]) for k in range(4)]


@needs_torch
@pytest.mark.parametrize("case", OPTIMISERS, ids=lambda c: f"{c[0]}-{c[1]}")
def test_state_round_trip(case: tuple) -> None:
    name, settings = case
    sets = _set("float32")
    first, theirs = getattr(optim, name)(sets[0], **settings), getattr(torch.optim, name)(sets[1], **settings)
    for step in range(10):
        _step((first, theirs), sets, step, "float32", skip=(2,) if step == 4 else ())
    second = getattr(optim, name)(sets[0], lr=123.0)
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["lr"] == settings["lr"]
    for step in range(10, 30):
        _step((second, theirs), sets, step, "float32")
    _same(sets, "float32")


@needs_torch
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_state_from_torch(name: str) -> None:
    sets = _set("float64")
    ours, theirs = getattr(optim, name)(sets[0]), getattr(torch.optim, name)(sets[1])
    for step in range(5):
        _step((theirs,), sets, step, "float64")
    with fd.no_grad():
        for p, q in zip(*sets, strict=True):
            p.copy_(fd.array(numpy(q)))
    state = theirs.state_dict()
    arrays = {k: {n: v.numpy() if v.ndim or n != "step" else float(v) for n, v in e.items()} for k, e in state["state"].items()}
    known = ours.defaults
    groups = [{**{k: v for k, v in g.items() if k in known}, "params": g["params"]} for g in state["param_groups"]]
    ours.load_state_dict({"state": arrays, "param_groups": groups})
    for step in range(5, 10):
        _step((ours, theirs), sets, step, "float64")
    _same(sets, "float64")


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_copies_go_on_alike(clone: Callable, name: str) -> None:
    net = nn.Linear(3, 2)
    settings = {"momentum": 0.9} if name == "SGD" else {}
    pair = net, getattr(optim, name)([{"params": [net.weight], "lr": 0.1}, {"params": [net.bias]}], lr=0.01, **settings)

    def train(model: nn.Module, optimizer: optim.Optimizer) -> None:
        for k in range(5):
            optimizer.zero_grad()
            fd.square(model(fd.full((2, 3), 0.1 * k)) - 1).sum().backward()
            optimizer.step()

    train(*pair)
    other = clone(pair)
    assert other[1].param_groups[0]["params"][0] is other[0].weight
    train(*pair)
    train(*other)
    np.testing.assert_array_equal(numpy(pair[0].weight), numpy(other[0].weight))
    np.testing.assert_array_equal(numpy(pair[0].bias), numpy(other[0].bias))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_sixteen_bit_parameters(name: str, dtype: str) -> None:
    p = nn.Parameter(fd.ones((5,), dtype=dtype))
    q = nn.Parameter(fd.ones((5,)))
    pair = getattr(optim, name)([p], lr=0.01), getattr(optim, name)([q], lr=0.01)
    for k in range(10):
        p.grad = fd.full((5,), 0.5 + k, dtype=dtype)
        q.grad = fd.full((5,), 0.5 + k)
        for optimizer in pair:
            optimizer.step()
    assert p.dtype == dtype
    np.testing.assert_allclose(numpy(p.astype(fd.float32)), numpy(q), rtol=0.05)
    again = getattr(optim, name)([p])
    again.load_state_dict(pair[0].state_dict())


def test_state_that_does_not_fit_changes_nothing() -> None:
    (a, b), (c,) = [nn.Parameter(fd.ones((2,))), nn.Parameter(fd.ones((3,)))], [nn.Parameter(fd.ones((2,)))]
    two, one = optim.Adam([a, b], lr=0.5), optim.Adam([c], lr=0.25)
    with pytest.raises(ValueError, match="2 parameters"):
        one.load_state_dict(two.state_dict())
    a.grad = fd.ones((2,))
    two.step()
    state = two.state_dict()
    state["state"][0]["exp_avg"] = fd.ones((5,))
    with pytest.raises(ValueError, match=r"exp_avg: got shape \(5,\), need shape \(2,\)"):
        optim.Adam([nn.Parameter(fd.ones((2,))), b]).load_state_dict(state)
    assert one.param_groups[0]["lr"] == 0.25


@needs_torch
def test_groups_and_changes_of_settings() -> None:
    sets = _set("float64")
    split = [[{"params": s[:2], "lr": 0.1}, {"params": s[2:], "momentum": 0.5}] for s in sets]
    pair = optim.SGD(split[0], lr=0.01), torch.optim.SGD(split[1], lr=0.01)
    for step in range(20):
        for optimiser in pair:
            optimiser.param_groups[0]["lr"] = 0.1 / (step + 1)
        _step(pair, sets, step, "float64")
    _same(sets, "float64")
    pair[0].add_param_group({"params": nn.Parameter(fd.ones((2,))), "lr": 1.0})
    assert len(pair[0].param_groups) == 3
    with pytest.raises(ValueError, match="lr"):
        pair[0].param_groups[0]["lr"] = -1.0
    assert pair[0].param_groups[0]["lr"] == 0.1 / 20


def test_wrong_arguments() -> None:
    p = nn.Parameter(fd.ones((2,)))
    for error, make in (
        (ValueError, lambda: optim.SGD([])),
        (TypeError, lambda: optim.SGD(p)),
        (TypeError, lambda: optim.SGD([1.0])),
        (ValueError, lambda: optim.SGD([p, p])),
        (ValueError, lambda: optim.SGD([p * 2])),
        (ValueError, lambda: optim.SGD([p], lr=-1.0)),
        (ValueError, lambda: optim.SGD([p], lr=math.nan)),
        (ValueError, lambda: optim.SGD([p], nesterov=True)),
        (ValueError, lambda: optim.Adam([p], betas=(1.0, 0.9))),
        (ValueError, lambda: optim.RMSprop([p], eps=-1e-8)),
    ):
        with pytest.raises(error):
            make()


def test_closure_and_zero_grad() -> None:
    w = nn.Parameter(fd.array([1.0, 2.0]))
    optimiser = optim.SGD([w], lr=0.1)

    def closure() -> fd.Tensor:
        optimiser.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() == 5.0
    np.testing.assert_allclose(numpy(w), [0.8, 1.6], rtol=1e-6)
    optimiser.zero_grad(set_to_none=False)
    assert not numpy(w.grad).any()
    optimiser.zero_grad()
    assert w.grad is None


# ---- schedules -------------------------------------------------------------------------------------------------------

SCHEDULES = [
    ("StepLR", {"step_size": 30, "gamma": 0.7}),
    ("MultiStepLR", {"milestones": [20, 50, 50, 400], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 40}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 300}),
    ("LinearLR", {}),
    ("ExponentialLR", {"gamma": 0.99}),
    ("PolynomialLR", {"total_iters": 700, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 130, "eta_min": 1e-3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 30, "T_mult": 2, "eta_min": 1e-3}),
    ("CosineAnnealingWarmRestarts", {"T_0": 70}),
    ("LambdaLR", {"lr_lambda": lambda step: 1 / (1 + step)}),
    ("OneCycleLR", {"max_lr": 0.5, "total_steps": 1001}),
    ("OneCycleLR", {"max_lr": 0.5, "epochs": 13, "steps_per_epoch": 77, "three_phase": True, "anneal_strategy": "linear"}),
]


def _optimisers(lr: float = 0.1) -> tuple:
    return (
        optim.SGD([nn.Parameter(fd.ones((1,)))], lr=lr, momentum=0.9),
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr, momentum=0.9),
    )


def _rates(optimisers: tuple, schedulers: tuple, steps: int, *args: list) -> list[tuple]:
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(steps):
            rates.append(tuple((o.param_groups[0]["lr"], o.param_groups[0]["momentum"]) for o in optimisers))
            for scheduler in schedulers:
                scheduler.step(*[a[step] for a in args])
    return rates


@needs_torch
@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"{c[0]}-{list(c[1].items())}")
def test_schedule_for_a_thousand_steps(case: tuple) -> None:
    name, settings = case
    optimisers = _optimisers()
    schedulers = getattr(ours_lr, name)(optimisers[0], **settings), getattr(theirs_lr, name)(optimisers[1], **settings)
    for step, (a, b) in enumerate(_rates(optimisers, schedulers, 1000)):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12), f"step {step}"
    assert schedulers[0].get_last_lr() == [optimisers[0].param_groups[0]["lr"]]


@needs_torch
def test_sequential() -> None:
    optimisers = _optimisers()
    schedulers = []
    for module, optimiser in zip((ours_lr, theirs_lr), optimisers, strict=True):
        parts = [
            module.LinearLR(optimiser, 0.1, total_iters=20),
            module.CosineAnnealingLR(optimiser, 100),
            module.ExponentialLR(optimiser, 0.97),
        ]
        schedulers.append(module.SequentialLR(optimiser, parts, milestones=[20, 120]))
    for step, (a, b) in enumerate(_rates(optimisers, tuple(schedulers), 300)):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12), f"step {step}"


@needs_torch
@pytest.mark.parametrize(
    "settings", [{}, {"mode": "max", "threshold_mode": "abs", "threshold": 0.05, "cooldown": 3, "min_lr": 1e-3}]
)
def test_plateau(settings: dict) -> None:
    optimisers = _optimisers()
    values = list(np.random.default_rng(1).standard_normal(300).cumsum() / 10)
    schedulers = tuple(
        m.ReduceLROnPlateau(o, patience=4, factor=0.5, **settings) for m, o in zip((ours_lr, theirs_lr), optimisers, strict=True)
    )
    for a, b in _rates(optimisers, schedulers, 300, values):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", [c for c in SCHEDULES if c[0] != "LambdaLR"], ids=lambda c: f"{c[0]}-{list(c[1].items())}")
def test_schedule_resumes(case: tuple) -> None:
    name, settings = case
    first, second = (optim.SGD([nn.Parameter(fd.ones((1,)))], lr=0.1, momentum=0.9) for _ in range(2))
    a, b = getattr(ours_lr, name)(first, **settings), getattr(ours_lr, name)(second, **settings)
    for _ in range(37):
        a.step()
    b.load_state_dict(a.state_dict())
    for _ in range(20):
        assert first.param_groups[0]["lr"] == second.param_groups[0]["lr"]
        a.step()
        b.step()


# ---- clipping --------------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clip_grad_norm(norm_type: float, max_norm: float) -> None:
    sets = _set("float32")
    for k, (p, q) in enumerate(zip(*sets, strict=True)):
        g = _grad(0, k, tuple(q.shape), "float32")
        if k != 1:
            p.grad, q.grad = fd.array(g), torch.tensor(g)
    a = optim.clip_grad_norm_(sets[0], max_norm, norm_type)
    b = torch.nn.utils.clip_grad_norm_(sets[1], max_norm, norm_type)
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for p, q in zip(*sets, strict=True):
        if q.grad is not None:
            np.testing.assert_allclose(numpy(p.grad), numpy(q.grad), rtol=1e-5)


def test_clip_grad_value_and_nonfinite() -> None:
    p = nn.Parameter(fd.array([1.0, 2.0]))
    p.grad = fd.array([-5.0, 0.25])
    optim.clip_grad_value_([p], 1.0)
    assert p.grad.tolist() == [-1.0, 0.25]
    p.grad = fd.array([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert optim.clip_grad_norm_([nn.Parameter(fd.ones((1,)))], 1.0).item() == 0.0


def test_lion_is_its_formula() -> None:
    p = nn.Parameter(fd.array([0.5, -1.5, 2.0], dtype="float64"))
    want, m = np.array([0.5, -1.5, 2.0]), np.zeros(3)
    optimiser = optim.Lion([p], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(20):
        g = _grad(step, 0, (3,), "float64")
        p.grad = fd.array(g)
        optimiser.step()
        want = want * (1 - 0.01 * 0.1) - 0.01 * np.sign(0.9 * m + 0.1 * g)
        m = 0.95 * m + 0.05 * g
    np.testing.assert_allclose(numpy(p), want, rtol=1e-12)


@pytest.mark.parametrize("name", ["Adagrad", "Adadelta", "NAdam", "Lion"])
def test_composed_updates_are_captured_and_resume(name: str) -> None:
    def run(compiled: bool, resume: bool) -> np.ndarray:
        w = nn.Parameter(fd.array([1.0, -2.0, 3.0]))
        optimiser = getattr(optim, name)([w], lr=0.1)

        def step(x: fd.Tensor) -> fd.Tensor:
            optimiser.zero_grad()
            loss = fd.square(w * x).sum()
            loss.backward()
            optimiser.step()
            return loss

        step = fd.compile(step) if compiled else step
        for k in range(6):
            if k == 3:
                optimiser.param_groups[0]["lr"] = 0.03
            if k == 4 and resume:
                state = copy.deepcopy(optimiser.state_dict())
                optimiser = getattr(optim, name)([w], lr=1.0)
                optimiser.load_state_dict(state)
            step(fd.array([1.0, 0.5, 2.0 + k]))
        return w.detach().cpu().numpy()

    want = run(False, False)
    assert np.array_equal(run(True, False), want) and np.array_equal(run(False, True), want)
