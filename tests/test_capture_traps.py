"""Known traps of captured functions: reading values, randomness, settings, Python values, modules. Each gives the numbers of the eager call, or an error that says what to do."""

from __future__ import annotations

import functools
import os
import pickle
import random
import types
from typing import Any

import numpy as np
import pytest
from capture_traps import X, against, call, no_recording_is_left_behind, same, trainer  # noqa: F401

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

HERE = os.path.basename(__file__)


# ---- reading values inside -------------------------------------------------------------------------------------------------


def through_dlpack(x):
    return np.from_dlpack(x)


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: 1 if x.sum() > 0 else 2,
    "float": lambda x: float(x.sum()),
    "int": lambda x: int(x.sum()),
    "index": lambda x: [1, 2, 3][x.sum().astype("int64") * 0],
    "numpy": lambda x: (x * 2).numpy(),
    "asarray": lambda x: np.asarray(x * 2),
    "tolist": lambda x: (x * 2).tolist(),
    "dlpack": through_dlpack,
    "print": lambda x: str(x),
    "repr": lambda x: repr(x + 1),
    "format": lambda x: f"{x.sum():.3f}",
    "iteration of values": lambda x: [float(v) for v in x[0]],
    "mask": lambda x: x[x > 1].sum(),
    "nonzero": lambda x: fd.nonzero(x)[0],
    "contains": lambda x: 3.0 in x,
    "max in Python": lambda x: max(x[0, 0], x[0, 1]),
    "pickle": lambda x: pickle.dumps(x * 2),
    "one_hot without a number of classes": lambda x: F.one_hot(x.astype("int64")),
    "permutation": lambda x: fd.random.permutation(3),
}


@pytest.mark.parametrize("name", READS)
def test_reading_values(name):
    f = fd.compile(lambda x: READS[name](x))
    x = fd.array(X)
    f(x)  # eager: allowed
    with pytest.raises(fd.CaptureError) as error:
        f(x)
    text = str(error.value)
    assert HERE in text and ("return the tensor" in text or "shape" in text or "outside" in text), text
    same(fd.compile(lambda x: x + 1)(x), X + 1)  # nothing is left recording
    assert not fd._C.recording()


def test_values_from_python_may_be_read():
    def f(x):
        t = fd.array([1.0, 2.0, 3.0])
        return x * t.numpy().size + t.tolist()[1]

    c = fd.compile(f)
    for _ in range(4):
        try:
            same(c(fd.array(X)), X * 3 + 2)
        except fd.CaptureError as e:  # memory that NumPy may write meanwhile
            assert "numpy: a captured function must not read" in str(e)


# ---- randomness ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: np.random.normal(size=3)[0]])  # noqa: NPY002
def test_python_random(draw):
    f = fd.compile(lambda x: x * float(draw()))
    f(fd.ones(3))
    with pytest.raises(fd.CaptureError, match="random"):
        f(fd.ones(3))


def test_numpy_generator():
    rng = np.random.default_rng(0)
    f = fd.compile(lambda: fd.random.uniform(3, rng=rng))
    f()
    with pytest.raises(fd.CaptureError, match="NumPy generator"):
        f()


def test_numpy_generator_read_directly():
    rng = np.random.default_rng(0)
    f = fd.compile(lambda x: x * rng.normal())
    f(fd.ones(3))
    with pytest.raises(fd.CaptureError, match="random"):
        f(fd.ones(3))


def test_int_seed_gives_the_same_numbers_each_time():
    f = fd.compile(lambda: fd.random.uniform(3, rng=7))
    for _ in range(5):
        same(f(), fd.random.uniform(3, rng=7))


def test_fresh_entropy_inside():
    f = fd.compile(lambda: fd.random.uniform(5, rng=fd.Generator()))
    f()
    with pytest.raises(fd.CaptureError, match="Generator"):
        for _ in range(4):
            f()


def test_seeds_between_calls():
    f = fd.compile(lambda: fd.random.normal(4) + fd.random.uniform(4))

    def g():
        return fd.random.normal(4) + fd.random.uniform(4)

    for seed in (1, 2, 3, 1, 2, 3, 2**63 + 5):
        fd.manual_seed(seed)
        a = [f(), f()]
        state = fd.random.default_generator.get_state()
        fd.manual_seed(seed)
        for t in a:
            same(t, g())
        assert fd.random.default_generator.get_state() == state


def test_seed_inside():
    def f():
        fd.manual_seed(3)
        return fd.random.normal(4)

    c = fd.compile(f)
    for _ in range(5):
        fd.manual_seed(99)
        got, after = c(), fd.random.default_generator.get_state()
        fd.manual_seed(99)
        same(got, f())
        assert fd.random.default_generator.get_state() == after


