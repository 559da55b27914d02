"""Fused attention: the function against its formula and PyTorch, strides in and out, masks, extremes, capture, determinism."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F

SHAPES = (  # leading sizes of query, of key and value, L, S, E, V
    ((2, 3), (2, 3), 5, 7, 4, 6),
    ((2, 4), (2, 4), 128, 128, 32, 32),
    ((1,), (1,), 33, 300, 40, 24),
    ((3, 1), (1, 2), 70, 20, 16, 8),
    ((), (), 1, 1, 1, 1),
)


def drawn(shape, seed=0, dtype="float32"):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def formula(q, k, v, mask=None, causal=False, scale=None):
    q, k, v = (np.asarray(t, np.float64) for t in (q, k, v))
    s = q @ np.swapaxes(k, -1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
    peak = s.max(-1, keepdims=True, initial=-1e300)
    p = np.exp(s - peak)
    total = p.sum(-1, keepdims=True)
    return p / np.where(total == 0, 1, total) @ v


def operands(sizes, seed=0, dtype="float32"):
    q_lead, k_lead, n, m, e, w = sizes
    return drawn((*q_lead, n, e), seed, dtype), drawn((*k_lead, m, e), seed + 1, dtype), drawn((*k_lead, m, w), seed + 2, dtype)


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float", "keys"])
def test_function_is_its_formula(sizes, kind):
    q, k, v = operands(sizes)
    n, m = q.shape[-2], k.shape[-2]
    mask = {"bool": drawn((n, m)) > 0, "float": drawn((n, m)), "keys": drawn((1, m)) > -0.5}.get(kind)
    y = F.scaled_dot_product_attention(*map(fd.array, (q, k, v)), None if mask is None else fd.array(mask), is_causal=kind == "causal")
    want = formula(q, k, v, mask, kind == "causal")
    assert y.shape == want.shape
    np.testing.assert_allclose(y.numpy(), want, atol=4e-6)



@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_same_as_pytorch_with_gradients(sizes, causal):
    torch = pytest.importorskip("torch")
    if sizes[0] != sizes[1]:
        sizes = (sizes[0], sizes[0], *sizes[2:])
    arrays = operands(sizes)
    ours = [fd.array(a).requires_grad_() for a in arrays]
    theirs = [torch.from_numpy(a).double().requires_grad_() for a in arrays]
    y, z = F.scaled_dot_product_attention(*ours, is_causal=causal), torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=causal)
    g = drawn(y.shape, 9)
    y.backward(fd.array(g))
    z.backward(torch.from_numpy(g).double())
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=4e-6)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=2e-5)


def test_grouped_heads_share_keys_as_in_pytorch():
    torch = pytest.importorskip("torch")
    arrays = drawn((2, 6, 5, 4)), drawn((2, 2, 7, 4), 1), drawn((2, 3, 7, 4), 2)
    ours, theirs = [fd.array(a).requires_grad_() for a in arrays], [torch.from_numpy(a).requires_grad_() for a in arrays]
    y = F.scaled_dot_product_attention(*ours, enable_gqa=True)
    z = torch.nn.functional.scaled_dot_product_attention(*theirs, enable_gqa=True)
    y.sum().backward(), z.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), z.detach().numpy(), atol=2e-6)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)


def test_query_that_sees_no_key_gives_zero_and_no_gradient():
    q, k, v = (fd.array(a).requires_grad_() for a in operands(SHAPES[0]))
    seen = np.ones((5, 7), bool)
    seen[2] = False
    y = F.scaled_dot_product_attention(q, k, v, fd.array(seen))
    y.sum().backward()
    assert (y.detach().numpy()[..., 2, :] == 0).all() and (q.grad.numpy()[..., 2, :] == 0).all()
    assert np.isfinite(k.grad.numpy()).all() and np.isfinite(v.grad.numpy()).all() and (v.grad.numpy() != 0).any()
    empty = F.scaled_dot_product_attention(fd.ones((2, 3, 4)), fd.ones((2, 0, 4)), fd.ones((2, 0, 5)))
    assert empty.shape == (2, 3, 5) and (empty.numpy() == 0).all()


def heads_of(x, heads):
    """Query, key and value as views of one projection (N, T, 3, heads, E)."""
    b, t, width = x.shape
    h = x.reshape(b, t, 3, heads, width // heads // 3)
    return tuple(h[:, :, i].swapaxes(1, 2) for i in range(3))


def test_views_of_a_projection_are_read_in_place_and_the_result_lies_as_they_do():
    x = fd.array(drawn((2, 40, 3 * 4 * 16))).requires_grad_()
    q, k, v = heads_of(x, 4)

    def run():
        return fd.attention(q, k, v, None, True, 0.25)

    with fd.profiler.profile() as p:
        y = run()
        flat = y.swapaxes(1, 2).reshape(2, 40, 64)
    assert p.launches[0].flops == 2 * 2 * 4 * (40 * 41 // 2) * 32
    assert [x.op for x in p.launches] == ["attention"], [x.op for x in p.launches]  # no copy of the operands, none of the result
    copies = [fd.array(t.detach().numpy().copy()).requires_grad_() for t in (q, k, v)]
    z = fd.attention(*copies, None, True, 0.25)
    assert y.strides != z.strides and (y.detach().numpy() == z.detach().numpy()).all()
    g = fd.array(drawn((2, 40, 64), 5))
    flat.backward(g)
    z.swapaxes(1, 2).reshape(2, 40, 64).backward(g)
    got = x.grad.numpy().reshape(2, 40, 3, 4, 16)
    for i, c in enumerate(copies):
        assert (got[:, :, i].swapaxes(1, 2) == c.grad.numpy()).all()


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e-20])
def test_extreme_scores_do_not_overflow(scale):
    q, k, v = operands(((2,), (2,), 20, 50, 8, 8))
    ours = [fd.array(a).requires_grad_() for a in (q * np.float32(scale), k, v)]
    y = F.scaled_dot_product_attention(*ours)
    np.testing.assert_allclose(y.detach().numpy(), formula(q * np.float32(scale), k, v), atol=2e-6 * max(1.0, scale))
    y.sum().backward()
    assert all(np.isfinite(t.grad.numpy()).all() for t in ours)


def test_nan_and_infinity_stay_in_their_query():
    q, k, v = operands(((2,), (2,), 40, 50, 8, 8))
    want = fd.attention(*map(fd.array, (q, k, v))).numpy()
    q[0, 3, 2], q[1, 33, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        y = fd.attention(*map(fd.array, (q, k, v))).numpy()
    broken = np.zeros((2, 40), bool)
    broken[0, 3] = broken[1, 33] = True
    assert np.isnan(y[broken]).all()
    assert (y[~broken] == want[~broken]).all()


def test_later_keys_have_no_influence_when_causal():
    q, k, v = operands(((2,), (2,), 64, 64, 16, 16))
    y = fd.attention(*map(fd.array, (q, k, v)), None, True).numpy()
    k[:, 40:], v[:, 40:] = 7, -3
    z = fd.attention(*map(fd.array, (q, k, v)), None, True).numpy()
    assert (y[:, :40] == z[:, :40]).all() and (y[:, 41:] != z[:, 41:]).any()


@pytest.mark.parametrize("lead", [(), (2, 12)])
def test_bits_do_not_depend_on_threads(lead):
    arrays = operands((lead, lead, 300, 400, 24, 40))

    def bits():
        ours = [fd.array(a).requires_grad_() for a in arrays]
        y = fd.attention(*ours, None, True, 0.2)
        y.backward(fd.array(drawn(y.shape, 4)))
        return [t.numpy().tobytes() for t in (y.detach(), *(o.grad for o in ours))]

    before = fd.get_num_threads()
    try:
        seen = []
        for n in (1, 2, 5):
            fd.set_num_threads(n)
            seen.append(bits())
    finally:
        fd.set_num_threads(before)
    assert seen[0] == seen[1] == seen[2]


def test_second_derivative_is_that_of_the_formula():
    arrays = operands(((2,), (2,), 3, 4, 2, 3), dtype="float64")

    def second(attend):
        q, k, v = (fd.array(a).requires_grad_() for a in arrays)
        (dq,) = fd.gradients(attend(q, k, v).sum() ** 2, [q], create_graph=True)
        (dq * dq).sum().backward()
        return [t.grad.numpy() for t in (q, k, v)]

    fused = second(lambda q, k, v: fd.attention(q, k, v, None, True, 0.7))
    plain = second(lambda q, k, v: fd.softmax(fd.where(fd.tril(fd.ones((3, 4), dtype="bool")), q @ k.mT * 0.7, -np.inf), -1) @ v)
    for a, b in zip(fused, plain):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_mask_that_wants_a_gradient_gets_it():
    torch = pytest.importorskip("torch")
    q, k, v = operands(SHAPES[0])
    bias = drawn((5, 7), 8)
    ours, theirs = fd.array(bias).requires_grad_(), torch.from_numpy(bias).requires_grad_()
    F.scaled_dot_product_attention(*map(fd.array, (q, k, v)), ours).sum().backward()
    torch.nn.functional.scaled_dot_product_attention(*map(torch.from_numpy, (q, k, v)), theirs).sum().backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-5)


def test_dropout_drops_weights():
    q, k, v = map(fd.array, operands(((2,), (2,), 30, 50, 8, 8)))
    fd.manual_seed(3)
    y = F.scaled_dot_product_attention(q, k, fd.ones(v.shape), dropout_p=0.5).numpy()
    assert abs(y.mean() - 1) < 0.1 and y.std() > 0.05
    assert (F.scaled_dot_product_attention(q, k, v, dropout_p=1.0).numpy() == 0).all()


def precise(precision, arrays, gradient, **rest):
    """Result and gradients at a precision."""
    before = fd.get_matmul_precision()
    fd.set_matmul_precision(precision)
    try:
        ours = [fd.array(a).requires_grad_() for a in arrays]
        y = fd.attention(*ours, **rest)
        y.backward(fd.array(gradient))
        return [y.detach().numpy(), *(o.grad.numpy() for o in ours)]
    finally:
        fd.set_matmul_precision(before)


@pytest.mark.skipif(fd._C.isa() != "amx", reason="needs tiles")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [((2, 3), (2, 3), 130, 200, 64, 64), ((3,), (3,), 45, 45, 70, 50), ((2,), (2,), 33, 150, 48, 100)], ids=str)
def test_tiles_where_less_precision_is_asked_for(sizes, causal):
    arrays = operands(sizes)
    g = drawn((*sizes[0], sizes[2], sizes[5]), 7)
    mask = fd.array(drawn((sizes[2], sizes[3]), 3))
    exact = precise("highest", [a.astype("float64") for a in arrays], g.astype("float64"), mask=mask, causal=causal, scale=0.125)
    errors = {}
    for precision in ("highest", "high", "medium"):
        got = precise(precision, arrays, g, mask=mask, causal=causal, scale=0.125)
        errors[precision] = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(got, exact)]
    assert max(errors["highest"]) < 1e-6, errors
    assert all(1e-6 < e < 3e-5 for e in errors["high"]), errors  # tiles did run: two parts are worse than float32
    assert all(3e-4 < e < 1e-2 for e in errors["medium"]), errors


@pytest.mark.skipif(fd._C.isa() != "amx", reason="needs tiles")
@pytest.mark.parametrize("which", range(4))
def test_tiles_give_up_where_numbers_do_not_split(which):
    arrays = [*operands(((2,), (2,), 64, 64, 48, 48)), drawn((2, 64, 48), 7)]
    arrays[which][0, 5, 3] = 3e38 if which in (0, 2) else np.nan
    with np.errstate(all="ignore"):
        want, got = (precise(p, arrays[:3], arrays[3], scale=0.1) for p in ("highest", "medium"))
    for a, b in zip(want, got):
        np.testing.assert_array_equal(np.isnan(a[0]), np.isnan(b[0]))
        if which < 3:  # the head beside it takes tiles
            np.testing.assert_allclose(a[1], b[1], atol=0.05)
            assert (a[1] != b[1]).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_floats_are_computed_in_float32(dtype):
    ours = [fd.array(a).astype(dtype) for a in operands(((2,), (2,), 20, 30, 8, 8))]
    y = F.scaled_dot_product_attention(*ours, is_causal=True)
    want = F.scaled_dot_product_attention(*(t.astype("float32") for t in ours), is_causal=True).astype(dtype)
    assert str(y.dtype) == dtype and (y.astype("float32").numpy() == want.astype("float32").numpy()).all()


def test_what_does_not_fit_is_refused():
    q, k, v = map(fd.array, operands(SHAPES[0]))
    ask = F.scaled_dot_product_attention
    for error, call in (
        (fd.ShapeError, lambda: ask(q[0, 0, 0], k, v)),
        (fd.ShapeError, lambda: ask(q, k[..., :3], v)),
        (fd.ShapeError, lambda: ask(q, k, v[..., :5, :])),
        (fd.ShapeError, lambda: ask(q[:, :2], k, v)),
        (fd.ShapeError, lambda: ask(q, k, v, fd.ones((5, 8)))),
        (fd.ShapeError, lambda: ask(q, k[:, :2], v[:, :2], enable_gqa=True)),
        (fd.DTypeError, lambda: ask(q, k.astype("float64"), v)),
        (fd.DTypeError, lambda: ask(*(t.astype("int32") for t in (q, k, v)))),
        (fd.DTypeError, lambda: ask(q, k, v, fd.ones((5, 7), dtype="int64"))),
        (ValueError, lambda: ask(q, k, v, fd.ones((5, 7)), is_causal=True)),
        (ValueError, lambda: ask(q, k, v, dropout_p=1.5)),
    ):
        with pytest.raises(error, match="scaled_dot_product_attention") as info:
            call()
        assert isinstance(info.value, fd.FastdlError)


def test_layer_takes_the_kernel_where_no_weights_are_asked_for():
    layer = nn.MultiheadAttention(24, 3, batch_first=True)
    x = fd.array(drawn((2, 9, 24)))
    hidden = fd.array(np.arange(9) >= np.array([[9], [6]]))
    forbidden = fd.array(np.triu(np.ones((9, 9), bool), 1))
    for causal, mask, padding in itertools.product((False, True), (None, forbidden, forbidden * -2.0), (None, hidden)):
        want, weights = layer(x, x, x, padding, True, mask, is_causal=causal)
        with fd.profiler.profile() as p:
            got, none = layer(x, x, x, padding, False, mask, is_causal=causal)
        assert weights is not None and none is None
        assert "attention" in [x.op for x in p.launches] and "softmax" not in [x.op for x in p.launches]
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), atol=2e-6)


def test_captured_training_repeats_eager_bits_and_runs_the_kernels():
    def trained(wrap):
        fd.manual_seed(0)
        layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
        sgd = fd.optim.SGD(layer.parameters(), 0.1)

        def step(x):
            sgd.zero_grad()
            loss = (layer(x, is_causal=True) ** 2).mean()
            loss.backward()
            sgd.step()
            return loss.detach()

        run = wrap(step)
        losses = [run(fd.array(drawn((2, 40, 24), s))).numpy().tobytes() for s in range(4)]
        return losses + [p.detach().numpy().tobytes() for p in layer.parameters()], run

    eager, _ = trained(lambda f: f)
    captured, run = trained(fd.compile)
    assert eager == captured
    # the three gradients are written where the gradient of the projection has them
    assert re.search(r"attention_backward .* -> (t\d+) \1 \1$", run.dump(), re.M), run.dump()
    assert " attention " in run.dump() and " softmax " not in run.dump()
