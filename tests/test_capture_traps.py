"""Known traps of captured functions. Each gives the numbers of the eager call, or an error that says what to do."""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import gc
import os
import pickle
import random
import threading
import types
import weakref
from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

HERE = os.path.basename(__file__)


# Wrong numbers, or errors that do not say enough, still to be mended; a test that starts to pass must leave this list.
KNOWN = {
    "test_anomaly_detection_around",
    "test_argument_and_views_of_it_returned",
    "test_argument_in_place_then_error",
    "test_argument_shares_memory_only_at_replay",
    "test_argument_shares_memory_with_a_parameter",
    "test_arguments_kept_in_a_list",
    "test_attribute_of_an_object",
    "test_closure_number_and_tensor",
    "test_constant_written_through_numpy_between_uses",
    "test_constants_inside",
    "test_containers_that_are_changed[<lambda>0]",
    "test_containers_that_are_changed[<lambda>1]",
    "test_containers_that_are_changed[<lambda>2]",
    "test_containers_that_are_changed[OrderedDict]",
    "test_counter_in_an_attribute",
    "test_deep_copies_and_pickles",
    "test_equal_generators_that_part_ways",
    "test_global_function_replaced",
    "test_global_number",
    "test_global_tensor_replaced",
    "test_gradient_mode_left_changed",
    "test_iterator_inside",
    "test_model_changed_between_calls[monkey_forward]",
    "test_nested_function_reads_a_global_number",
    "test_numpy_arrays_arrive_as_tensors_every_time",
    "test_numpy_generator_read_directly",
    "test_numpy_scalars_are_values",
    "test_overlapping_numpy_arrays",
    "test_reading_values[mask]",
    "test_reading_values[nonzero]",
    "test_recursion",
    "test_requires_grad_inside_on_an_argument",
    "test_shuffle_inside_is_refused",
    "test_state_of_a_generator_set_inside",
    "test_threads_with_functions_of_their_own",
    "test_tuple_subclass",
    "test_values_from_python_may_be_read",
    "test_work_of_another_thread_inside",
}


@pytest.fixture(autouse=True)
def known_faults(request):
    if request.node.name in KNOWN:
        racing = request.node.name.startswith("test_threads")
        request.applymarker(pytest.mark.xfail(strict=not racing, reason="known fault of captured functions"))
    yield
    random_module = fd.random
    random_module._observe(None)  # a recording that another thread ended may be left behind


def call(f: Any, *args: Any, n: int = 4, **kwargs: Any) -> Any:
    """Calls n times: eager, recorded, replayed."""
    for _ in range(n):
        result = f(*args, **kwargs)
    return result


def same(a: Any, b: Any) -> None:
    a, b = (np.asarray(fd.asarray(v).detach()) for v in (a, b))
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def against(make: Any, calls: Any, programs: int | None = 1) -> Any:
    """The same calls of the function that make() gives, captured and eager: results and make()'s state must be equal after each."""
    eager, captured = make(), fd.compile(make())
    for args in calls:
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        want = eager(*args)
        fd.manual_seed(sum(map(ord, repr(type(args)))))
        same(captured(*args), want)
    if programs is not None:
        assert captured.programs == programs, captured.reason
    return captured


X = np.arange(6, dtype=np.float32).reshape(2, 3)


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

    same(call(fd.compile(f), fd.array(X)), X * 3 + 2)


# ---- randomness ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [random.random, np.random.random, lambda: np.random.normal(size=3)[0]])
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


def trainer(**kwargs):
    fd.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, **kwargs)

    def step(x):
        optimizer.zero_grad()
        loss = fd.square(model(x)).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step


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
    assert len(kept) == 8 and "kept outside" in f.reason


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
        same(f(fd.ones(2), 3), np.full(2, 15, np.float32))


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
        same(c(x), f(x))


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
