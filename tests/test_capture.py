"""Captured training steps do what the eager ones do, bit for bit, whatever the model, the passes and the thread count."""

from __future__ import annotations

import copy
import gc
import hashlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastdl as fd
from fastdl import _C, nn, optim
from fastdl.graph import _PASSES
from fastdl.nn import functional as F

STEPS = 50


def bits(t: Any) -> bytes:
    t = fd.asarray(t).detach()
    if t.dtype.name == "bfloat16":
        t = t.astype("float32")
    return str((tuple(t.shape), t.dtype.name)).encode() + np.ascontiguousarray(t.numpy()).tobytes()


def digest(tensors: Any) -> str:
    h = hashlib.sha256()
    for t in tensors:
        h.update(bits(t))
    return h.hexdigest()


def state_of(model: nn.Module, optimizer: Any = None) -> list[Any]:
    """Everything that a step may change."""
    found = [t for _, t in sorted(model.state_dict().items())]
    found += [p.grad for p in model.parameters() if p.grad is not None]
    if optimizer is not None:
        for entry in optimizer.state_dict()["state"].values():
            found += [fd.array([float(entry["step"])]), *[v for k, v in entry.items() if k != "step"]]
    return found


class Text(nn.Module):
    """Embedding, transformer layers and a head: a small language model."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(23, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True)
        self.head = nn.Linear(16, 23)

    def forward(self, x: Any) -> Any:
        return self.head(self.layer(self.embed(x))).reshape((-1, 23))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, dropout=0.1, batch_first=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Any) -> Any:
        y = self.attention(x, x, x)
        return self.head((y[0] if isinstance(y, tuple) else y).mean(axis=1))


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.cells = kind(6, 8, num_layers=2, batch_first=True, dropout=0.25)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        y, _ = self.cells(x)
        return self.head(y[:, -1])


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = fd.relu(self.stem(x))
        return self.head(fd.relu(x + self.body(x)).mean(axis=(2, 3)))


class Mixed(nn.Module):
    """float32 weights, products in bfloat16, the loss in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        h = F.linear(x.astype("bfloat16"), self.a.weight.astype("bfloat16"), self.a.bias.astype("bfloat16"))
        return self.b(fd.tanh(h).astype("float32"))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.2),
        nn.Conv2d(8, 8, 3, groups=2), nn.GroupNorm(2, 8), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


Make = Callable[[], nn.Module]
VECTOR, SEQUENCE, IMAGE = (5,), (4, 6), (2, 8, 8)
MODELS: dict[str, tuple[Make, tuple[int, ...], str]] = {
    "xor": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 4)), VECTOR, "float32"),
    "mlp": (mlp, VECTOR, "float32"),
    "mlp float64": (lambda: mlp().to("float64"), VECTOR, "float64"),
    "batch norm": (lambda: nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4)), VECTOR, "float32"),
    "cnn": (cnn, IMAGE, "float32"),
    "residual": (Residual, IMAGE, "float32"),
    "lstm": (lambda: Recurrent(nn.LSTM), SEQUENCE, "float32"),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCE, "float32"),
    "attention": (Attention, (4, 12), "float32"),
    "text": (Text, (7,), "int64"),
    "mixed": (Mixed, VECTOR, "float32"),
}
OPTIMISERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: optim.Adam(p, lr=3e-3),
    "adamw": lambda p: optim.AdamW(p, lr=3e-3, weight_decay=0.05, amsgrad=True),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
}


def batches(name: str, count: int, n: int = 6) -> Iterator[tuple[Any, Any]]:
    _, shape, dtype = MODELS[name]
    rng = np.random.default_rng(7)
    for _ in range(count):
        if dtype == "int64":
            x = rng.integers(0, 23, (n, *shape))
            yield fd.array(x), fd.array(rng.integers(0, 23, x.size))
        else:
            yield fd.array(rng.normal(size=(n, *shape)).astype(dtype)), fd.array(rng.integers(0, 4, n))


