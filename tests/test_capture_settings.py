"""Traps of captured functions, continued: settings that Python code reads in every way it has, and models that change."""

from __future__ import annotations

import functools
import io
import random
import types
from typing import Any

import numpy as np
import pytest
from capture_traps import X, call, no_recording_is_left_behind, same  # noqa: F401

import fastdl as fd
from fastdl import nn, optim


class Loss:
    def __init__(self):
        self.v = 2.0

    def __call__(self, x):
        return x * self.v


class Schedule:
    shared = 2.0

    def __init__(self):
        self.v = 2.0

    @property
    def rate(self):
        return self.v

    @classmethod
    def of_class(cls, x):
        return x * cls.shared


class Attributes(dict):
    __getattr__ = dict.__getitem__


class WithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.config, self.temperatures = {"v": 2.0}, types.SimpleNamespace(v=2.0), [2.0]

    def forward(self, x):
        return x * self.table["v"] * self.config.v * self.temperatures[0]


def helper(x, config):
    return x * config.v


def by_partial():
    table = {"v": 2.0}
    return functools.partial(lambda t, x: x * t["v"], table), lambda: table.update(v=3.0)


def by_helper():
    config = types.SimpleNamespace(v=2.0)
    return lambda x: helper(x, config), lambda: setattr(config, "v", 3.0)


def by_closures_of_one_factory():
    def make(table):
        return lambda x: x * table["v"]

    tables = {"v": 1.0}, {"v": 2.0}
    first, second = make(tables[0]), make(tables[1])
    return lambda x: second(first(x)), lambda: tables[1].update(v=3.0)


def by(make, change):
    def build():
        o = make()
        return {Loss: lambda x: o(x), Schedule: lambda x: x * o.rate}[make], lambda: change(o)

    return build


def by_class_variable():
    Schedule.shared = 2.0
    o = Schedule()
    return lambda x: o.of_class(x), lambda: setattr(Schedule, "shared", 3.0)


def by_attribute_dict():
    config = Attributes(v=2.0)
    return lambda x: x * config.v, lambda: config.update(v=3.0)


def by_user_module(change):
    def build():
        m = WithState()
        m.table["v"], m.config.v, m.temperatures[0] = (2.0 if k == change else 1.0 for k in range(3))
        changes = [lambda: m.table.update(v=3.0), lambda: setattr(m.config, "v", 3.0), lambda: m.temperatures.__setitem__(0, 3.0)]
        return lambda x: m(x), changes[change]

    return build


def by_array():
    table = np.array([1.0, 2.0], np.float32)
    return lambda x: x * float(table[1]), lambda: table.__setitem__(1, 3.0)


def by_mode():
    layer = nn.Dropout(0.5)
    return lambda x: x * (2.0 if layer.training else 3.0), layer.eval


WAYS: dict[str, Any] = {
    "NumPy array": by_array,
    "mode of a layer that is not called": by_mode,
    "partial": by_partial,
    "helper": by_helper,
    "closures of one factory": by_closures_of_one_factory,
    "__call__": by(Loss, lambda o: setattr(o, "v", 3.0)),
    "property": by(Schedule, lambda o: setattr(o, "v", 3.0)),
    "class variable": by_class_variable,
    "attribute dict": by_attribute_dict,
    "dict of a module": by_user_module(0),
    "object of a module": by_user_module(1),
    "list of a module": by_user_module(2),
}


@pytest.mark.parametrize("way", WAYS)
def test_settings_are_seen(way):
    body, change = WAYS[way]()
    f = fd.compile(body)
    same(call(f, fd.ones(2)), np.full(2, 2, np.float32))
    assert f.programs == 1, f.reason
    change()
    same(call(f, fd.ones(2)), np.full(2, 3, np.float32))


def model_and_step(seed=0):
    fd.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.05)

    def step(x):
        optimizer.zero_grad()
        loss = fd.square(model(x)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, step


def freeze(model):
    model[0].requires_grad_(False)


def unfreeze(model):
    model[0].requires_grad_(True)


def replace_layer(model):
    fd.manual_seed(9)
    model[2] = nn.Linear(8, 1)


def append_layer(model):
    fd.manual_seed(9)
    model.append(nn.Tanh())


@pytest.mark.parametrize("before, edit", [(None, freeze), (freeze, unfreeze), (None, replace_layer), (None, append_layer)])
def test_models_that_change(before, edit):
    """As fine-tuning does: parameters frozen and unfrozen, layers replaced and added, between captured steps."""
    (m, f), (n, g) = model_and_step(), model_and_step()
    f = fd.compile(f)
    for k in range(12):
        if k == 0 and before:
            before(m), before(n)
        if k == 5:
            edit(m), edit(n)
        same(f(fd.array(X + k)), g(fd.array(X + k)))
    for p, q in zip(m.parameters(), n.parameters(), strict=True):
        same(p, q)
    assert f.programs >= 1


def test_to_another_dtype():
    layer = nn.Linear(3, 1)
    f = fd.compile(lambda x: layer(x).detach())
    call(f, fd.array(X))
    layer.double()
    with fd.no_grad():
        layer.weight.zero_(), layer.bias.zero_()
    same(f(fd.array(X)), np.asarray(layer(fd.array(X)).detach()))


def test_python_generators_by_closure():
    rng = random.Random(0)
    f = fd.compile(lambda x: x * rng.random())
    f(fd.ones(2))
    with pytest.raises(fd.CaptureError, match="random"):
        f(fd.ones(2))


def test_ordinary_loops_are_not_refused():
    """Loggers, open files and timers that a step touches do not stop it from being captured."""
    log = io.StringIO()
    config = Attributes(scale=2.0, log=log)

    def f(x):
        if config.scale < 0:
            log.write("never")
        return x * config.scale

    c = fd.compile(f)
    same(call(c, fd.ones(2)), np.full(2, 2, np.float32))
    assert c.programs == 1


def test_wrappers_in_a_circle():
    def f(x):
        return x * 2

    f.__wrapped__ = f
    same(call(fd.compile(lambda x: f(x)), fd.ones(2)), np.full(2, 2, np.float32))


def test_calls_that_are_never_alike_are_reported(caplog):
    setting = types.SimpleNamespace(k=0)
    f = fd.compile(lambda x: x * setting.k)
    for k in range(60):
        setting.k = k
        same(f(fd.ones(2)), np.full(2, k, np.float32))
    assert "setting.k" in f.reason or "k is another" in f.reason
    assert len(caplog.records) == 1
