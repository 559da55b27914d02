"""Captured functions on a CUDA device run as graphs: the same bits, whatever changes from call to call."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from common import small_network

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

pytestmark = pytest.mark.skipif(fd._C.cuda_device_count() == 0, reason=f"no CUDA device: {fd._C.cuda_missing() or 'the library finds none'}")


def array(*shape, seed=0):
    return fd.array(np.random.default_rng(seed).normal(size=shape).astype("float32"), device="cuda")


def same(a, b):
    np.testing.assert_array_equal(a.cpu().numpy(), b.cpu().numpy())


@pytest.mark.parametrize("kept", [False, True], ids=["gradients dropped", "gradients kept"])
@pytest.mark.parametrize("kind", ["mlp", "norms", "cnn"])
def test_a_training_step_is_one_graph(kind, kept):
    """Dropout, learning rate and step count move on; batches lie in other memory each time."""

    def train(graphs):
        fd.manual_seed(3)
        model = small_network(kind).to("cuda")
        opt = optim.AdamW(model.parameters(), lr=1e-2)

        def step(x, y):
            if kept:
                opt.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            opt.step()
            if not kept:
                opt.zero_grad()
            return loss.detach()

        step = step if graphs is None else fd.compile(step, passes={"graphs": graphs})
        rng, losses, held = np.random.default_rng(0), [], []
        for k in range(7):
            x = fd.array(rng.normal(size=(8, 12)).astype("float32"), device="cuda")
            y = fd.array(rng.integers(0, 3, 8), device="cuda")
            held.append((x, y))  # no batch takes the place of an earlier one
            opt.param_groups[0]["lr"] = 1e-2 / (k + 1)
            losses.append(step(x, y))
        grads = [p.grad.cpu().numpy() for p in model.parameters()] if kept else []
        return [t.item() for t in losses], [t.cpu().numpy() for t in model.state_dict().values()] + grads, step

    want, got, plain = train(None), train(True), train(False)
    assert got[0] == want[0] == plain[0]
    for a, b, c in zip(want[1], got[1], plain[1], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    stats = got[2].stats()
    assert stats["graphs"] == 1 and stats["graph_launches"] >= 10
    assert plain[2].stats()["graphs"] == 0


def test_random_streams_move_on():
    f = fd.compile(lambda x: F.dropout(x * 2, 0.5) + fd.random.normal((64,), device="cuda"))
    x = fd.ones(64, device="cuda")

    def run(f):
        fd.manual_seed(5)
        return [f(x).cpu().numpy() for _ in range(6)]

    for a, b in zip(run(lambda x: F.dropout(x * 2, 0.5) + fd.random.normal((64,), device="cuda")), run(f), strict=True):
        np.testing.assert_array_equal(a, b)
    assert f.stats()["graphs"] == 1


def windows(f, run):
    """run(x) equals f(x) for windows that begin at addresses of every alignment."""
    base = array(4 * 2048 + 8)
    for start in (0, 2048, 1, 2049, 0, 3, 4096, 7, 8):
        x = base[start : start + 2048]
        for got, want in zip(run(x), f(x), strict=True):
            same(got, want)
    assert run.programs == 1 and run.stats()["graphs"] == 1 and run.stats()["replays"] == 7


def two_kernels(x):
    return fd.concat([x, x * 2]), (x.reshape(32, 64) + 1), fd.exp(x).sum(), F.relu(x) * 2


def test_memory_of_another_alignment():
    """A window that starts 4 bytes later needs another kernel than one that is aligned for vectors."""
    run = fd.compile(two_kernels)
    windows(two_kernels, run)
    assert run.stats()["graphs_made"] == 1


def test_launches_that_do_not_fit(monkeypatch):
    """Then the graph is made anew, of what all launches are now."""
    monkeypatch.setenv("FASTDL_EMU_GRAPHS", "strict")
    run = fd.compile(two_kernels)
    windows(two_kernels, run)
    assert run.stats()["graphs_made"] == (1 if not fd._C.cuda_emulated() else 6)


@pytest.mark.parametrize("call", range(1, 14))
def test_failures_while_a_graph_is_made_or_changed(call, monkeypatch):
    """Whatever fails: an error at that call, right numbers at the next."""
    if not fd._C.cuda_emulated():
        pytest.skip("failures are the emulator's")
    total = fd.zeros(2048, device="cuda")

    def f(x):
        total[...] = total + x
        return total * 2, fd.concat([x, x + 1]), fd.exp(x)

    run, base, want = fd.compile(f), array(4 * 2048), np.zeros(2048, np.float32)
    monkeypatch.setenv("FASTDL_EMU_GRAPHS", f"fail:{call}")
    failed = 0
    for k in range(8):
        x = base[k : k + 2048]
        before = total.cpu().numpy()
        try:
            doubled, both, e = run(x)
        except (fd.OutOfMemoryError, fd.DeviceError):
            failed += 1
            np.testing.assert_array_equal(total.cpu().numpy(), before)  # nothing of the graph has run
            continue
        want = before + x.cpu().numpy()
        np.testing.assert_array_equal(total.cpu().numpy(), want)
        np.testing.assert_array_equal(doubled.cpu().numpy(), want * 2)
        same(both, fd.concat([x, x + 1]))
        same(e, fd.exp(x))
    assert failed <= 1 and run.stats()["graphs"] == 1
    if call <= 5:
        assert failed == 1  # create, add and instantiate; later calls change nodes, and the graph is made anew


def test_results_are_new_memory():
    f = fd.compile(lambda x: (x + 1, x * 3))
    xs = [array(5, seed=k) for k in range(6)]
    held = [f(x) for x in xs]
    for x, (a, b) in zip(xs, held, strict=True):
        same(a, x + 1)
        same(b, x * 3)


def test_what_runs_on_the_host_splits_the_graph():
    def f(x):
        y = F.relu(x * 2 + 1).sum(axis=0)
        z = fd.abs(y.astype("complex64") * 1j)  # complex numbers have no kernels on the device
        return F.sigmoid(z * 0.5) + 1

    run = fd.compile(f)
    for k in range(5):
        x = array(4, 6, seed=k)
        same(run(x), f(x))
    assert run.programs == 1 and run.stats()["graphs"] == 2


def test_changes_in_place_and_buffers():
    total = fd.zeros(3, device="cuda")

    def f(x):
        total[...] = total + x
        return total * 2, total.sum()

    run, want = fd.compile(f), np.zeros(3, np.float32)
    for k in range(6):
        x = array(3, seed=k)
        want = want + x.cpu().numpy()
        doubled, _ = run(x)
        np.testing.assert_array_equal(doubled.cpu().numpy(), want * 2)
        np.testing.assert_array_equal(total.cpu().numpy(), want)


def test_streams():
    """A replay takes its place in the stream that is current. On the emulator everything runs at once: only a GPU shows a wrong order."""
    f = fd.compile(lambda x: fd.tanh(x @ x.T) + 1)
    x = array(16, 16)
    want = fd.tanh(x @ x.T) + 1
    stream = fd.cuda.Stream()
    for k in range(6):
        if k % 2:
            stream.wait_stream(fd.cuda.current_stream())
            with fd.cuda.stream(stream):
                got = f(x)
            fd.cuda.current_stream().wait_stream(stream)
        else:
            got = f(x)
        same(got, want)
    assert f.stats()["graphs"] == 1


def test_bad_indices_and_after():
    table = fd.array(np.arange(12, dtype=np.float32).reshape(4, 3), device="cuda")
    f = fd.compile(lambda i: F.relu(table[i] + 1))
    for _ in range(3):
        f(fd.array([3, 0], device="cuda"))
    with pytest.raises(IndexError):
        f(fd.array([1, 7], device="cuda")).cpu()
        fd.cuda.synchronize()
    np.testing.assert_array_equal(f(fd.array([1, 1], device="cuda")).cpu().numpy(), [[4, 5, 6], [4, 5, 6]])
    assert f.stats()["graphs"] == 1


def test_two_devices_have_graphs_of_their_own():
    if fd._C.cuda_device_count() < 2:
        pytest.skip("one device")
    f = fd.compile(lambda x: fd.exp(x * 2).sum(axis=0))
    x = array(2, 3)
    for _ in range(4):
        for device in ("cuda:0", "cuda:1"):
            got = f(x.to(device))
            assert str(got.device) == device
            same(got, fd.exp(x * 2).sum(axis=0))
    assert f.programs == 2 and f.stats()["graphs"] == 1  # of the last one


def test_profiles_see_every_launch():
    f = fd.compile(lambda x: fd.tanh(x * 2) + 1)
    x = array(50)
    for _ in range(4):
        f(x)
    with fd.profiler.profile() as p:
        got = f(x)
    assert [launch.op for launch in p.launches] == ["multiply", "tanh", "add"]
    same(got, f(x))


def test_memory_goes_with_the_function():
    x = array(64, 64)
    gc.collect()
    fd.cuda.synchronize()
    before = fd.cuda.memory_allocated()
    f = fd.compile(lambda x: fd.tanh(x @ x).sum(axis=0))
    for _ in range(4):
        f(x)
    assert f.stats()["graphs"] == 1 and fd.cuda.memory_allocated() > before
    del f
    gc.collect()
    assert fd.cuda.memory_allocated() == before


def test_optimisers_of_many_parameters_stay_together():
    """Fifty parameters: a handful of launches, in the graph as outside."""
    parameters = [nn.Parameter(array(7, 3, seed=k)) for k in range(50)]
    opt = optim.SGD(parameters, lr=0.1, momentum=0.9)

    @fd.compile
    def step(x):
        loss = sum(((p * x).sum() for p in parameters), fd.zeros((), device="cuda"))
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss.detach()

    for k in range(5):
        step(array(3, seed=k))
    listed = [s["op"] for s in step._entries[0].capture.steps()]
    assert listed.count("sgd_step") == 50 and step.stats()["graph_launches"] < len(listed) - 40