def train(
    name: str, optimiser: str = "adam", passes: dict[str, bool] | None = None, steps: int = STEPS, compiled: bool = True, clip: bool = False, schedule: bool = True
) -> tuple[list[Any], Any]:
    """Bits of the losses of all steps and of all state after them; and the step."""
    fd.manual_seed(11)
    model = MODELS[name][0]()
    optimizer = OPTIMISERS[optimiser](model.parameters())
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if clip:
            optim.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss

    run = fd.compile(step, passes=passes) if compiled else step
    seen = []
    for x, y in batches(name, steps):
        seen.append(bits(run(x, y)))
        if schedule:
            scheduler.step()
    return [*seen, *map(bits, state_of(model, optimizer)), fd.random.default_generator.get_state()], run


@pytest.mark.parametrize("name", MODELS)
def test_replay_equals_eager(name):
    want, _ = train(name, compiled=False)
    got, step = train(name)
    assert got == want
    assert step.programs == 1, step.reason
    assert step.stats()["replays"] == STEPS - 2  # one eager, one recorded


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimisers_with_clipping(optimiser):
    for name in ("mlp", "batch norm"):
        assert train(name, optimiser, compiled=False, clip=True)[0] == train(name, optimiser, clip=True)[0]


@pytest.mark.parametrize("off", [*_PASSES, "all"])
def test_every_pass_keeps_the_bits(off):
    passes = dict.fromkeys(_PASSES if off == "all" else [off], False)
    for name in ("mlp", "cnn", "lstm", "text"):
        want, _ = train(name, compiled=False, steps=8, clip=True)
        got, step = train(name, passes=passes, steps=8, clip=True)
        assert got == want, name
        assert step.programs == 1


@pytest.mark.parametrize("only", _PASSES)
def test_every_pass_alone(only):
    passes = {p: p == only for p in _PASSES}
    for name in ("mlp", "residual", "gru"):
        assert train(name, compiled=False, steps=6)[0] == train(name, passes=passes, steps=6)[0], name


def test_large_elementwise_chains():
    """Large enough for chains that run block by block."""

    def step(x, w):
        a = fd.tanh(x * w + 1.0)
        b = a * fd.sigmoid(x) - w
        c = fd.where(b > 0, b, 0.1 * a)
        return c, fd.sqrt(fd.abs(c) + b * b).sum(axis=0), (c * x.T.contiguous().T).mean()

    rng = np.random.default_rng(0)
    runs = {name: fd.compile(step, passes=passes) for name, passes in {"on": {}, "off": dict.fromkeys(_PASSES, False)}.items()}
    for _ in range(4):
        x, w = (fd.array(rng.normal(size=(600, 401)).astype("float32")) for _ in range(2))
        want = digest(step(x, w))
        for name, run in runs.items():
            assert digest(run(x, w)) == want, name


def test_weight_decay_groups_and_frozen_parameters():
    def run(compiled):
        fd.manual_seed(1)
        model = mlp()
        model[0].weight.requires_grad_(False)
        norm = [p for n, p in model.named_parameters() if p.ndim == 1 and p.requires_grad]
        rest = [p for n, p in model.named_parameters() if p.ndim > 1 and p.requires_grad]
        optimizer = optim.AdamW([{"params": rest, "weight_decay": 0.1}, {"params": norm, "weight_decay": 0.0, "lr": 1e-2}], lr=1e-3)

        def step(x, y):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

        step = fd.compile(step) if compiled else step
        for k, (x, y) in enumerate(batches("mlp", 20)):
            step(x, y)
            optimizer.param_groups[0]["weight_decay"] = 0.1 / (k + 1)  # settings live in tensors: no new program
        assert model[0].weight.grad is None
        if compiled:
            assert step.programs == 1
        return digest(state_of(model, optimizer))

    assert run(True) == run(False)


