"""Recurrent layers: the rule for whole sequences (nn/_recurrent.py) beside the formula it stands for."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn
from fastdl.nn import _recurrent

CELLS = {"lstm": _recurrent.LSTMCell(), "gru": _recurrent.GRUCell(), "tanh": _recurrent.ElmanCell("tanh"), "relu": _recurrent.ElmanCell("relu")}
T, N, IN, H = 7, 3, 4, 5


def operands(cell, rng, biases, dtype="float64"):
    """x, states, w_ih, w_hh and biases of `recur`."""

    def draw(*shape):
        return fd.array(rng.uniform(-1, 1, shape), dtype=dtype)

    rows = cell.gates * H
    return [draw(T, N, IN), *(draw(N, H) for _ in range(cell.states)), draw(rows, IN), draw(rows, H), *(draw(rows) for _ in range(biases))]


def run(cell, values, reverse):
    n = 1 + cell.states
    b_ih, b_hh = (*values[n + 2 :], None, None)[:2]
    return _recurrent.recur(cell, values[0], tuple(values[1:n]), values[n], values[n + 1], b_ih, b_hh, reverse)


def weighted(outs, which):
    """A scalar that sees every element of some results."""
    rng = np.random.default_rng(5)
    return fd.stack([(outs[k] * fd.array(rng.uniform(-1, 1, outs[k].shape))).sum() for k in which]).sum()


def gradients(cell, values, reverse, wanted, results, create_graph=False):
    """Gradients of a weighted sum of some results by the wanted operands."""
    leaves = [v.detach().requires_grad_() if k in wanted else v for k, v in enumerate(values)]
    total = weighted(run(cell, leaves, reverse), results)
    return fd.gradients(total, [leaves[k] for k in wanted], create_graph=create_graph, allow_unused=True)


@pytest.mark.parametrize("rows", [1, 2 * N, 512], ids=["a step", "two steps", "all steps"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("name", CELLS)
def test_gradients_are_those_of_the_formula(name, reverse, rows, monkeypatch):
    monkeypatch.setattr(_recurrent, "CHUNK_ROWS", rows)
    cell, rng = CELLS[name], np.random.default_rng(3)
    for biases in (0, 1, 2):
        values = operands(cell, rng, biases)
        everything = range(len(values))
        for wanted in (everything, [0], [1], [cell.states], [1 + cell.states], [2 + cell.states], [len(values) - 1], [0, len(values) - 1]):
            for results in (range(1 + cell.states), [0], [cell.states]):
                found = gradients(cell, values, reverse, wanted, results)
                formula = gradients(cell, values, reverse, wanted, results, create_graph=True)
                for a, b in zip(found, formula, strict=True):
                    np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CELLS)
def test_second_order(name):
    cell, step = CELLS[name], 1e-6
    values = operands(cell, np.random.default_rng(4), 2)
    wanted, results = range(len(values)), range(1 + cell.states)
    rng = np.random.default_rng(6)
    weights = [fd.array(rng.uniform(-1, 1, v.shape)) for v in values]

    def slope(at):
        return sum(float((g * w).sum()) for g, w in zip(gradients(cell, at, False, wanted, results), weights))

    def total(*at):
        return weighted(run(cell, at, False), results)

    nested = fd.grad(lambda *at: sum((g * w).sum() for g, w in zip(fd.grad(total, argnums=tuple(wanted))(*at), weights)), argnums=tuple(wanted))
    for k, second in enumerate(nested(*values)):
        direction = fd.array(np.random.default_rng(k).uniform(-1, 1, second.shape))
        up, down = list(values), list(values)
        up[k], down[k] = values[k] + direction * step, values[k] - direction * step
        expected = (slope(up) - slope(down)) / (2 * step)
        assert abs(float((second * direction).sum()) - expected) < 1e-6 * (1 + abs(expected))


@pytest.mark.parametrize("name", CELLS)
def test_operands_changed_before_backward_are_refused(name):
    cell = CELLS[name]
    values = [v.requires_grad_() for v in operands(cell, np.random.default_rng(0), 1)]
    for k in (0, 1 + cell.states, 2 + cell.states, 3 + cell.states):
        outs = run(cell, values, False)
        with fd.no_grad():
            values[k] += 1.0
        with pytest.raises(fd.GradError, match="in place"):
            outs[0].sum().backward()


def test_cell_gradients_without_some_of_the_states():
    rng = np.random.default_rng(0)
    x, r, c = (fd.array(rng.uniform(-1, 1, s)) for s in ((2, 12), (2, 12), (2, 3)))
    _, c_next, gates = fd.lstm_cell(x, r, c)
    g, zero = fd.array(rng.uniform(-1, 1, (2, 3))), fd.zeros((2, 3), dtype="float64")
    for given, full in (((g, None), (g, zero)), ((None, g), (zero, g)), ((None, None), (zero, zero))):
        for a, b in zip(fd.lstm_cell_backward(*given, gates, c, c_next), fd.lstm_cell_backward(*full, gates, c, c_next)):
            assert (a == b).all()
    # gates are results like others: theirs goes by the formula
    leaf = x.detach().requires_grad_()
    fd.lstm_cell(leaf, r, c)[2].sum().backward()
    np.testing.assert_allclose(leaf.grad.numpy(), (gates * (1 - gates)).numpy() * [[1] * 6 + [0] * 3 + [1] * 3] + (1 - gates * gates).numpy() * [[0] * 6 + [1] * 3 + [0] * 3])


def test_mixed_dtypes_keep_their_gradients_dtypes():
    values = operands(CELLS["lstm"], np.random.default_rng(0), 1, "float32")
    leaves = [v.astype("float64" if k == 0 else "float32").requires_grad_() for k, v in enumerate(values)]
    outs = run(CELLS["lstm"], leaves, False)
    assert outs[0].dtype == fd.float64
    outs[0].sum().backward()
    for v in leaves:
        assert v.grad.dtype == v.dtype and v.grad.shape == v.shape


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
def test_captured_steps_are_the_eager_ones(layer):
    def losses(compiled):
        fd.manual_seed(0)
        net = layer(4, 6, num_layers=2, bidirectional=True, dropout=0.25)
        head = nn.Linear(12, 1)
        optimiser = fd.optim.Adam([*net.parameters(), *head.parameters()], lr=1e-2)
        x, y = fd.random.normal((9, 5, 4)), fd.random.normal((9, 5, 1))

        def step(x, y):
            loss = ((head(net(x)[0]) - y) ** 2).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            return loss

        run = fd.compile(step) if compiled else step
        return [float(run(x, y)) for _ in range(6)]

    eager = losses(False)
    assert eager[-1] < eager[0] and losses(True) == eager


def test_launches_of_a_step():
    """Two per time forwards, two and a sum backwards: no weights' gradients of single times."""
    net = nn.LSTM(4, 8)
    x = fd.ones((50, 2, 4))

    def step(x):
        net(x)[0].sum().backward()

    with fd.profiler.profile() as p:
        step(x)
    names = [launch.op for launch in p.launches]
    assert names.count("lstm_cell") == names.count("lstm_cell_backward") == 50
    assert len(names) <= 5 * 50 + 40


