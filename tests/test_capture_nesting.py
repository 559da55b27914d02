"""Known traps of captured functions: gradients, nesting, errors, threads, constants made inside."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any

import numpy as np
import pytest
from capture_traps import X, against, call, no_recording_is_left_behind, same, trainer  # noqa: F401

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

HERE = os.path.basename(__file__)


# ---- gradients -----------------------------------------------------------------------------------------------------------------


def test_gradients_held_by_the_user():
    w = nn.Parameter(fd.ones(3))

    @fd.compile
    def f(x):
        w.grad = None
        (w * x).sum().backward()

    held = []
    for k in range(8):
        f(fd.full(3, float(k)))
        held.append(w.grad)
    for k, g in enumerate(held):
        same(g, np.full(3, k, np.float32))


def test_gradient_there_or_not():
    w = nn.Parameter(fd.ones(3))

    @fd.compile
    def f(x):
        (w * x).sum().backward()

    x = fd.full(3, 2.0)
    for k in range(16):
        if k % 4 == 0:
            w.grad = None
        before = w.grad
        old = None if before is None else np.asarray(before).copy()
        f(x)
        same(w.grad, np.full(3, 2.0 * (k % 4 + 1), np.float32))
        if before is not None and before is not w.grad:
            same(before, old)


def test_gradient_shared_by_two_parameters():
    v, w = nn.Parameter(fd.ones(3)), nn.Parameter(fd.ones(3))

    def f(x):
        (w * x + v * x * 2).sum().backward()

    c = fd.compile(f)
    for k in range(8):
        if k == 5:
            v.grad = w.grad = fd.ones(3)
        else:
            v.grad, w.grad = fd.ones(3), fd.ones(3)
        a, b = np.asarray(v.grad).copy(), np.asarray(w.grad).copy()
        c(fd.ones(3))
        got = np.asarray(v.grad).copy(), np.asarray(w.grad).copy()
        v.grad = w.grad = None
        v.grad, w.grad = fd.array(a), fd.array(b)
        if k == 5:
            v.grad = w.grad
        f(fd.ones(3))
        same(got[0], v.grad), same(got[1], w.grad)


def test_zero_grad_in_place_keeps_the_memory():
    model, optimizer, _ = trainer()

    @fd.compile
    def f(x):
        optimizer.zero_grad(set_to_none=False)
        fd.square(model(x)).mean().backward()

    f(fd.array(X))
    g = model[0].weight.grad
    for k in range(6):
        f(fd.array(X + k))
        assert model[0].weight.grad is g
    model.zero_grad()
    fd.square(model(fd.array(X + 5))).mean().backward()
    same(g, model[0].weight.grad)


def test_results_that_need_gradients_run_eagerly():
    w = nn.Parameter(fd.ones(3))
    c = fd.compile(lambda x: w * x)
    for k in range(6):
        y = c(fd.full(3, float(k)))
        w.grad = None
        y.sum().backward()
        same(w.grad, np.full(3, k, np.float32))
    assert c.programs == 0 and "gradient" in c.reason


def test_requires_grad_inside_on_an_argument():
    def f(x):
        x.requires_grad_()
        (x * x).sum().backward()
        return x.grad

    c = fd.compile(f)
    for k in range(6):
        x = fd.full(3, float(k))
        try:
            same(c(x), np.full(3, 2 * k, np.float32))
        except fd.CaptureError as e:
            assert "argument" in str(e)
            break
        assert x.requires_grad and x.grad is not None


def test_inputs_with_gradients():
    x = fd.ones(3, requires_grad=True)

    @fd.compile
    def f(t):
        t.grad = None
        (t * t).sum().backward()
        return t.grad * 2

    for k in range(6):
        with fd.no_grad():
            x.fill_(float(k))
        same(f(x), np.full(3, 4 * k, np.float32))
        same(x.grad, np.full(3, 2 * k, np.float32))
    assert f.programs == 1


def test_graph_through_an_argument_runs_eagerly():
    w = nn.Parameter(fd.ones(3))

    @fd.compile
    def f(t):
        return (t * 2).sum()

    for _ in range(5):
        w.grad = None
        f(w * 3).backward()
        same(w.grad, np.full(3, 6, np.float32))


def test_saved_values_are_protected():
    """A graph from before a replay that changes what it saved says so in backward."""
    model, _optimizer, step = trainer()
    step = fd.compile(step)
    call(step, fd.array(X))
    y = fd.square(model(fd.array(X))).sum()
    step(fd.array(X))
    with pytest.raises(fd.GradError):
        y.backward()


def test_functions_of_gradients_inside():
    def loss(w):
        return (fd.sin(w) * w).sum()

    def second(w):
        w = w.detach().requires_grad_()
        g = fd.grad(loss)(w)
        return g

    def hessian(w):
        return fd.jacobian(lambda v: v * v * v)(w)

    def create(w):
        w = w.detach().requires_grad_()
        (w * w * w).sum().backward(create_graph=True)
        g = w.grad
        w.grad = None
        (g * g).sum().backward()
        return w.grad

    for f in (second, hessian, create, lambda w: fd.vjp(loss, w)[1](fd.ones(()))[0]):
        c = fd.compile(f)
        for k in range(5):
            w = fd.array(np.linspace(0.1, 1.0, 4) + k)
            same(c(w), f(w))


def test_custom_vjp_and_checkpoint_inside():
    @fd.custom_vjp
    def cube(x):
        return x * x * x

    try:
        cube.defvjp(lambda x: (x * x * x, (x,)), lambda saved, g: (g * 3 * saved[0] * saved[0],))
    except (AttributeError, TypeError):
        pytest.skip("custom_vjp has another form")

    def make():
        fd.manual_seed(3)
        layer, w = nn.Linear(4, 4), nn.Parameter(fd.ones(4))

        def f(x):
            layer.zero_grad()
            w.grad = None
            y = fd.checkpoint(lambda t: F.dropout(fd.tanh(layer(t)), 0.5, training=True), x * w)
            cube(y).sum().backward()
            return fd.concatenate([layer.weight.grad, w.grad.reshape((1, 4))])

        return f

    against(make, [(fd.array(np.random.default_rng(k).normal(size=(3, 4)).astype("float32")),) for k in range(6)])


def test_modes_around():
    w = nn.Parameter(fd.ones(3))

    @fd.compile
    def f(x):
        y = w * x
        return y.detach() if y.requires_grad else y * 10

    for k in range(12):
        with fd.no_grad() if k % 2 else fd.enable_grad():
            same(f(fd.ones(3)), np.full(3, 10 if k % 2 else 1, np.float32))
    assert f.programs == 2


def test_anomaly_detection_around():
    w = nn.Parameter(fd.zeros(3))

    @fd.compile
    def f(x):
        w.grad = None
        (fd.sqrt(w) * x).sum().backward()

    for _ in range(4):
        f(fd.ones(3))
    for _ in range(3):
        with fd.detect_anomaly(), pytest.raises(fd.GradError):
            f(fd.zeros(3))
    f(fd.ones(3))


# ---- nesting, errors, threads ---------------------------------------------------------------------------------------------------


def test_nested_captured_functions():
    inner = fd.compile(lambda x, k: x * k + fd.random.uniform(3))

    @fd.compile
    def outer(x):
        return inner(x, 2.0) + inner(x, 3.0)

    def eager(x):
        return (x * 2.0 + fd.random.uniform(3)) + (x * 3.0 + fd.random.uniform(3))

    fd.manual_seed(1)
    got = [outer(fd.ones(3)) for _ in range(5)] + [inner(fd.ones(3), 2.0) for _ in range(3)]
    fd.manual_seed(1)
    for t in got[:5]:
        same(t, eager(fd.ones(3)))
    for t in got[5:]:
        same(t, fd.ones(3) * 2.0 + fd.random.uniform(3))


def test_nested_function_reads_a_global_number():
    global scale
    inner = fd.compile(lambda x: x * scale)
    outer = fd.compile(lambda x: inner(x) + 1)
    for scale in (2.0, 2.0, 2.0, 5.0, 5.0):
        same(outer(fd.ones(2)), np.full(2, scale + 1, np.float32))
    scale = 2.0


def test_recursion():
    @fd.compile
    def f(x, n):
        return x if n == 0 else f(x * 2, n - 1) + 1

    for _ in range(6):
        same(f(fd.ones(2), 3), np.full(2, 8 + 3, np.float32))


def test_errors_inside_then_again():
    fail = [False]
    w = nn.Parameter(fd.ones(3))

    @fd.compile
    def f(x):
        y = (w * x).sum()
        if fail[0]:
            raise KeyError("mine")
        y.backward()
        return y.detach()

    for pattern in (False, True, True, False, False, False):
        fail[0] = pattern
        w.grad = None
        if pattern:
            with pytest.raises(KeyError, match="mine"):
                f(fd.ones(3))
        else:
            same(f(fd.ones(3)), np.float32(3))
            same(w.grad, np.ones(3, np.float32))
        assert not fd._C.recording()
    gc.collect()


def test_errors_of_ops_inside():
    f = fd.compile(lambda x, y: x @ y)
    for _ in range(3):
        with pytest.raises(fd.ShapeError, match="matmul"):
            f(fd.ones((2, 3)), fd.ones((2, 3)))
    same(call(f, fd.ones((2, 3)), fd.ones((3, 1))), np.full((2, 1), 3, np.float32))


def test_threads_share_a_captured_function():
    @fd.compile
    def f(x):
        return fd.tanh(x @ x).sum(axis=0)

    errors: list[Any] = []

    def work(k):
        try:
            x = fd.array(np.random.default_rng(k).normal(size=(120, 120)).astype("float32"))
            want = np.asarray(fd.tanh(x @ x).sum(axis=0))
            for _ in range(25):
                np.testing.assert_array_equal(np.asarray(f(x)), want)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]


def test_threads_with_functions_of_their_own():
    """One records while others train and draw from generators of their own."""
    errors: list[Any] = []

    def run(k, wrap):
        rng = fd.Generator(k)
        w = fd.array(np.random.default_rng(k).normal(size=(40, 40)).astype("float32")).requires_grad_()
        o = optim.Adam([w], lr=1e-2)

        def step():
            o.zero_grad()
            loss = fd.square(w @ fd.random.normal((40, 40), rng=rng)).mean()
            loss.backward()
            o.step()
            return loss

        step = wrap(step)
        losses = [step().item() for _ in range(15)]
        return losses, np.asarray(w.detach()).copy()

    def work(k):
        try:
            for _ in range(3):
                a, b = run(k, fd.compile), run(k, lambda f: f)
                assert a[0] == b[0]
                np.testing.assert_array_equal(a[1], b[1])
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]
    from fastdl import random as r

    assert getattr(r, "_capture", None) is None


def test_work_of_another_thread_inside():
    """Ops that another thread runs for the function are not recorded: it runs eagerly, or says so."""

    @fd.compile
    def f(x):
        out = []
        t = threading.Thread(target=lambda: out.append(x * 2))
        t.start()
        t.join()
        return out[0] + 1

    for k in range(6):
        try:
            same(f(fd.full(2, float(k))), np.full(2, 2 * k + 1, np.float32))
        except fd.CaptureError as e:
            assert "thread" in str(e)
            break


def test_garbage_collection_while_recording():
    _model, _optimizer, step = trainer()

    @fd.compile
    def f(x):
        junk = [fd.ones(5) for _ in range(10)]
        junk.append(junk)  # a cycle
        loss = step(x)
        gc.collect()
        return loss

    _twin, _, eager = trainer()
    for _ in range(5):
        same(f(fd.array(X)), eager(fd.array(X)))
    assert f.programs == 1


def test_cycles_that_hold_tensors():
    def f(x):
        y = x * 2
        box: list[Any] = [y]
        box.append(box)
        return y + 1

    c = fd.compile(f)
    for k in range(5):
        same(c(fd.full(2, float(k))), np.full(2, 2 * k + 1, np.float32))
    assert c.programs == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_after_recording():
    f = fd.compile(lambda x: fd.tanh(x @ x).sum())
    x = fd.array(np.random.default_rng(0).normal(size=(200, 200)).astype("float32"))
    want = call(f, x).item()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if f(x).item() == want else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert f(x).item() == want


def test_memory_limit_then_recovery():
    @fd.compile
    def f(x):
        return fd.exp(x) * 2

    x = fd.zeros(300_000)
    call(f, x)
    fd.memory.empty_cache()
    try:
        fd.memory.set_limit(fd.memory.stats()["in_use"] + 100_000)
        for _ in range(3):
            with pytest.raises(fd.OutOfMemoryError):
                f(x)
    finally:
        fd.memory.set_limit(0)
    same(f(x), np.full(300_000, 2, np.float32))


def test_no_memory_for_the_plan():
    """When the plan does not fit, the recorded call still returns what it computed."""
    done = fd.zeros(())

    @fd.compile(passes={"arena": False})
    def f(x):
        done.add_(1.0)
        for _ in range(20):
            x = fd.exp(x) * 0.1
        return x.sum()

    x = fd.zeros(100_000)
    want = f(x).item()
    fd.memory.empty_cache()
    try:
        fd.memory.set_limit(fd.memory.stats()["in_use"] + 3_000_000)
        for _ in range(3):
            assert f(x).item() == want
    finally:
        fd.memory.set_limit(0)
    assert done.item() == 4


# ---- constants made inside --------------------------------------------------------------------------------------------------


def test_constants_inside():
    def f(x):
        a = fd.array([1.0, 2.0, 3.0])
        b = fd.arange(3.0)
        c = fd.zeros(3)
        c[1] = 4.0
        c += x[0]
        d = fd.array(np.full(3, 0.5, np.float32))
        a += x[1]  # a constant that is changed: the next call starts from the constant again
        e = fd.from_numpy(np.array([1.0, 0.0, 1.0], np.float32))
        return fd.stack([a, b * d, c, fd.eye(3)[1] * e, fd.linspace(0, 1, 3)])

    c = fd.compile(f)
    for k in range(6):
        x = fd.array(X + k)
        same(c(x), f(x))
    assert c.programs == 1


def test_constant_written_through_numpy_between_uses():
    def f(x):
        a = fd.array([1.0, 2.0, 3.0])
        n = a.numpy()
        y = x * a
        n[0] = 50.0
        return y + x * a

    c = fd.compile(f)
    for k in range(5):
        x = fd.array(X + k)
        try:
            same(c(x), f(x))
        except fd.CaptureError as e:
            assert "numpy: a captured function must not read" in str(e)


def test_numpy_memory_seen_by_closure():
    data = np.ones(3, np.float32)
    c = fd.compile(lambda x: x * fd.from_numpy(data) + fd.from_numpy(data))
    for k in range(6):
        data[:] = k
        same(c(fd.ones(3)), np.full(3, 2 * k, np.float32))


def test_numpy_memory_written_by_closure():
    data = np.zeros(3, np.float32)

    @fd.compile
    def f(x):
        a, b = fd.from_numpy(data), fd.from_numpy(data)
        a += x
        y = b * 2
        b += x
        return y + a * 10

    want = np.zeros(3, np.float32)
    for _ in range(6):
        want += 1
        y = want * 2
        want += 1
        same(f(fd.ones(3)), y + want * 10)
        np.testing.assert_array_equal(data, want)


def test_results_without_any_tensor_input():
    c = fd.compile(lambda: fd.zeros(3))
    a = c()
    for _ in range(5):
        b = c()
        b += 1
    same(a, np.zeros(3, np.float32))
    same(c(), np.zeros(3, np.float32))
    none = fd.compile(lambda x: None)
    assert call(none, fd.ones(2)) is None


def test_winograd_setting():
    """Settings that choose kernels are part of a call's kind."""
    conv = nn.Conv2d(16, 16, 3, padding=1)
    c = fd.compile(lambda x: conv(x).detach())
    x = fd.array(np.random.default_rng(0).normal(size=(2, 16, 24, 24)).astype("float32"))
    before = fd.set_conv_winograd(True)
    try:
        for allowed in (True, True, True, False, False, False, True):
            fd.set_conv_winograd(allowed)
            same(c(x), conv(x))
    finally:
        fd.set_conv_winograd(before)


def test_thread_count_between_calls():
    c = fd.compile(lambda x: fd.tanh(x @ x).sum(axis=0))
    x = fd.array(np.random.default_rng(0).normal(size=(150, 150)).astype("float32"))
    before = fd.get_num_threads()
    try:
        for n in (1, 1, 1, 3, 2, 1):
            fd.set_num_threads(n)
            same(c(x), fd.tanh(x @ x).sum(axis=0))
    finally:
        fd.set_num_threads(before)


def test_gradient_mode_left_changed():
    w = nn.Parameter(fd.ones(2))

    @fd.compile
    def f(x):
        y = (w * x).detach()
        fd._C.set_grad_enabled(False)
        return y

    try:
        for _ in range(5):
            fd._C.set_grad_enabled(True)
            f(fd.ones(2))
            assert not fd._C.grad_enabled()
    finally:
        fd._C.set_grad_enabled(True)


def test_compile_refuses_what_it_cannot_call():
    with pytest.raises(TypeError, match="function"):
        fd.compile(3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="passes"):
        fd.compile(lambda: 1, passes={"magic": False})
    f = fd.compile(lambda x: x)
    assert fd.compile(f) is f