@pytest.mark.parametrize("to_none", [True, False])
def test_gradient_accumulation(to_none):
    """Gradients add up over k calls; two captured functions share them."""

    def run(compiled):
        fd.manual_seed(1)
        model = MODELS["cnn"][0]()
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        wrap = fd.compile if compiled else lambda f: f

        @wrap
        def micro(x, y):
            loss = F.cross_entropy(model(x), y) / 3
            loss.backward()
            return loss

        @wrap
        def update():
            optimizer.step()
            optimizer.zero_grad(set_to_none=to_none)

        losses = []
        for k, (x, y) in enumerate(batches("cnn", 30)):
            losses.append(micro(x, y))
            if k % 3 == 2:
                update()
        if compiled:
            assert micro.programs >= 1 and update.programs >= 1
        return digest(losses) + digest(state_of(model, optimizer))

    assert run(True) == run(False)


def test_accumulation_inside_by_a_static_argument():
    def run(compiled):
        fd.manual_seed(1)
        model = mlp()
        optimizer = optim.Adam(model.parameters(), lr=1e-2)

        def step(x, y, last):
            (F.cross_entropy(model(x), y) / 4).backward()
            if last:
                optimizer.step()
                optimizer.zero_grad()

        step = fd.compile(step) if compiled else step
        for k, (x, y) in enumerate(batches("mlp", 40)):
            step(x, y, last=k % 4 == 3)
        return digest(state_of(model, optimizer))

    assert run(True) == run(False)


PROGRAM = """
    import sys
    sys.path.insert(0, {tests!r})
    import fastdl as fd
    import test_capture as t
    fd.set_num_threads(int(sys.argv[1]))
    import hashlib
    h = hashlib.sha256()
    for name in ("cnn", "text"):
        h.update(repr(t.train(name, steps=6)[0]).encode())
    print(h.hexdigest())
"""


def test_deterministic_over_runs_threads_and_switch():
    """Also FASTDL_COMPILE=0 gives the same numbers."""
    code = textwrap.dedent(PROGRAM.format(tests=os.path.dirname(__file__)))
    found = set()
    for threads, switch in ((1, "1"), (3, "1"), (2, "0")):
        run = subprocess.run([sys.executable, "-c", code, str(threads)], capture_output=True, text=True, env={**os.environ, "FASTDL_COMPILE": switch})
        assert run.returncode == 0, run.stderr[-2000:]
        found.add(run.stdout.strip())
    assert len(found) == 1


def test_resume_from_a_checkpoint(tmp_path):
    """Saved after 12 of 24 steps, loaded into the running objects and into new ones: the same bits as without a stop."""

    def make():
        fd.manual_seed(5)
        model = cnn()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)
        scheduler = optim.lr_scheduler.StepLR(optimizer, 5, 0.5)

        @fd.compile
        def step(x, y):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return model, optimizer, scheduler, step

    data = list(batches("cnn", 24))

    def go(parts, first, last):
        model, optimizer, scheduler, step = parts
        losses = []
        for x, y in data[first:last]:
            losses.append(bits(step(x, y)))
            scheduler.step()
        return losses, digest(state_of(model, optimizer))

    first = make()
    go(first, 0, 12)
    path = tmp_path / "middle.ckpt"
    fd.save_checkpoint(path, model=first[0], optimizer=first[1], scheduler=first[2])
    want = go(first, 12, 24)
    fd.load_checkpoint(path, model=first[0], optimizer=first[1], scheduler=first[2])  # back in time, the same objects
    assert go(first, 12, 24) == want
    fresh = make()
    fd.load_checkpoint(path, model=fresh[0], optimizer=fresh[1], scheduler=fresh[2])
    assert go(fresh, 12, 24) == want


# ---- memory and launches ------------------------------------------------------------------------------------------------


def test_arena_reuses_memory():
    _, step = train("cnn", steps=3)
    stats = step.stats()
    assert 0 < stats["arena_bytes"] <= 0.75 * stats["unplanned_bytes"]
    _, plain = train("cnn", steps=3, passes={"arena": False})
    assert plain.stats()["arena_bytes"] >= plain.stats()["unplanned_bytes"] * 0.9