def launches(f):
    with fd.profiler.profile() as p:
        f()
    return [launch.op for launch in p.launches]


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_gradients_of_cells_are_kernels(name):
    gates, rng = (4, 3)[name == "gru"], np.random.default_rng(0)
    x, r, h = (fd.array(rng.uniform(-1, 1, (2, k * 3))).requires_grad_() for k in (gates, gates, 1))
    y = getattr(fd, f"{name}_cell")(x, r, h)[0].sum()
    assert f"{name}_cell_backward" in launches(y.backward)
    assert x.grad is not r.grad and x.grad.shape == r.grad.shape == x.shape and h.grad.shape == h.shape
    x.grad += 1.0  # memory of its own
    assert not (x.grad == r.grad).any()


def test_only_wanted_gradients_are_made():
    net = nn.LSTM(4, 8)
    x = fd.ones((6, 2, 4), requires_grad=True)
    y = net(x)[0].sum()
    names = launches(lambda: fd.gradients(y, [x], retain_graph=True))
    assert "linear_backward_weight" not in names and names.count("matmul") == 5 + 1
    last = net(x)[1][0].sum()
    assert launches(last.backward).count("add") < 6  # no gradients of zeros for the outputs


@pytest.mark.parametrize("name", CELLS)
def test_empty_operands_have_gradients(name):
    cell, rng = CELLS[name], np.random.default_rng(0)
    for biases in (0, 1):
        values = operands(cell, rng, biases)
        no_rows = [values[0][:, :0], *(v[:0] for v in values[1 : 1 + cell.states]), *values[1 + cell.states :]]
        no_columns = [values[0][:, :, :0], *values[1 : 1 + cell.states], values[1 + cell.states][:, :0], *values[2 + cell.states :]]
        for given in (no_rows, no_columns):
            for v, g in zip(given, gradients(cell, given, False, range(len(given)), [0]), strict=True):
                assert g.shape == v.shape


def test_wrong_states_are_refused_at_once():
    cell = CELLS["tanh"]
    x, h, *rest = operands(cell, np.random.default_rng(0), 1)
    for bad in (h[:1], h[:, :1], h[0]):
        with pytest.raises(fd.ShapeError, match="initial states"):
            run(cell, [x, bad, *rest], False)
    with pytest.raises(ValueError, match="b_hh without b_ih"):
        _recurrent.recur(cell, x, (h,), *rest[:2], None, rest[2], False)


def test_threads_give_the_same_bits():
    rng, before = np.random.default_rng(0), fd.get_num_threads()
    x, r, h = (fd.array(rng.uniform(-1, 1, (40, k * 200)), dtype="float32") for k in (4, 4, 1))
    found = []
    try:
        for n in (1, 3):
            fd.set_num_threads(n)
            found.append([*fd.lstm_cell(x, r, h), *fd.gru_cell(x[:, :600], r[:, :600], h)])
    finally:
        fd.set_num_threads(before)
    assert all((a == b).all() for a, b in zip(*found))


def test_settings_of_rnn_may_change():
    net = nn.RNN(3, 4)
    x = fd.ones((2, 1, 3))
    net.nonlinearity = "relu"
    assert (net(x)[0] >= 0).all()
    net.nonlinearity = "gelu"
    with pytest.raises(ValueError, match="'tanh' or 'relu'"):
        net(x)
