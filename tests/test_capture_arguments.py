"""Known traps of captured functions: arguments and indices."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import types
from typing import Any

import numpy as np
import pytest
from capture_traps import X, against, call, no_recording_is_left_behind, same, trainer  # noqa: F401

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

HERE = os.path.basename(__file__)


# ---- arguments -----------------------------------------------------------------------------------------------------------------


def test_shapes_dtypes_strides():
    f = fd.compile(lambda x: fd.tanh(x * 2).sum(axis=-1) + x[..., 0])
    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 8))
    kinds = [
        lambda a: fd.array(a.astype("float32")),
        lambda a: fd.array(a),
        lambda a: fd.array(a.astype("float32")).T,
        lambda a: fd.array(a.astype("float32"))[::2],
        lambda a: fd.array(a.astype("float32"))[:, ::-1],
        lambda a: fd.array(a.astype("float32"))[1:3],
        lambda a: fd.array(a.astype("float32"))[:0],
        lambda a: fd.broadcast_to(fd.array(a[:1].astype("float32")), (6, 8)),
        lambda a: fd.array(a.astype("float16")),
    ]
    for k in range(4):
        for kind in kinds:
            x = kind(base + k)
            same(f(x), fd.tanh(x * 2).sum(axis=-1) + x[..., 0])
    assert 1 < f.programs <= 16


def test_empty_batch_first():
    model = nn.Linear(3, 2)
    f = fd.compile(lambda x: model(x).detach())
    for n in (0, 0, 0, 2, 2, 2, 0, 2):
        same(f(fd.ones((n, 3))), model(fd.ones((n, 3))))


def test_keywords_and_positions():
    def f(x, y, *, k=1.0):
        return x - y * k

    c = fd.compile(f)
    a, b = fd.array(X), fd.array(X) + 3
    for _ in range(4):
        same(c(a, b), f(a, b))
        same(c(b, a), f(b, a))
        same(c(a, y=b), f(a, b))
        same(c(y=b, x=a), f(a, b))
        same(c(x=a, y=b, k=2.0), f(a, b, k=2.0))


Pair = collections.namedtuple("Pair", "x y")


class Shape(tuple):
    __slots__ = ()


@dataclasses.dataclass
class Batch:
    x: Any
    y: Any


def test_nested_structures():
    def f(d):
        return {"out": Pair(d["p"].x * 2, d["l"][0][0] + d["p"].y), "list": [d["p"].y, None, "text", 3]}

    c = fd.compile(f)
    for k in range(5):
        d = {"p": Pair(fd.full(2, float(k)), fd.ones(2)), "l": [(fd.full(2, 3.0 * k),)]}
        got = c(d)
        assert type(got["out"]) is Pair and got["list"][1:] == [None, "text", 3]
        same(got["out"].x, np.full(2, 2 * k, np.float32))
        same(got["out"].y, np.full(2, 3 * k + 1, np.float32))
        assert got["list"][0] is d["p"].y
    assert c.programs == 1


@pytest.mark.parametrize("kind", [collections.OrderedDict, lambda **kw: collections.defaultdict(list, **kw), lambda **kw: Batch(**kw), lambda **kw: types.SimpleNamespace(**kw)])
def test_containers_that_are_changed(kind):
    """One container object whose tensors are other ones at each call."""
    box = kind(x=fd.ones(2), y=fd.ones(2))

    @fd.compile
    def f(b):
        get = b.__getitem__ if isinstance(b, dict) else functools.partial(getattr, b)
        return get("x") * 2 + get("y")

    for k in range(8):
        if isinstance(box, dict):
            box["x"] = fd.full(2, float(k))
        else:
            box.x = fd.full(2, float(k))
        same(f(box), np.full(2, 2 * k + 1, np.float32))


def test_tuple_subclass():
    f = fd.compile(lambda s: s[0] * 2 + s[1])
    for k in range(5):
        same(f(Shape([fd.full(2, float(k)), fd.ones(2)])), np.full(2, 2 * k + 1, np.float32))


def test_results_in_odd_containers():
    def f(x):
        return collections.OrderedDict(a=x * 2, b=Batch(x + 1, None))

    c = fd.compile(f)
    for k in range(8):
        got = c(fd.full(2, float(k)))
        assert isinstance(got, collections.OrderedDict)
        same(got["a"], np.full(2, 2 * k, np.float32))
        same(got["b"].x, np.full(2, k + 1, np.float32))


def test_scalars_that_vary():
    f = fd.compile(lambda x, k: x * k)
    for k in range(600):
        same(f(fd.ones(2), k), np.full(2, k, np.float32))
    for _ in range(3):
        for k in range(40):
            same(f(fd.ones(2), k), np.full(2, k, np.float32))
    assert f.programs <= 16 and len(f._seen) <= 256
    for a, b in ((1, True), (1, 1.0), (0.0, -0.0)):
        g = fd.compile(lambda x, k: x / k if k.__class__ is float else x * (7 if k is True else 3))
        for k in (a, a, a, b, b, b, a):
            same(g(fd.ones(2), k), fd.ones(2) / k if isinstance(k, float) else fd.ones(2) * (7 if k is True else 3))


def test_numpy_scalars_are_values():
    f = fd.compile(lambda x, k: x * k)
    for k in range(3):
        for _ in range(4):
            same(f(fd.ones(2), np.float32(k)), np.full(2, k, np.float32))
    assert f.programs == 3
    before = f.programs
    f(fd.ones(2), np.float32(1))
    assert f.programs == before  # replayed


def test_one_tensor_twice_then_two():
    def f(a, b):
        a += 1
        return a * b

    c = fd.compile(f)
    for k in range(9):
        x, y = fd.full(3, 2.0), fd.full(3, 2.0)
        x2, y2 = x.copy(), y.copy()
        if k % 3:
            same(c(x, x), f(x2, x2))
        else:
            same(c(x, y), f(x2, y2))
        same(x, x2)


def test_overlapping_views_as_arguments():
    def f(a, b):
        a *= 2
        b += 1
        return a - b

    c = fd.compile(f)
    for k in range(8):
        p, q = fd.arange(6.0) + k, fd.arange(6.0) + k
        s = k % 3  # another overlap each time
        same(c(p[:3], p[s : s + 3]), f(q[:3], q[s : s + 3]))
        same(p, q)


def test_overlapping_numpy_arrays():
    def f(a, b):
        a = fd.asarray(a)
        b = fd.asarray(b)
        a *= 2
        b += 1
        return a - b

    c = fd.compile(f)
    for k in range(8):
        p, q = np.arange(6.0) + k, np.arange(6.0) + k
        same(c(p[:3], p[1:4]), f(q[:3], q[1:4]))
        np.testing.assert_array_equal(p, q)


def test_overlap_only_at_replay():
    def f(a, b):
        a *= 2
        return a - b

    c = fd.compile(f)
    for k in range(6):
        p, q = np.arange(6.0), np.arange(6.0)
        s = 3 if k < 3 else 1
        same(c(fd.from_numpy(p)[:3], fd.from_numpy(p)[s : s + 3]), f(fd.from_numpy(q)[:3], fd.from_numpy(q)[s : s + 3]))


def test_parameter_as_argument_and_by_closure():
    def make():
        w = nn.Parameter(fd.ones(3))
        o = optim.SGD([w], lr=0.1)

        def f(p, x):
            o.zero_grad()
            loss = (p * w * x).sum()
            loss.backward()
            o.step()
            return loss.detach(), p.detach().copy()

        return f, w

    (f, w), (g, v) = make(), make()
    f = fd.compile(f)
    for k in range(6):
        x = fd.full(3, 1.0 + k)
        for a, b in zip(f(w, x), g(v, x)):
            same(a, b)
        same(w.grad, v.grad)


def test_argument_shares_memory_with_a_parameter():
    """What the function updates by closure it also gets as an argument, as plain memory."""

    def make():
        w = nn.Parameter(fd.ones(3))

        def f(p):
            before = p * 2
            with fd.no_grad():
                w.mul_(3.0)
            return before + p * 2

        return f, w

    (f, w), (g, v) = make(), make()
    f = fd.compile(f)
    for _ in range(5):
        try:
            got = f(w.detach())
        except fd.CaptureError as e:
            assert "argument" in str(e)
            break
        same(got, g(v.detach()))
        same(w, v)


def test_argument_shares_memory_only_at_replay():
    state = fd.ones(3)

    @fd.compile
    def f(p):
        before = p * 2
        state.mul_(3.0)
        return before + p * 2

    call(f, fd.ones(3))
    start = np.asarray(state).copy()
    try:
        same(f(state), start * 2 + start * 6)
    except fd.CaptureError as e:
        assert "argument" in str(e)


def test_argument_modified_in_place():
    def f(x, y):
        x += y
        x[0] = 7.0
        y.zero_()
        return x.sum()

    c = fd.compile(f)
    for k in range(6):
        a, b, p, q = (fd.full((2, 2), float(k + j)) for j in (0, 1, 0, 1))
        view = a[1]
        same(c(a, b), f(p, q))
        same(a, p), same(b, q), same(view, p[1])
    assert c.programs == 1


def test_argument_in_place_then_error():
    """What happened to an argument before the function failed stays, also on the recorded call."""

    def make():
        return lambda x, bad: (x.add_(1.0), x.reshape((7,)) if bad else x)[1]

    c, f = fd.compile(make()), make()
    for bad in (True, True, True, False, False, False, True):
        x, y = fd.ones(2), fd.ones(2)
        for g, t in ((c, x), (f, y)):
            if bad:
                with pytest.raises(fd.ShapeError):
                    g(t, bad)
            else:
                g(t, bad)
        same(x, y)


def test_argument_and_views_of_it_returned():
    c = fd.compile(lambda x: (x, x[0], x.T))
    for _ in range(4):
        x = fd.zeros((2, 3))
        a, b, t = c(x)
        assert a is x
        b += 1
        t[2, 1] = 5.0
        same(x, [[1.0, 1.0, 1.0], [0.0, 0.0, 5.0]] * fd.ones((2, 3)))


def test_result_modified_by_the_caller():
    c = fd.compile(lambda x: x * 2)
    for _ in range(6):
        y = c(fd.ones(3))
        same(y, np.full(3, 2, np.float32))
        y *= 100
    z = [c(fd.full(3, float(k))) for k in range(5)]
    for k, t in enumerate(z):
        same(t, np.full(3, 2 * k, np.float32))


def test_state_carried_by_the_caller():
    fd.manual_seed(0)
    layer = nn.LSTM(3, 4, batch_first=True)

    def cell(x, state):
        _, (h, c) = layer(x.reshape((2, 1, 3)), tuple([s.reshape((1, 2, 4)) for s in state]))
        return h[0], c[0]

    def f(x, state):
        h, c = cell(x, state)
        return h.detach(), c.detach()

    step = fd.compile(f)
    a = b = (fd.zeros((2, 4)), fd.zeros((2, 4)))
    for k in range(12):
        x = fd.array(X + k)
        a, b = step(x, a), f(x, b)
        same(a[0], b[0]), same(a[1], b[1])
    assert step.programs == 1


def test_result_and_argument_are_one_memory():
    """The result of one call is updated in place by the next."""
    c = fd.compile(lambda x: x.mul_(2.0))
    x = fd.ones(3)
    y = x
    for k in range(6):
        y = c(y)
        same(x, np.full(3, 2.0 ** (k + 1), np.float32))


def test_one_result_twice():
    c = fd.compile(lambda x: (lambda y: (y, y, y[0]))(x * 2))
    for _ in range(4):
        a, b, v = c(fd.ones((2, 2)))
        v += 1
        same(a, b), same(a[0], v)


def test_numpy_arrays_as_arguments():
    c = fd.compile(lambda x: fd.asarray(x) * 2 + 1)
    a = np.ones(3, np.float32)
    for k in range(6):
        a[:] = k
        same(c(a), np.full(3, 2 * k + 1, np.float32))
    for dtype in ("float64", "int32", "int32", "int32"):
        same(c(np.ones(3, dtype)), np.full(3, 3, dtype))
    assert c.programs >= 2


def test_numpy_arrays_arrive_as_tensors_every_time():
    c = fd.compile(lambda x: x * 0.1)
    for _ in range(4):
        got = c(np.ones(3, np.float32))
        assert isinstance(got, fd.Tensor) and got.dtype == fd.float32


def test_read_only_and_reversed_arrays():
    c = fd.compile(lambda x: fd.asarray(x) + 1)
    a = np.arange(3.0)
    a.flags.writeable = False
    for _ in range(4):
        same(c(a), a + 1)
        same(c(a[::-1]), a[::-1] + 1)


# ---- indices -------------------------------------------------------------------------------------------------------------------


def test_bad_class_in_a_later_replay():
    model, optimizer, _ = trainer(momentum=0.9)
    head = nn.Linear(1, 4)
    both = [*model.parameters(), *head.parameters()]
    optimizer = optim.SGD(both, lr=0.1, momentum=0.9)

    @fd.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(head(F.dropout(model(x), 0.1, training=True)), y)
        loss.backward()
        optimizer.step()
        return loss

    good = fd.array([0, 3])
    call(step, fd.array(X), good)
    before = [np.asarray(p.detach()).copy() for p in both]
    state = fd.random.default_generator.get_state()
    for bad in ([0, 4], [-5, 0], [0, 2**40]):
        with pytest.raises(IndexError, match="class"):
            step(fd.array(X), fd.array(bad))
    for p, b in zip(both, before):
        same(p, b)
        assert p.grad is not None
    assert fd.random.default_generator.get_state() == state
    assert np.isfinite(step(fd.array(X), good).item()) and step.programs == 1


@pytest.mark.parametrize("name", ["getitem", "embedding", "take", "take_along_axis", "setitem", "one_hot", "computed"])
def test_bad_index_in_a_later_replay(name):
    table = nn.Embedding(5, 2)

    def f(i):
        if name == "getitem":
            return table.weight.detach()[i, 1]
        if name == "embedding":
            return table(i).detach()
        if name == "take":
            return fd.take(table.weight.detach(), i, axis=0)
        if name == "take_along_axis":
            return fd.take_along_axis(table.weight.detach(), i.reshape((-1, 1)), axis=0)
        if name == "setitem":
            t = fd.zeros(5)
            t[i] = 1.0
            return t
        if name == "one_hot":
            return F.one_hot(i, 5)
        return table(i + 1 - 1).detach()

    c = fd.compile(f)
    for good in ([0, 4], [1, 2], [3, 3], [4, 0]):
        same(c(fd.array(good)), f(fd.array(good)))
    for bad in ([0, 5], [2, 700000]):
        with pytest.raises(IndexError):
            f(fd.array(bad))
        with pytest.raises(IndexError):
            c(fd.array(bad))
    same(c(fd.array([2, 2])), f(fd.array([2, 2])))
    assert c.programs == 1