def test_outputs_stay_valid_while_held():
    @fd.compile
    def f(x):
        y = fd.exp(x)
        return y, {"sum": y.sum(), "row": y[1:2]}

    held = []
    for k in range(20):
        x = fd.full((3, 5), 0.1 * k)
        held.append((k, *f(x)))
    for k, y, more in held:
        want = np.exp(np.full((3, 5), 0.1 * k, np.float32).astype(np.float64))
        np.testing.assert_allclose(y.numpy(), want, rtol=1e-6)
        np.testing.assert_allclose(more["sum"].item(), want.sum(), rtol=1e-6)
        np.testing.assert_array_equal(more["row"].numpy(), y.numpy()[1:2])


def test_nothing_leaks():
    fd.manual_seed(0)
    model = mlp()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    @fd.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    (x, y), *_ = batches("mlp", 1)
    for _ in range(5):
        loss = step(x, y)
    before = fd.memory.stats()["in_use"]
    counts = [sys.getrefcount(p) for p in model.parameters()] + [sys.getrefcount(x), sys.getrefcount(y)]
    for _ in range(1000):
        loss = step(x, y)
    assert fd.memory.stats()["in_use"] == before
    assert counts == [sys.getrefcount(p) for p in model.parameters()] + [sys.getrefcount(x), sys.getrefcount(y)]
    assert np.isfinite(loss.item())


def test_programs_give_their_memory_back():
    def use():
        @fd.compile
        def f(x):
            return (fd.exp(x) @ fd.tanh(x)).sum()

        x = fd.ones((64, 64))
        for _ in range(3):
            f(x)
        assert f.programs == 1

    use()
    gc.collect()  # of other tests
    before = fd.memory.stats()["in_use"]
    for _ in range(5):
        use()
    assert fd.memory.stats()["in_use"] == before


LAUNCHES = {"xor": 35, "mlp": 75, "cnn": 90, "residual": 120, "lstm": 100, "text": 150}


@pytest.mark.parametrize("name", LAUNCHES)
def test_launches_per_step(name):
    _, step = train(name, "sgd", steps=3)
    assert step.stats()["launches"] <= LAUNCHES[name], step.dump()


def test_dump_and_times():
    _, step = train("mlp", steps=3)
    step.timed()
    for x, y in batches("mlp", 2):
        step(x, y)
    step.timed(False)
    text = step.dump()
    assert "linear" in text and "arena" in text
    assert len(text.splitlines()) == step.stats()["launches"] + 2


def test_no_python_between_launches():
    """A replay is one call: what a profile function sees does not grow with the number of launches."""

    def calls_of(n):
        @fd.compile
        def f(x):
            for _ in range(n):
                x = fd.tanh(x) * 1.01
            return x

        x = fd.ones(8)
        for _ in range(3):
            f(x)
        assert f.stats()["launches"] >= n
        events = []
        sys.setprofile(lambda frame, event, arg: events.append(event))
        try:
            f(x)
        finally:
            sys.setprofile(None)
        return len(events)

    assert calls_of(25) == calls_of(2) <= 16


def test_inference_and_modes():
    """Training and evaluation steps of one model, in turns."""
    fd.manual_seed(2)
    model = cnn()
    twin = copy.deepcopy(model)
    optimizer, other = (optim.SGD(m.parameters(), lr=0.05) for m in (model, twin))

    def make(m, o):
        def step(x, y):
            o.zero_grad()
            loss = F.cross_entropy(m(x), y)
            loss.backward()
            o.step()
            return loss

        return step

    step = fd.compile(make(model, optimizer))
    infer = fd.compile(lambda x: model(x).detach())
    eager = make(twin, other)
    for k, (x, y) in enumerate(batches("cnn", 24)):
        if k % 4 == 3:
            model.eval(), twin.eval()
            assert bits(infer(x)) == bits(twin(x))
            model.train(), twin.train()
        state = fd.random.default_generator.get_state()
        a = bits(step(x, y))
        fd.random.default_generator.set_state(state)
        assert a == bits(eager(x, y))
    assert step.programs == 1 and infer.programs == 1


def test_guard_zones():
    """No kernel of a planned program writes outside of its tensors: allocations with guard zones around them say so."""
    _C.set_guard(True)
    try:
        for name in ("mlp", "cnn", "lstm", "text"):
            assert train(name, steps=4)[0] == train(name, steps=4, compiled=False)[0]
    finally:
        _C.set_guard(False)