def test_draw_then_seed_at_the_same_place():
    """The default stream stands where the fixed seed starts: two draws with equal seed and offset that part ways later."""

    def f(x):
        y = F.dropout(x, 0.5, training=True)
        z = fd.random.uniform(6, rng=0)
        return y, z

    c = fd.compile(f)
    x = fd.ones(6)
    for seed in (0, 0, 0, 4, 5):
        fd.manual_seed(seed)
        a = c(x)
        fd.manual_seed(seed)
        for got, want in zip(a, f(x)):
            same(got, want)


def test_equal_generators_that_part_ways():
    def make():
        a, b = fd.Generator(1), fd.Generator(1)
        w = nn.Parameter(fd.ones(64))

        def f():
            w.grad = None
            (fd.random.dropout(w, 0.5, rng=a) * 2 + fd.random.dropout(w, 0.5, rng=b) * 3).sum().backward()
            return w.grad

        return f, a, b

    (f, _a, b), (g, _c, d) = make(), make()
    f = fd.compile(f)
    for k in range(6):
        if k == 3:
            b.manual_seed(2), d.manual_seed(2)
        same(f(), g())


def test_state_of_a_generator_set_inside():
    def f():
        fd.random.default_generator.set_state((5, 1000))
        return fd.random.uniform(4)

    c = fd.compile(f)
    for seed in (5, 5, 5, 6):
        fd.manual_seed(seed)
        try:
            got = c()
        except fd.CaptureError as e:
            assert "generator" in str(e)
            break
        fd.manual_seed(seed)
        same(got, f())


def test_offset_that_wraps_around():
    top = 2**63
    f = fd.compile(lambda: fd.random.uniform(40))
    for start in (top - 30, top - 15, top - 35, top - 1, top - 5):
        fd.random.default_generator.set_state((8, start))
        got = [f(), f()]
        after = fd.random.default_generator.get_state()
        fd.random.default_generator.set_state((8, start))
        for t in got:
            same(t, fd.random.uniform(40))
        assert fd.random.default_generator.get_state() == after
    fd.manual_seed(0)


def test_shuffle_inside_is_refused():
    f = fd.compile(lambda x: fd.random.shuffle(x))
    x = fd.arange(5)
    f(x)
    with pytest.raises(fd.CaptureError, match="permutation"):
        f(x)


# ---- settings of optimisers --------------------------------------------------------------------------------------------------


def test_learning_rate_between_calls():
    (m, o, step), (n, p, eager) = trainer(momentum=0.9), trainer(momentum=0.9)
    step = fd.compile(step)
    for k in range(8):
        o.param_groups[0]["lr"] = p.param_groups[0]["lr"] = 0.1 / (k + 1)
        o.param_groups[0]["momentum"] = p.param_groups[0]["momentum"] = 0.9 - 0.05 * k
        same(step(fd.array(X)), eager(fd.array(X)))
    assert step.programs == 1
    same(m[0].weight, n[0].weight)


def test_scheduler_inside():
    _model, optimizer, step = trainer()
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    @fd.compile
    def f(x):
        loss = step(x)
        scheduler.step()
        return loss

    f(fd.array(X))
    with pytest.raises(fd.CaptureError, match="outside"):
        f(fd.array(X))


def test_momentum_switched_on_later():
    (m, o, step), (n, p, eager) = trainer(), trainer()
    step = fd.compile(step)
    for k in range(8):
        if k == 4:
            o.param_groups[0]["momentum"] = p.param_groups[0]["momentum"] = 0.9
        same(step(fd.array(X)), eager(fd.array(X)))
        same(m[0].weight, n[0].weight)


def test_parameters_added_to_an_optimiser():
    def make():
        w, v = nn.Parameter(fd.ones(3)), nn.Parameter(fd.ones(3))
        o = optim.SGD([w], lr=0.1)

        def step():
            o.zero_grad()
            (w * w + v * v).sum().backward()
            o.step()
            return fd.stack([w.detach(), v.detach()])

        return step, o, v

    (step, o, v), (eager, p, u) = make(), make()
    step = fd.compile(step)
    for k in range(8):
        if k == 4:
            o.add_param_group({"params": [v]}), p.add_param_group({"params": [u]})
        same(step(), eager())


# ---- Python values that change ---------------------------------------------------------------------------------------------

scale = 2.0
table = fd.ones(3)


def helper(x):
    return x * scale


def activation(x):
    return fd.tanh(x)


def test_global_number():
    global scale
    f, g = fd.compile(lambda x: x * scale), fd.compile(lambda x: helper(x) + 1)
    for scale in (2.0, 2.0, 2.0, 3.0, 3.0, 2.0, -0.0):
        same(f(fd.ones(2)), np.full(2, scale, np.float32))
        same(g(fd.ones(2)), np.full(2, scale + 1, np.float32))
    scale = 2.0


