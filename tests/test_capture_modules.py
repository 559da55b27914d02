"""Traps of captured functions, continued: modules that change, and functions that are not strict. See test_capture_traps.py."""

from __future__ import annotations

import copy
import gc
import pickle
import types
import weakref

import numpy as np
import pytest
from capture_traps import X, against, call, no_recording_is_left_behind, same, trainer  # noqa: F401

import fastdl as fd
from fastdl import nn

# ---- modules ----------------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)
        self.scale = 1.0

    def forward(self, x):
        return self.b(self.drop(fd.tanh(self.a(x)))) * self.scale


def edit_scale(m):
    m.scale = 2.0


def edit_p(m):
    m.drop.p = 0.1


def replace_module(m):
    m.drop = nn.Identity()


def replace_layer(m):
    fd.manual_seed(17)
    m.a = nn.Linear(3, 4)


def replace_parameter(m):
    m.a.weight = nn.Parameter(fd.full((4, 3), 0.25))


def load(m):
    m.load_state_dict({k: v * 0 + 0.3 for k, v in m.state_dict().items()})


def to_double(m):
    m.to("float64")


def set_data(m):
    fd._C.set_data(m.b.bias, fd.full(2, 5.0))


def edit_data(m):
    m.b.bias.data[0] = 9.0


def fill(m):
    with fd.no_grad():
        m.a.bias.fill_(0.5)


def hook(m):
    m.a.register_forward_hook(lambda module, args, output: output * 3)


def evaluate(m):
    m.eval()


def only_dropout_eval(m):
    m.drop.eval()


def drop_bias(m):
    m.b.bias = None


def monkey_forward(m):
    m.drop.forward = lambda x: x * 5


def swap_children(m):
    m._modules["drop"] = m.__dict__["drop"] = nn.Identity()


EDITS = [edit_scale, edit_p, replace_module, replace_layer, replace_parameter, load, set_data, edit_data, fill, hook, evaluate, only_dropout_eval, drop_bias, monkey_forward]


@pytest.mark.parametrize("edit", [*EDITS, to_double])
def test_model_changed_between_calls(edit):
    def make():
        fd.manual_seed(4)
        return Net()

    m, n = make(), make()
    f = fd.compile(lambda x: m(x).detach())
    dtype = "float32"
    for k in range(9):
        if k == 4:
            edit(m), edit(n)
            dtype = "float64" if edit is to_double else dtype
        x = fd.array(X.astype(dtype))
        fd.manual_seed(k)
        got = f(x)
        fd.manual_seed(k)
        same(got, n(x))
    assert f.programs >= 1


def test_train_and_eval_in_turns():
    m = Net()
    f = fd.compile(lambda x: m(x).detach())
    for k in range(20):
        m.train(k % 3 == 0)
        fd.manual_seed(k)
        got = f(fd.array(X))
        fd.manual_seed(k)
        same(got, m(fd.array(X)))
    assert f.programs == 2


def test_mode_set_inside():
    m = Net()

    @fd.compile
    def f(x):
        m.train()
        y = m(x)
        m.eval()
        return (y + m(x)).detach()

    for k in range(10):
        m.train(k % 2 == 0)
        fd.manual_seed(k)
        got = f(fd.array(X))
        assert not m.training
        fd.manual_seed(k)
        m.train()
        want = m(fd.array(X))
        m.eval()
        same(got, want + m(fd.array(X)))


def test_deep_copies_and_pickles():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        @fd.compile
        def predict(self, x):
            return self.layer(x).detach()

    globals()["Model"] = Model  # where pickle finds it
    Model.__qualname__ = "Model"
    m = Model()
    want = np.asarray(call(m.predict, fd.array(X)))
    for twin in (copy.deepcopy(m), copy.copy(m), pickle.loads(pickle.dumps(m))):
        same(call(twin.predict, fd.array(X)), want)
    twin = copy.deepcopy(m)
    with fd.no_grad():
        twin.layer.weight.fill_(0.0)
    call(twin.predict, fd.array(X))
    same(m.predict(fd.array(X)), want)  # the copy has parameters of its own
    same(twin.predict(fd.array(X)), np.broadcast_to(np.asarray(twin.layer.bias.detach()), (2, 2)))


def test_weak_references():
    m = Net()
    f = fd.compile(lambda x, m=m: m(x).detach())
    call(f, fd.array(X))
    r = weakref.ref(m)
    x = fd.array(X)
    call(f, x)
    w = weakref.ref(x)
    del x
    assert w() is None  # a program does not keep its arguments
    del m, f
    gc.collect()
    assert r() is None


