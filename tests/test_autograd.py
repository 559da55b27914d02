"""The tape: backward, modes, functional transforms, custom rules, checkpointing, depth, memory, errors, threads."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import fastdl as fd

close = np.testing.assert_allclose


def leaf(*values, dtype="float64"):
    return fd.array(np.array(values, dtype=dtype), requires_grad=True)


def in_use():
    gc.collect()
    return fd.memory.stats()["in_use"]


# ---- backward --------------------------------------------------------------------------------------------------------
def test_backward_accumulates():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    assert first.tolist() == [2, 4]
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7] and x.grad is first
    x.grad = None
    x.sum().backward()
    assert x.grad.tolist() == [1, 1]


def test_backward_needs_a_seed():
    x = leaf(1.0, 2.0)
    y = x * 2
    with pytest.raises(fd.GradError, match="gradient is needed"):
        y.backward()
    with pytest.raises(fd.ShapeError, match=r"\(3,\)"):
        y.backward(fd.ones(3))
    y.backward([1.0, 10.0])
    assert x.grad.tolist() == [2, 20]
    with pytest.raises(fd.GradError, match="does not require grad"):
        fd.ones(1).backward()
    with pytest.raises(fd.GradError):
        fd.array([1, 2]).requires_grad_()


def test_retain_graph():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12]
    with pytest.raises(fd.GradError, match="retain_graph"):
        y.backward()
    assert x.grad.tolist() == [12]


def test_create_graph_and_higher_orders():
    x = leaf(2.0)
    y = (x**4).sum()
    for want in (32.0, 48.0, 48.0, 24.0):
        (g,) = fd.gradients(y, x, create_graph=True)
        close(g.detach().numpy(), [want])
        y = g.sum()


def test_diamond_and_reuse():
    x = leaf(2.0)
    a = x * 3
    b, c = a * a, a + a
    ((b * c) + a).sum().backward()  # 2 a^3 + a, a = 3x
    close(x.grad.numpy(), [3 * (6 * 36 + 1)])


def test_modes():
    x = leaf(1.0)
    with fd.no_grad():
        assert not (x * 2).requires_grad and not fd.is_grad_enabled()
        with fd.enable_grad():
            assert (x * 2).requires_grad
        with pytest.raises(ZeroDivisionError), fd.enable_grad():
            raise ZeroDivisionError
        assert not fd.is_grad_enabled()
    with fd.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert fd.is_grad_enabled()

    @fd.no_grad
    def f(v):
        return v * 2

    @fd.no_grad()
    def g(v):
        return v * 2

    @fd.set_grad_enabled(False)
    def h(v):
        return v * 2

    assert fd.is_grad_enabled()
    assert not (f(x).requires_grad or g(x).requires_grad or h(x).requires_grad) and fd.is_grad_enabled()
    fd.set_grad_enabled(False)
    assert not fd.is_grad_enabled()
    fd.set_grad_enabled(True)


def test_mode_is_per_thread():
    seen = []
    with fd.no_grad():
        t = threading.Thread(target=lambda: seen.append(fd.is_grad_enabled()))
        t.start()
        t.join()
    assert seen == [True]


def test_gradients_of_several_outputs_and_inputs():
    x, y, unused = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0)
    gx, gy = fd.gradients((x * y, x.sum()), (x, y), (fd.ones(2), None))
    assert gx.tolist() == [4, 5] and gy.tolist() == [1, 2] and x.grad is None
    with pytest.raises(fd.GradError, match="allow_unused"):
        fd.gradients(x.sum(), (x, unused))
    assert fd.gradients(x.sum(), (x, unused), allow_unused=True)[1] is None
    h = x * 2  # not a leaf
    (gh,) = fd.gradients((h * h).sum(), h)
    assert gh.tolist() == [4, 8]


# ---- functional transforms -------------------------------------------------------------------------------------------
def test_value_and_grad_of_trees():
    tree = {"w": [fd.array([1.0, 2.0]), fd.array(3.0)], "b": (fd.array([4.0]),)}
    value, g = fd.value_and_grad(lambda t: (t["w"][0] ** 2).sum() * t["w"][1] + t["b"][0].sum())(tree)
    assert float(value) == 19 and g["w"][0].tolist() == [6, 12] and float(g["w"][1]) == 5 and g["b"][0].tolist() == [1]
    assert type(g["b"]) is tuple and type(g["w"]) is list
    (value, aux), (gx, gy) = fd.value_and_grad(lambda a, b: (a * b, "aux"), argnums=(0, 1), has_aux=True)(2.0, 5.0)
    assert (float(value), aux, float(gx), float(gy)) == (10, "aux", 5, 2)
    with pytest.raises(fd.GradError, match="scalar"):
        fd.grad(lambda x: x * 2)(fd.ones(3))
    with pytest.raises(fd.GradError, match="int64"):
        fd.grad(lambda x: x)(3)


def test_transforms_see_closures():
    close(float(fd.grad(lambda y: fd.grad(lambda x: x * y**2)(1.0))(3.0)), 6.0)
    close(float(fd.grad(lambda y: fd.vjp(lambda x: x * y**3, 1.0)[1](1.0)[0])(2.0)), 12.0)
    close(float(fd.grad(lambda y: fd.jvp(lambda x: x * y**3, (1.0,), (1.0,))[1])(2.0)), 12.0)
    close(float(fd.grad(lambda y: fd.jvp(lambda x: x * 3, (1.0,), (y**2,))[1])(2.0)), 12.0)
    close(float(fd.grad(lambda x: fd.jvp(lambda z: z**3, (x,), (1.0,))[1])(2.0)), 12.0)
    w = leaf(2.0)
    g = fd.grad(lambda x: (w * x**2).sum())(fd.array([3.0], dtype="float64"))
    g.sum().backward()
    close(w.grad.numpy(), [6.0])


def test_transforms_like_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, w, v, u = rng.standard_normal(4), rng.standard_normal((3, 4)), rng.standard_normal(4), rng.standard_normal(3)

    def f(m, x, weight):
        return m.tanh(weight @ x) * m.exp(x[:3])

    fx = lambda x: f(fd, x, fd.array(w))  # noqa: E731
    tx = lambda x: f(torch, x, torch.tensor(w))  # noqa: E731
    x, t = fd.array(a), torch.tensor(a)
    close(fd.jacobian(fx)(x).numpy(), torch.func.jacrev(tx)(t).numpy(), rtol=1e-12)
    close(
        fd.hessian(lambda z: fx(z).sum())(x).numpy(), torch.func.hessian(lambda z: tx(z).sum())(t).numpy(), rtol=1e-10, atol=1e-12
    )
    y, pull = fd.vjp(fx, x)
    ty, tpull = torch.func.vjp(tx, t)
    close(y.numpy(), ty.numpy(), rtol=1e-12)
    for _ in range(2):
        close(pull(fd.array(u))[0].numpy(), tpull(torch.tensor(u))[0].numpy(), rtol=1e-12)
    for got, want in zip(fd.jvp(fx, (x,), (fd.array(v),)), torch.func.jvp(tx, (t,), (torch.tensor(v),))):
        close(got.numpy(), want.numpy(), rtol=1e-12)
    close(
        fd.grad(lambda z: fd.grad(lambda q: (fx(q) ** 2).sum())(z) @ z)(x).numpy(),
        torch.func.grad(lambda z: torch.func.grad(lambda q: (tx(q) ** 2).sum())(z) @ z)(t).numpy(),
        rtol=1e-10,
    )


def test_transforms_do_not_touch_grad():
    x = leaf(1.0)
    fd.value_and_grad(lambda v: (v * x).sum())(x)
    fd.hessian(lambda v: (v * v).sum())(x)
    assert x.grad is None


def test_vjp_and_jvp_check_their_arguments():
    _, pull = fd.vjp(lambda x: (x, x * 2), fd.ones(3))
    with pytest.raises(fd.ShapeError):
        pull((fd.ones(3),))
    with pytest.raises(fd.ShapeError):
        pull((fd.ones(3), fd.ones(2)))
    with pytest.raises(fd.ShapeError):
        fd.jvp(lambda x: x, (fd.ones(3),), (fd.ones(2),))
    with pytest.raises(TypeError):
        fd.jvp(lambda x: x, (fd.ones(3),), ())


def test_jacobian_of_empty_and_constant():
    assert fd.jacobian(lambda x: x[:0])(fd.ones(3)).shape == (0, 3)
    assert fd.jacobian(lambda x: fd.ones(2))(fd.ones(3)).tolist() == [[0] * 3] * 2


# ---- custom rules ----------------------------------------------------------------------------------------------------
def test_custom_vjp():
    @fd.custom_vjp
    def scaled(x, k):
        return x * k

    scaled.defvjp(lambda x, k: (x * k, (k, x)), lambda saved, g: (g * 100.0, None))
    x = leaf(1.0, 2.0)
    scaled(x, 3).sum().backward()
    assert x.grad.tolist() == [100, 100]
    assert scaled(fd.ones(2), 3).tolist() == [3, 3]
    with fd.no_grad():
        assert not scaled(x, 3).requires_grad


def test_custom_vjp_of_several_outputs_and_second_order():
    @fd.custom_vjp
    def f(x):
        raise AssertionError

    def forward(x):
        e, s = fd.exp(x), fd.sin(x)
        return (e, s), (x, e, s)

    f.defvjp(forward, lambda saved, ge, gs: (ge * saved[1] + gs * fd.cos(saved[0]),))
    x = leaf(0.5)
    e, s = f(x)
    (g,) = fd.gradients((e * s).sum(), x, create_graph=True)
    close(g.detach().numpy(), np.exp(0.5) * (np.sin(0.5) + np.cos(0.5)))
    (h,) = fd.gradients(g.sum(), x)
    close(h.numpy(), 2 * np.exp(0.5) * np.cos(0.5))


def test_custom_vjp_output_among_saved_is_no_leak():
    @fd.custom_vjp
    def f(x):
        raise AssertionError

    def forward(x):
        y = fd.exp(x)
        return y, y

    f.defvjp(forward, lambda y, g: (g * y,))
    x = leaf(*range(1000))
    before = in_use()
    for _ in range(100):
        f(x)
    assert in_use() == before


def test_custom_vjp_notices_writes():
    @fd.custom_vjp
    def f(x):
        raise AssertionError

    f.defvjp(lambda x: (x * x, {"x": x}), lambda saved, g: (g * 2 * saved["x"],))
    x = leaf(1.0, 2.0)
    h = x * 1.0
    y = f(h)
    with fd.no_grad():
        h += 1
    with pytest.raises(fd.GradError, match="changed in place"):
        y.sum().backward()


def test_wrong_rules_are_errors():
    @fd.custom_vjp
    def f(x, y):
        raise AssertionError

    x, y = leaf(1.0, 2.0), leaf(1.0, 2.0)
    for rule, error in (
        (lambda s, g: (g,), fd.GradError),
        (lambda s, g: (g, fd.ones((3, 3))), fd.GradError),
        (lambda s, g: (g, "a"), TypeError),
        (lambda s, g: 1 / 0, ZeroDivisionError),
    ):
        f.defvjp(lambda a, b: (a * b, None), rule)
        out = f(x, y).sum()
        with pytest.raises(error):
            out.backward()
    x.grad = None
    (x * x).sum().backward()  # the engine is usable after an error
    assert x.grad.tolist() == [2, 4]


# ---- checkpoint ------------------------------------------------------------------------------------------------------
def block(w):
    return lambda x: fd.tanh(x * w) * w


@pytest.mark.parametrize("way", ["backward", "gradients", "value_and_grad", "create_graph"])
def test_checkpoint_equals_plain(way):
    def run(wrap):
        w, x = leaf(0.5, 1.5), leaf(1.0, -2.0)
        f, g = block(w), block(w)

        def loss(v):
            h = wrap(g, wrap(f, v) + v)
            return (h * h).sum()

        if way == "backward":
            loss(x).backward()
            return x.grad, w.grad
        if way == "gradients":
            return fd.gradients(loss(x), (x, w))
        if way == "value_and_grad":
            return (fd.grad(loss)(x).detach(),)
        first = fd.gradients(loss(x), (x, w), create_graph=True)
        return fd.gradients((first[0] * first[1]).sum(), (x, w))

    for a, b in zip(run(fd.checkpoint), run(lambda f, *v: f(*v))):
        close(a.numpy(), b.numpy(), rtol=1e-12)


def test_checkpoint_does_not_pollute_grad():
    w, x = leaf(2.0), leaf(3.0)
    fd.gradients(fd.checkpoint(block(w), x).sum(), (x, w))
    assert w.grad is None and x.grad is None


def test_checkpoint_of_a_closure_over_a_computed_tensor():
    w, x = leaf(2.0), leaf(3.0)
    h = w * w
    y = fd.checkpoint(lambda v: v * h, x)
    (y + h * h).sum().backward()
    close(x.grad.numpy(), [4.0])
    close(w.grad.numpy(), [3 * 4 + 4 * 8])


def test_nested_checkpoint_and_dropout():
    def net(wrap):
        fd.manual_seed(5)
        x = leaf(*np.linspace(0, 1, 50))

        def inner(v):
            return fd.nn.functional.dropout(v, 0.5) * v

        def outer(v):
            return wrap(inner, v) + wrap(inner, v * 2)

        y = wrap(outer, x)
        y.sum().backward()
        return y.detach(), x.grad, fd.random.uniform(3)

    for a, b in zip(net(fd.checkpoint), net(lambda f, *v: f(*v))):
        close(a.numpy(), b.numpy(), rtol=1e-12)


def test_checkpoint_notices_writes():
    x, w = leaf(1.0, 2.0), leaf(3.0, 4.0)
    y = fd.checkpoint(lambda v: v * w, x)
    with fd.no_grad():
        w += 1
    with pytest.raises(fd.GradError, match="changed in place"):
        y.sum().backward()


# ---- anomaly ---------------------------------------------------------------------------------------------------------
def test_detect_anomaly():
    x = leaf(0.0)
    with fd.detect_anomaly():
        with pytest.raises(fd.GradError, match=r"sqrt|multiply|divide"):
            (fd.sqrt(x) * 0.0).sum().backward()
    (fd.sqrt(x) * 0.0).sum().backward()
    assert np.isnan(x.grad.numpy()).all()


# ---- depth and memory ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("finish", ["backward", "gradients", "drop"])
def test_a_hundred_thousand_ops_deep(finish):
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    if finish == "backward":
        y.backward(fd.ones(1))
        assert x.grad.tolist() == [1]
    elif finish == "gradients":
        assert fd.gradients(y.sum(), x)[0].tolist() == [1]
    del y


def test_long_chains_of_grad_and_views():
    g = fd.ones(1)
    for _ in range(100_000):
        h = fd.ones(1)
        h.grad = g
        g = h
    del g, h
    v = leaf(1.0, 2.0)
    for _ in range(100_000):
        v = v[:]
    del v


def test_graph_memory_is_freed_during_backward():
    n = 250_000  # 1 MB each
    before = in_use()
    x = fd.ones(n, requires_grad=True)
    y = x
    for _ in range(10):
        y = fd.exp(y * 0.1)
    forward = in_use() - before
    fd.memory.reset_peak() if hasattr(fd.memory, "reset_peak") else fd._C.reset_peak_memory()
    loss = y.sum()
    loss.backward()
    assert fd.memory.stats()["peak"] - before < forward + 5 * 4 * n
    del y
    after = in_use() - before  # x, its gradient and the loss: the saved values went although the loss lives
    assert after < 3.5 * 4 * n, after
    del x, loss
    assert in_use() <= before


def test_graph_dies_with_its_output():
    class P(fd.Tensor):
        pass

    x = P([1.0, 2.0], requires_grad=True)
    ref = weakref.ref(x)
    y = (x * x).sum()
    del x
    assert ref() is not None
    del y
    assert ref() is None
    x = P([1.0, 2.0], requires_grad=True)
    ref = weakref.ref(x)
    x.me = x
    x.grad = x
    del x
    gc.collect()
    assert ref() is None


def test_no_leak_over_ten_thousand_steps():
    resource = pytest.importorskip("resource")
    w, b = leaf(*np.ones(64), dtype="float32"), leaf(0.0, dtype="float32")
    x = fd.ones((8, 64))

    def step(k):
        loss = fd.tanh(fd.linear(x, w[None], b)).sum()
        loss.backward()
        with fd.no_grad():
            w[...] = w - 0.001 * w.grad
        w.grad = b.grad = None
        if k % 5 == 0:
            v = w * 2
            v[[0, 3]] = 1.0
            v[1:3] = v[1:3] * 2.0
            with pytest.raises(ValueError):
                v + fd.ones(7)

    def rss():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for k in range(1000):
        step(k)
    memory, references, peak = in_use(), sys.getrefcount(w), rss()
    none, one = sys.getrefcount(None), sys.getrefcount(1)
    for k in range(10_000):
        step(k)
    assert in_use() == memory and sys.getrefcount(w) == references
    assert rss() - peak < 4000  # KB
    if sys.version_info < (3, 12):
        assert abs(sys.getrefcount(None) - none) < 1000 and abs(sys.getrefcount(1) - one) < 1000


def test_gradient_slots_and_user_gradients():
    x = leaf(1.0, 2.0)
    x.grad = fd.broadcast_to(fd.ones(1, dtype="float64"), (2,))
    (x * fd.array([1.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [2, 3]
    with pytest.raises(fd.ShapeError):
        x.grad = fd.ones(3)
    with pytest.raises(TypeError):
        x.grad = [1.0, 2.0]


# ---- threads -----------------------------------------------------------------------------------------------------------
def test_two_threads_with_graphs_of_their_own():
    results, errors = {}, []

    def work(k):
        try:
            rng = np.random.default_rng(k)
            a = rng.standard_normal((64, 64))
            w = fd.array(a, requires_grad=True)
            for _ in range(30):
                y = w
                for _ in range(5):
                    y = fd.tanh(y @ w) * 0.5
                w.grad = None
                y.sum().backward()
            results[k] = w.grad.numpy().copy()
        except BaseException as e:
            errors.append(e)

    for k in (0, 1):
        work(k)
    alone = dict(results)
    threads = [threading.Thread(target=work, args=(k % 2,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    for k in (0, 1):
        np.testing.assert_array_equal(results[k], alone[k])


def test_threads_on_one_graph_raise_or_work():
    w = fd.array(np.random.default_rng(0).standard_normal((200, 200)), requires_grad=True)
    for _ in range(5):
        y = w
        for _ in range(6):
            y = fd.tanh(y @ w)
        y = y.sum()
        seen = []

        def work(y=y, seen=seen):
            try:
                y.backward()
                seen.append("done")
            except fd.GradError:
                seen.append("freed")

        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(seen) == 3
        w.grad = None


def test_memory_given_away_while_a_kernel_reads_it():
    """load_state_dict in one thread while another computes: the old memory stays until the op is done."""
    t = fd.ones((300, 300))
    other = fd.ones((300, 300)) * 2
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            fd._C.set_data(t, other.clone())

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(50):
            assert float((t @ t).max()) in (300.0, 600.0, 1200.0)
    finally:
        stop.set()
        thread.join()


def test_rule_that_runs_backward_itself():
    @fd.custom_vjp
    def f(x):
        raise AssertionError

    def rule(saved, g):
        with fd.enable_grad():
            z = fd.array([2.0], requires_grad=True)
            (z * z).sum().backward()
        return (g * z.grad,)

    f.defvjp(lambda x: (x * 1.0, None), rule)
    x = leaf(1.0)
    f(x).sum().backward()
    assert x.grad.tolist() == [4]
