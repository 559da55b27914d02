"""Tensors on a CUDA device: the table tests, gradients, layers and optimisers there, random streams, training, errors, exchange.

The device is a GPU, or the emulator's: build it with `cmake -S csrc/cuda -B build/emu -DFASTDL_CUDA=EMULATE && cmake --build build/emu`
and set FASTDL_CUDA_LIBRARY to build/emu/emu/libfastdl_cuda_emu.so.
"""

from __future__ import annotations

import copy
import gc
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn, optim
from fastdl.nn import functional as F

pytestmark = pytest.mark.skipif(fd._C.cuda_device_count() == 0, reason=f"no CUDA device: {fd._C.cuda_missing() or 'the library finds none'}")

TESTS = Path(__file__).resolve().parents[1]


def run_there(files: list[str], *options: str, **env: str) -> int:
    """The named test files with the CUDA device as the default one, in a process of their own; the number of tests passed."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *options, *(str(TESTS / f) for f in files)],
        env={**os.environ, "FASTDL_DEVICE": "cuda", **env},
        capture_output=True,
        text=True,
        cwd=TESTS,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    return int(re.search(r"(\d+) passed", run.stdout).group(1))


# ---- the table on the device --------------------------------------------------------------------------------------------
def test_op_table():
    """Every op: dtype x layout x size against the float64 reference."""
    assert run_there(["test_ops.py"]) >= 10_000


def test_gradients_layers_losses_optimisers():
    assert run_there(["test_gradients.py", "test_nn.py", "test_losses.py", "test_optim.py"]) >= 900


@pytest.mark.parametrize("schedule", ["reverse", "random:1", "random:2"])
def test_other_thread_orders(schedule):
    """Results do not depend on the order in which the emulator runs threads, nor on when asynchronous copies arrive."""
    if not fd._C.cuda_emulated():
        pytest.skip("a GPU orders its threads itself")
    chosen = "matmul or linear or conv2d or softmax or norm or sum or argmax or cumsum or take or pool or copy or cross_entropy"
    passed = run_there(["test_ops.py"], "-k", f"({chosen}) and float32", FASTDL_EMU_SCHEDULE=schedule, FASTDL_EMU_ASYNC="deferred")
    assert passed >= 300


# Ops that run on the host on every device: rare, and not worth a kernel.
HOST_OPS = {"nonzero"}


def test_float_ops_have_kernels():
    """No op of the table falls back to the host for its float dtypes, but for a named few."""
    table = dict(fd._C.cuda_table())
    lacking = {}
    for name, _, _, _, dtypes, _ in fd._C.op_table():
        wanted = [d for d in dtypes if d in ("float32", "float64", "float16", "bfloat16")]
        missing = [d for d in wanted if d not in table[name]]
        if missing and name not in HOST_OPS:
            lacking[name] = missing
    assert not lacking, lacking


# ---- the same numbers -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 5, 1023, 4099])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_random_floats_are_the_cpus(n, dtype):
    for draw in (fd.random.uniform, fd.random.normal):
        here, there = (draw((n,), dtype=dtype, rng=fd.Generator(7), device=d) for d in ("cpu", "cuda"))
        a, b = here.astype("float64").numpy(), there.cpu().astype("float64").numpy()
        np.testing.assert_array_equal(a, b, err_msg=draw.__name__)


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "uint64"])
def test_random_integers_are_the_cpus(dtype):
    here, there = (fd.random.integers(3, 100, (777,), dtype=dtype, rng=fd.Generator(7), device=d) for d in ("cpu", "cuda"))
    np.testing.assert_array_equal(here.numpy(), there.cpu().numpy())


def test_dropout_is_the_cpus():
    x = fd.random.normal((37, 53), rng=3, device="cpu").requires_grad_()
    z = x.detach().cuda().requires_grad_()
    for t in (x, z):
        fd.random.dropout(t, 0.3, rng=fd.Generator(5)).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), z.grad.cpu().numpy())


def steps(device: str, preset: str, n: int = 4) -> list[float]:
    from fastdl._train import build

    fd.manual_seed(0)
    model = build(preset, (1, 8, 8), 10).to(device)
    x = fd.random.normal((16, 1, 8, 8), rng=1, device="cpu").to(device)
    y = fd.random.integers(0, 10, (16,), rng=2, device="cpu").to(device)
    opt = optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(n):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0) if hasattr(nn, "utils") else None
        opt.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("preset", ["mlp", "cnn"])
def test_training_gives_the_cpus_losses(preset):
    np.testing.assert_allclose(steps("cuda", preset), steps("cpu", preset), rtol=2e-4)


def test_runs_are_bitwise_equal():
    assert steps("cuda", "cnn") == steps("cuda", "cnn")


# ---- devices and memory -----------------------------------------------------------------------------------------------------
def test_creation_and_moves():
    for make in (fd.zeros, fd.ones, fd.empty):
        assert make((2, 3), device="cuda").device == fd.device("cuda:0")
    assert fd.arange(5, device="cuda").tolist() == [0, 1, 2, 3, 4]
    assert fd.eye(2, device="cuda").tolist() == [[1, 0], [0, 1]]
    assert fd.full((2,), 7, device="cuda").dtype == fd.int64
    x = fd.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for view in (x, x.T, x[:, ::-1], x[::2], x[:, 1:], x[:0], fd.broadcast_to(x[:1], (4, 3)), x[0, 0]):
        there = view.to("cuda")
        assert there.device == "cuda" and there.shape == view.shape
        np.testing.assert_array_equal(there.cpu().numpy(), view.numpy())
        np.testing.assert_array_equal(view.cuda().T.cpu().numpy(), view.T.numpy())
    assert x.cpu() is x and x.to("cpu") is x
    t = x.cuda()
    assert t.cuda() is t and t.to(0) is t
    assert fd.zeros_like(t).device == t.device
    assert t.to("cpu", fd.float64).dtype == fd.float64


def test_gradient_crosses_devices():
    x = fd.array([1.0, 2.0, 3.0], requires_grad=True)
    ((x.cuda() * 3).cpu() ** 2).sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), 18 * np.array([1.0, 2.0, 3.0]))


def test_numbers_and_0d_cpu_tensors_join_in():
    t = fd.array([1.0, 2.0], device="cuda")
    assert (t * 2 + 1).tolist() == [3.0, 5.0]
    assert (2.0 / t).tolist() == [2.0, 1.0]
    assert (t + fd.array(5.0)).tolist() == [6.0, 7.0]
    assert (t + np.float32(1)).tolist() == [2.0, 3.0]
    assert (t * np.array([2.0, 3.0], np.float32)).tolist() == [2.0, 6.0]
    t += np.array([1.0, 1.0], np.float32)
    t *= 2
    assert t.tolist() == [4.0, 6.0]
    assert fd.where(t > 5, t, 0.0).tolist() == [0.0, 6.0]
    assert t[[1, 0]].tolist() == [6.0, 4.0]
    assert t[fd.array([True, False])].tolist() == [4.0]
    assert float(t.sum()) == 10.0 and bool(t[0] == 4)


def test_writes():
    t = fd.zeros((3, 4), device="cuda")
    t[1] = 5
    t[:, 2] = fd.array([1.0, 2.0, 3.0])
    t[0, ::2] = fd.array([7, 8], device="cuda")
    t[[2, 2], [0, 1]] = 9
    want = np.zeros((3, 4), np.float32)
    want[1] = 5
    want[:, 2] = [1, 2, 3]
    want[0, ::2] = [7, 8]
    want[[2, 2], [0, 1]] = 9
    np.testing.assert_array_equal(t.cpu().numpy(), want)
    host = fd.zeros((3, 4))
    host.copy_(t)
    host[:, ::-1].copy_(t)
    np.testing.assert_array_equal(host.numpy(), want[:, ::-1])


def test_messages_say_what_is_wrong():
    t = fd.ones((2, 3), device="cuda")
    with pytest.raises(fd.DeviceError, match=r"add: argument 1 is on cpu, the others are on cuda:0"):
        t + fd.ones((2, 3))
    with pytest.raises(fd.DeviceError, match=r"cpu\(\)"):
        t.numpy()
    with pytest.raises(fd.DeviceError, match=r"cpu\(\)"):
        np.asarray(t)
    with pytest.raises(BufferError, match=r"cuda:0"):
        memoryview(t)
    with pytest.raises(fd.DeviceError, match=r"cuda:99"):
        fd.zeros(3, device="cuda:99")
    with pytest.raises(fd.DeviceError, match="need 'cpu' or 'cuda"):
        fd.device("tpu")
    assert "device='cuda:0'" in repr(t)


def test_index_out_of_range_is_found_at_the_next_synchronisation():
    x = fd.arange(6, dtype="float32", device="cuda")
    before = x.tolist()
    with pytest.raises(IndexError, match=r"out of (range|bounds)") as info:
        fd.take(x, fd.array([1, 99], device="cuda")).tolist()
    assert isinstance(info.value, fd.FastdlError)
    with pytest.raises(IndexError):
        x[fd.array([-7], device="cuda")] = 1.0
        fd._C.cuda_synchronize(0)
    assert x.tolist() == before  # nothing written, and the device works on
    logits = fd.zeros((2, 3), device="cuda")
    with pytest.raises(IndexError):
        F.cross_entropy(logits, fd.array([0, 5], device="cuda")).item()
    assert F.cross_entropy(logits, fd.array([0, 2], device="cuda")).item() == pytest.approx(np.log(3), rel=1e-5)


def test_memory_is_used_again():
    api = fd.cuda
    gc.collect()
    fd.zeros((64, 1024), device="cuda")
    before = api.memory_allocated()
    for _ in range(20):
        t = fd.zeros((64, 1024), device="cuda") + 1
    assert t.nbytes <= api.memory_allocated() - before <= t.nbytes + 1024  # checked builds keep blocks apart
    reserved = api.memory_reserved()
    del t
    assert api.memory_allocated() == before
    assert api.memory_reserved() == reserved
    api.empty_cache()
    assert api.memory_reserved() <= reserved


def test_out_of_memory():
    with pytest.raises(fd.OutOfMemoryError):
        fd.empty((1 << 45,), dtype="uint8", device="cuda")
    assert fd.ones(3, device="cuda").sum().item() == 3


# ---- exchange ----------------------------------------------------------------------------------------------------------------
def test_dlpack_and_array_interface():
    t = fd.arange(6, dtype="float32", device="cuda").reshape(2, 3)
    assert t.__dlpack_device__() == (2, 0)
    u = fd.from_dlpack(t)
    u[0, 0] = 42
    assert t.tolist()[0][0] == 42 and u.device == "cuda:0"
    assert fd.from_dlpack(t.T).tolist() == t.T.tolist()
    assert fd.from_dlpack(t, device="cpu").device == "cpu"
    with pytest.raises(ValueError):
        t.__dlpack__(stream=0)
    i = t.T.__cuda_array_interface__
    assert i["version"] == 3 and i["shape"] == (3, 2) and i["typestr"] == "<f4" and i["strides"] == (4, 12)
    assert i["data"] == (t.data_ptr(), False) and i["stream"] not in (0, None)
    assert not hasattr(fd.zeros(2), "__cuda_array_interface__")


def test_copy_pickle_save(tmp_path):
    t = fd.array([1.0, 2.0], device="cuda", requires_grad=True)
    c = copy.deepcopy(t)
    assert c.device == t.device and c.requires_grad and c.tolist() == [1.0, 2.0]
    assert pickle.loads(pickle.dumps(t.detach())).tolist() == [1.0, 2.0]
    layer = nn.Linear(3, 2).cuda()
    assert {p.device.type for p in layer.parameters()} == {"cuda"}
    fd.save(layer.state_dict(), tmp_path / "w.safetensors")
    other = nn.Linear(3, 2)
    other.load_state_dict(fd.load(tmp_path / "w.safetensors"))
    x = fd.random.normal((4, 3), rng=0, device="cpu")
    np.testing.assert_allclose(other(x).detach().numpy(), layer(x.cuda()).detach().cpu().numpy(), rtol=1e-6)
    assert {p.device.type for p in layer.cpu().parameters()} == {"cpu"}


def test_higher_order_and_checkpoint():
    def f(x):
        return (fd.tanh(x) ** 2).sum()

    x = fd.array([0.1, -0.5, 2.0], dtype="float64")
    for order in (fd.grad, lambda g: fd.grad(lambda t: fd.grad(g)(t).sum())):
        here, there = order(f)(x), order(f)(x.cuda())
        np.testing.assert_allclose(there.cpu().numpy(), here.numpy(), rtol=1e-12)
    y = x.cuda().requires_grad_()
    fd.checkpoint(f, y).backward()
    np.testing.assert_allclose(y.grad.cpu().numpy(), fd.grad(f)(x).numpy(), rtol=1e-12)


def test_threads():
    """Two threads with streams of their own on one device."""
    import threading

    results = {}

    def work(k):
        t = fd.full((257,), float(k), device="cuda")
        for _ in range(20):
            t = t * 1.5 - 0.5
        results[k] = t.cpu().numpy()

    threads = [threading.Thread(target=work, args=(k,)) for k in (1, 2, 3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in (1, 2, 3):
        want = np.full(257, k, np.float32)
        for _ in range(20):
            want = want * np.float32(1.5) - np.float32(0.5)
        np.testing.assert_allclose(results[k], want, rtol=1e-5)


# ---- optimisers ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.AdamW(p, 0.1, amsgrad=True), lambda p: optim.RMSprop(p, 0.1)])
def test_many_parameters_step_together(make):
    """More tensors than one launch takes, of sizes around a chunk, some strided, of two dtypes: the same bits as one by one."""
    sizes = [(3,), (0,), (1,), (129, 127), (128, 129), (40000,)] + [(k % 7 + 1, 5) for k in range(60)]
    for dtype in ("float32", "float64"):

        def parameters(dtype=dtype):
            made = [fd.random.normal(s, dtype=dtype, rng=k, device="cuda").requires_grad_() for k, s in enumerate(sizes)]
            made.append(fd.random.normal((9, 4), dtype=dtype, rng=99, device="cuda").T.detach().requires_grad_())
            for k, p in enumerate(made):
                p.grad = fd.random.normal(p.shape, dtype=dtype, rng=1000 + k, device="cuda")
            return made

        together, alone = parameters(), parameters()
        joint, single = make(together), [make([p]) for p in alone]
        for _ in range(2):
            joint.step()
            for o in single:
                o.step()
        for a, b in zip(together, alone):
            np.testing.assert_array_equal(a.detach().cpu().numpy(), b.detach().cpu().numpy())
    version = together[3]._version
    joint.step()
    assert together[3]._version > version


# ---- one device per call, whatever the default device is --------------------------------------------------------------------------
def test_what_is_updated_in_place_is_never_moved():
    """Parameters on two devices in one optimiser both train, in either order; running statistics elsewhere are an error."""
    for order in ("cpu", "cuda"), ("cuda", "cpu"):
        params = [fd.ones(3, device=d).requires_grad_() for d in order]
        opt = optim.Adam(params, lr=0.1)
        for _ in range(2):
            for p in params:
                p.grad = fd.full((3,), 0.5, device=p.device)
            opt.step()
        np.testing.assert_allclose(params[0].detach().cpu().numpy(), params[1].detach().cpu().numpy(), rtol=1e-6)
        assert params[0].detach().cpu().numpy()[0] < 0.9
    x, mean, var = fd.ones((4, 3), device="cuda"), fd.zeros(3), fd.ones(3)
    with pytest.raises(fd.DeviceError, match="batch_norm"):
        F.batch_norm(x, mean, var, training=True)


def test_gradient_rules_stay_on_the_tensors_device():
    """With the CPU as default device: rules and layers that make tensors of their own make them where their inputs are."""
    assert fd.get_default_device() == "cpu"
    index = fd.array([0, 2, 0])

    def put(x):
        y = x * 1.0
        y[index] = x[:3] * 2.0
        return (y * y).sum()

    functions = {
        "setitem": put,
        "getitem": lambda x: (x[[0, 1]] * x[fd.array([1, 1])]).sum(),
        "prod": lambda x: fd.prod(x * fd.array(np.array([1.0, 0.0, 1.0, 1.0], np.float32), device=x.device)),
        "cumprod": lambda x: fd.cumprod(x).sum(),
        "sort of loss": lambda x: F.multi_margin_loss(x.reshape(1, 4), fd.array([1], device=x.device)),
        "dropout2d": lambda x: F.dropout2d(x.reshape(1, 4, 1), 0.5, rng=1).sum(),
        "pad": lambda x: F.pad(x.reshape(1, 4), (1, 1)).sum() if hasattr(F, "pad") else x.sum(),
    }
    x = fd.array([0.5, 2.0, -1.0, 3.0])
    for name, f in functions.items():
        here, there = fd.grad(f)(x), fd.grad(f)(x.cuda())
        assert there.device == "cuda", name
        np.testing.assert_allclose(there.cpu().numpy(), here.numpy(), rtol=1e-5, err_msg=name)
    attention = nn.MultiheadAttention(4, 2).cuda()
    q = fd.random.normal((3, 1, 4), rng=0, device="cuda")
    assert attention(q, q, q, is_causal=True, need_weights=False)[0].device == "cuda"


def test_seed_gradient_is_on_the_outputs_device():
    w = fd.ones(3, device="cuda").requires_grad_()
    (w + 1).backward(np.ones(3, np.float32))
    assert w.grad.device == "cuda"
    with pytest.raises(fd.DeviceError, match="gradient on cpu"):
        (w + 1).backward(fd.ones(3))