# ---- strict=False: eager instead of an error ---------------------------------------------------------------------------------


def test_not_strict_runs_eagerly(caplog):
    """A step that reads its loss, as many do: the recording goes on as an eager call, and nothing happens twice."""

    def make(wrap):
        model, optimizer, _ = trainer(momentum=0.9)
        losses = []

        def step(x):
            optimizer.zero_grad()
            loss = fd.square(fd.random.dropout(model(x), 0.5)).mean()
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            return loss.detach()

        fd.manual_seed(7)
        step = wrap(step)
        results = [step(fd.array(X + k)).item() for k in range(8)]
        return results, losses, [np.asarray(p.detach()).copy() for p in model.parameters()], step

    got, want = make(lambda f: fd.compile(f, strict=False)), make(lambda f: f)
    assert got[0] == want[0] and got[1] == want[1]
    for a, b in zip(got[2], want[2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert got[3].programs == 0 and "item" in got[3].reason
    assert sum("runs eagerly" in r.message for r in caplog.records) == 1  # one reason, once


@pytest.mark.parametrize("read", [lambda x, r: fd.random.permutation(2), lambda x, r: x * r.normal(), lambda x, r: fd.random.normal(2, rng=r)])
def test_not_strict_other_reasons(read):
    rngs = np.random.default_rng(0), np.random.default_rng(0)
    eager, captured = (lambda x: read(x, rngs[0]) * 1), fd.compile(lambda x: read(x, rngs[1]) * 1, strict=False)
    for k in range(6):
        fd.manual_seed(k)
        want = eager(fd.array(X[0]))
        fd.manual_seed(k)
        same(captured(fd.array(X[0])), want)


def test_changes_of_python_state_are_noticed():
    """Whatever the function changes by name is said, and it runs eagerly."""
    count = {"calls": 0}

    class Owner:
        def __init__(self):
            self.calls = 0

        def bump(self):
            self.calls += 1

        @fd.compile
        def step(self, x):
            self.bump()
            return x * self.calls

    def nested(x):
        def inner():
            count["calls"] += 1
            return count["calls"]

        return x * inner()

    owner, f = Owner(), fd.compile(nested)
    for k in range(7):
        same(owner.step(fd.ones(2)), np.full(2, k + 1, np.float32))
        same(f(fd.ones(2)), np.full(2, k + 1, np.float32))
    assert owner.step.programs == 0  # every call is one of another kind
    assert f.programs == 0 and "count" in f.reason


def test_settings_in_containers_and_nested_objects():
    table, rates = {"scale": 1.0}, [1.0, 2.0]
    config = types.SimpleNamespace(inner=types.SimpleNamespace(power=1))
    f = fd.compile(lambda x: (x * table["scale"] + rates[1]) ** config.inner.power)
    for k in range(12):
        table["scale"], rates[1], config.inner.power = float(k // 4), float(k // 6), 1 + k // 8
        same(f(fd.ones(2)), np.full(2, (k // 4 + k // 6) ** (1 + k // 8), np.float32))
    assert f.programs >= 2


def test_zero_and_its_negative_are_different_settings():
    setting = types.SimpleNamespace(z=0.0)
    f = fd.compile(lambda x: x / setting.z)
    for z in (0.0, 0.0, 0.0, -0.0, -0.0, -0.0, 0.0):
        setting.z = z
        with np.errstate(divide="ignore"):
            same(f(fd.ones(1)), np.float32([1]) / np.float32(z))


def test_settings_that_change_at_every_call_are_not_recorded_for_ever():
    setting = types.SimpleNamespace(k=0)
    runs = []

    def body(x):
        runs.append(None)
        return x * setting.k

    f = fd.compile(body)
    for k in range(200):
        setting.k = k
        same(f(fd.ones(2)), np.full(2, k, np.float32))
    assert len(runs) == 200 and f.programs == 0


def test_programs_go_with_what_they_belong_to():
    """An object that holds a captured function which holds the object's parameters is a cycle that the collector finds."""

    class Owner:
        def __init__(self):
            self.w = nn.Parameter(fd.ones(3))
            self.step = fd.compile(lambda x: (self.w * x).sum().detach())

    owner = Owner()
    call(owner.step, fd.ones(3))
    assert owner.step.programs == 1
    ref = weakref.ref(owner)
    tensor = weakref.ref(owner.w)
    del owner
    gc.collect()
    assert ref() is None and tensor() is None