def test_global_function_replaced(monkeypatch):
    f = fd.compile(lambda x: activation(x))
    call(f, fd.ones(2))
    monkeypatch.setitem(globals(), "activation", fd.exp)
    same(f(fd.ones(2)), fd.exp(fd.ones(2)))


def test_global_tensor_replaced(monkeypatch):
    f = fd.compile(lambda x: x * table)
    call(f, fd.ones(3))
    table[0] = 5.0  # in place: seen
    same(f(fd.ones(3)), [5.0, 1.0, 1.0] * fd.ones(3))
    table[0] = 1.0
    monkeypatch.setitem(globals(), "table", fd.full(3, 7.0))
    same(f(fd.ones(3)), np.full(3, 7, np.float32))


def test_closure_number_and_tensor():
    a, t = 1.0, fd.ones(2)

    @fd.compile
    def f(x):
        return x * a + t

    for a in (1.0, 1.0, 1.0, 2.0, 2.0, 1.0):
        same(f(fd.ones(2)), np.full(2, a + 1, np.float32))
    t = fd.zeros(2)
    same(f(fd.ones(2)), np.full(2, a, np.float32))


def test_attribute_of_an_object():
    config = types.SimpleNamespace(scale=1.0)

    class Trainer:
        def __init__(self):
            self.factor = 1.0

        @fd.compile
        def step(self, x):
            return x * self.factor * config.scale

    t = Trainer()
    for a, b in ((1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (2, 3), (1, 1)):
        t.factor, config.scale = float(a), float(b)
        same(t.step(fd.ones(2)), np.full(2, a * b, np.float32))


def test_methods_have_programs_of_their_own():
    class Box:
        def __init__(self, k):
            self.k = fd.full((), float(k))

        @fd.compile
        def f(self, x):
            return x * self.k

    boxes = [Box(k) for k in range(3)]
    for _ in range(4):
        for k, box in enumerate(boxes):
            same(box.f(fd.ones(2)), np.full(2, k, np.float32))
    assert Box.f is Box.__dict__["f"]


def test_default_and_partial_arguments():
    f = fd.compile(functools.partial(lambda x, k=1.0: x * k, k=3.0))
    same(call(f, fd.ones(2)), np.full(2, 3, np.float32))


def test_counter_in_python():
    """State that Python keeps: the call runs eagerly and stays right."""

    def make():
        count = 0

        def f(x):
            nonlocal count
            count += 1
            return x * count

        return f

    against(make, [(fd.ones(2),)] * 8, programs=0)


def test_counter_in_an_attribute():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    model = Counting()
    f = fd.compile(lambda x: model(x))
    for k in range(8):
        same(f(fd.ones(2)), np.full(2, k + 1, np.float32))


def test_tensors_kept_in_a_list():
    kept: list[Any] = []

    @fd.compile
    def f(x):
        kept.append(x * 2)
        return x

    for k in range(8):
        f(fd.full(2, float(k)))
    for k, t in enumerate(kept):
        same(t, np.full(2, 2 * k, np.float32))
    assert len(kept) == 8 and "changes kept" in f.reason


def test_arguments_kept_in_a_list():
    kept: list[Any] = []

    @fd.compile
    def f(x, y):
        kept.append(x)
        kept.append(y[0])
        return x + y

    for k in range(8):
        f(fd.full(2, float(k)), fd.full(2, float(k)))
    assert [float(t.sum()) / t.size for t in kept] == [float(k // 2) for k in range(16)]


def test_tensor_kept_in_an_attribute_or_variable():
    last = None
    box = types.SimpleNamespace(state=fd.zeros(2))

    @fd.compile
    def f(x):
        nonlocal last
        last = x + 1
        box.state = box.state * 0.5 + x
        return box.state * 2

    state = np.zeros(2, np.float32)
    for k in range(8):
        state = state * np.float32(0.5) + np.float32(k)
        same(f(fd.full(2, float(k))), state * 2)
        same(last, np.full(2, k + 1, np.float32))


def test_state_updated_in_place_is_recorded():
    state = fd.zeros(2)

    @fd.compile
    def f(x):
        state.copy_(state * 0.5 + x)
        return state * 2

    want = np.zeros(2, np.float32)
    for k in range(8):
        want = want * np.float32(0.5) + np.float32(k)
        same(f(fd.full(2, float(k))), want * 2)
        same(state, want)
    assert f.programs == 1


def test_iterator_inside():
    data = iter([fd.full(2, float(k)) for k in range(10)])

    @fd.compile
    def f():
        return next(data) * 2

    for k in range(8):
        try:
            same(f(), np.full(2, 2 * k, np.float32))
        except fd.CaptureError as e:
            assert "iterator" in str(e)
            break
