"""Every differentiable op: gradients by finite differences in float64, second order for the smooth ones."""

from __future__ import annotations

import numpy as np
import pytest
import samples_layers  # noqa: F401
from common import raw, rng_for, values
from samples import SAMPLES

import fastdl as fd
from fastdl.op import STANZAS, has_body

STEP = 1e-6
ELEMENTWISE_SIZES = ((5,), (2, 3))

# Backward kernels whose own gradient is not offered: create_graph differentiates the forward formula instead, so they never occur in a
# graph. In-place and integer-valued ops have no gradient by nature.
NO_GRADIENT = {
    "layer_norm_backward", "batch_norm_backward", "cross_entropy_backward", "attention_backward", "lstm_cell_backward", "gru_cell_backward",
    "fill", "index_put", "index_get", "nonzero", "one_hot", "random_bits", "random_uniform", "random_normal", "random_integers",
    "sgd_step", "adam_step", "rmsprop_step", "any", "all", "argmax", "argmin",
    "isnan", "isinf", "isfinite", "signbit", "logical_not", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal",
    "logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "left_shift", "right_shift",
}  # fmt: skip
ZERO_GRADIENT = {"sign", "floor", "ceil", "trunc", "round", "floor_divide"}  # piecewise constant


def sizes_of(s):
    return ELEMENTWISE_SIZES if s.elementwise else s.grad_sizes


CASES = [(n, size, arg) for n, s in SAMPLES.items() for size in sizes_of(s) for arg in s.grad]


def place(name, size, arg):
    """The function of one argument, that argument, and the others fixed; everything in float64."""
    s = SAMPLES[name]
    args = [fd.array(a) if isinstance(a, np.ndarray) else [fd.array(x) for x in a] if isinstance(a, list) and isinstance(a[0], np.ndarray) else a for a in s.make(rng_for(name, size), size)]
    listed = isinstance(args[arg], list)
    x = args[arg][1] if listed else args[arg]

    def f(v):
        call = list(args)
        call[arg] = [call[arg][0], v, *call[arg][2:]] if listed else v
        y = getattr(raw, name)(*call)
        return y if isinstance(y, tuple) else (y,)

    return f, x


def project(f, weights):
    """Sum of the outputs times fixed weights: a scalar that sees every output."""

    def g(v):
        total = 0.0
        for y, w in zip(f(v), weights):
            total = total + (y * w).sum()
        return total

    return g


def slope(f, x, direction):
    with fd.no_grad():
        return (f(x + direction * STEP).item() - f(x - direction * STEP).item()) / (2 * STEP)


@pytest.mark.parametrize("name,size,arg", CASES, ids=lambda v: str(v).replace(" ", ""))
def test_first_order(name, size, arg):
    f, x = place(name, size, arg)
    rng = rng_for("weights", name, size)
    weights = [fd.array(rng.uniform(-1, 1, y.shape)) for y in f(x)]
    scalar = project(f, weights)
    direction = fd.array(rng.uniform(-1, 1, x.shape))
    g = fd.grad(scalar)(x)
    assert g.shape == x.shape
    got, want = (g * direction).sum().item(), slope(scalar, x, direction)
    assert abs(got - want) <= 1e-5 + 1e-5 * max(abs(want), abs(got)) * 10, f"{name}: {got} by the rule, {want} by differences"


@pytest.mark.parametrize("name,size,arg", [c for c in CASES if SAMPLES[c[0]].second], ids=lambda v: str(v).replace(" ", ""))
def test_second_order(name, size, arg):
    f, x = place(name, size, arg)
    rng = rng_for("weights", name, size)
    weights = [fd.array(rng.uniform(-1, 1, y.shape)) for y in f(x)]
    direction, other = fd.array(rng.uniform(-1, 1, x.shape)), fd.array(rng.uniform(-1, 1, x.shape))
    first = fd.grad(project(f, weights))

    def along(v):
        return (first(v) * direction).sum()

    got = (fd.grad(along)(x) * other).sum().item()
    want = slope(along, x, other)
    assert abs(got - want) <= 2e-5 + 1e-4 * max(abs(want), abs(got)), f"{name}: {got} by the rule, {want} by differences"


@pytest.mark.parametrize("name", sorted(ZERO_GRADIENT))
def test_piecewise_constant_ops_have_zero_gradient(name):
    f, x = place(name, (5,), 0)
    assert (fd.grad(lambda v: f(v)[0].sum())(x) == 0).all()


def test_every_op_has_a_gradient_or_is_listed():
    for name, o in STANZAS.items():
        if not o.has_kernel:
            continue
        checked = bool(SAMPLES[name].grad)
        assert o.differentiable != (name in NO_GRADIENT), f"{name}: differentiable {o.differentiable}, listed {name in NO_GRADIENT}"
        if o.differentiable and name not in ZERO_GRADIENT:
            assert checked, f"{name} is differentiable but its gradient is not checked"
            assert sizes_of(SAMPLES[name]), f"{name}: no sizes for the gradient check"


@pytest.mark.parametrize("name", sorted(n for n, o in STANZAS.items() if o.has_kernel and has_body(o.__wrapped__)))
def test_body_means_the_same_as_the_kernel(name):
    """The plain-ops body of a stanza is the op's meaning: kernel and body agree in float64."""
    s = SAMPLES[name]
    size = sizes_of(s)[0] if sizes_of(s) else s.sizes[2]
    args = [fd.array(a) if isinstance(a, np.ndarray) else a for a in s.make(rng_for(name, "body"), size)]
    defaults = STANZAS[name].__wrapped__.__defaults__ or ()
    count = STANZAS[name].__wrapped__.__code__.co_argcount
    full = [*args, *defaults[len(defaults) - (count - len(args)) :]] if len(args) < count else args
    kernel, body = getattr(raw, name)(*args), STANZAS[name].__wrapped__(*full)
    for k, b in zip(kernel if isinstance(kernel, tuple) else (kernel,), body if isinstance(body, tuple) else (body,)):
        np.testing.assert_allclose(values(k), values(b), rtol=1e-10, atol=1e-12)
