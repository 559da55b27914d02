"""The seven training steps, once in the words that fastdl and PyTorch share and once for JAX, with the same initial weights.

A step is forward, backward, optimiser and cleared gradients. Weights are drawn by name and shape (`initial`), so that every engine begins
with the same numbers and the losses of the first steps can be compared.
"""

from __future__ import annotations

import types
import zlib
from typing import Any

import numpy as np

VOCAB, WIDTH, HEADS, CONTEXT = 96, 192, 6, 128
OPTIMISERS: dict[str, tuple[str, dict[str, float]]] = {
    "xor": ("SGD", {"lr": 0.5}), "mlp": ("Adam", {"lr": 1e-3}), "mlp1024": ("Adam", {"lr": 1e-3}), "cnn": ("Adam", {"lr": 1e-3}),
    "lstm": ("Adam", {"lr": 1e-3}), "gpt": ("AdamW", {"lr": 3e-4, "weight_decay": 0.01}), "resnet18": ("SGD", {"lr": 0.01, "momentum": 0.9}),
}  # fmt: skip


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step."""
    rng = np.random.default_rng(1)
    if name == "xor":
        return np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "f"), np.array([[0], [1], [1], [0]], "f")
    if name in ("lstm", "gpt"):
        shape: tuple[int, ...] = (32, 100) if name == "lstm" else (8, CONTEXT)
        return rng.integers(0, VOCAB, shape), rng.integers(0, VOCAB, shape)
    shape = {"mlp": (64, 784), "mlp1024": (128, 784), "cnn": (64, 1, 28, 28), "resnet18": (16, 3, 32, 32)}[name]
    return rng.standard_normal(shape).astype("f"), rng.integers(0, 10, shape[0])


def initial(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The first value of a parameter: ones and zeros for norms and biases, else normal with deviation 1 / sqrt(fan in)."""
    if len(shape) == 1:
        return (np.ones if name.endswith("weight") else np.zeros)(shape, "f")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("f")


# ---- fastdl and PyTorch: `lib` holds nn, F, optim, tensor and causal(q, k, v)
def model(name: str, lib: Any, dropout: float) -> Any:
    nn, F = lib.nn, lib.F
    Module: Any = nn.Module
    if name == "xor":
        return nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())
    if name == "mlp":
        return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, 10))
    if name == "mlp1024":
        return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    if name == "cnn":
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(5408, 128), nn.ReLU(), nn.Linear(128, 10))
    if name == "lstm":

        class Text(Module):
            def __init__(self) -> None:
                super().__init__()
                self.embed, self.lstm, self.head = nn.Embedding(VOCAB, 64), nn.LSTM(64, 128, batch_first=True), nn.Linear(128, VOCAB)

            def forward(self, x: Any) -> Any:
                return self.head(self.lstm(self.embed(x))[0])

        return Text()
    if name == "gpt":

        class Block(Module):
            def __init__(self) -> None:
                super().__init__()
                self.n1, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
                self.n2, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

            def forward(self, x: Any) -> Any:
                b, t, _ = x.shape
                h = self.qkv(self.n1(x)).reshape(b, t, 3, HEADS, WIDTH // HEADS)
                q, k, v = (h[:, :, i].swapaxes(1, 2) for i in range(3))
                x = x + self.out(lib.causal(q, k, v).swapaxes(1, 2).reshape(b, t, WIDTH))
                return x + self.down(F.gelu(self.up(self.n2(x))))

        class Gpt(Module):
            def __init__(self) -> None:
                super().__init__()
                self.tok, self.pos = nn.Embedding(VOCAB, WIDTH), nn.Embedding(CONTEXT, WIDTH)
                self.blocks = nn.Sequential(*(Block() for _ in range(4)))
                self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCAB)

            def forward(self, x: Any) -> Any:
                return self.head(self.norm(self.blocks(self.tok(x) + self.pos.weight)))

        return Gpt()

    class Residual(Module):
        def __init__(self, cin: int, cout: int, stride: int) -> None:
            super().__init__()
            self.c1, self.b1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
            self.c2, self.b2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
            self.changes = cin != cout
            if self.changes:
                self.c3, self.b3 = nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)

        def forward(self, x: Any) -> Any:
            y = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
            return F.relu(y + (self.b3(self.c3(x)) if self.changes else x))

    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [Residual(*block) for block in BLOCKS]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10))


BLOCKS = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]


def build(name: str, lib: Any, dropout: float) -> Any:
    """A function without arguments that makes one training step and returns the loss."""
    net = model(name, lib, dropout)
    lib.assign([(p, initial(key, tuple(p.shape))) for key, p in net.named_parameters()])
    kind, settings = OPTIMISERS[name]
    optimiser = getattr(lib.optim, kind)(net.parameters(), **settings, **lib.optimiser_settings)
    x, y = (lib.tensor(v) for v in data(name))

    def step(x: Any, y: Any) -> Any:
        out = net(x)
        loss = lib.F.mse_loss(out, y) if name == "xor" else lib.F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.detach()

    run = lib.compile(step, net)
    return lambda: run(x, y)


def fastdl_library(compiled: bool) -> Any:
    import fastdl as fd
    from fastdl import nn, optim

    def assign(pairs: list) -> None:
        with fd.no_grad():
            for p, value in pairs:
                p[...] = fd.array(value)

    compile_ = getattr(fd, "compile", None)
    wrap = (lambda step, net: compile_(step)) if compile_ and compiled else (lambda step, net: step)
    return types.SimpleNamespace(
        nn=nn, F=nn.functional, optim=optim, tensor=fd.array, assign=assign, optimiser_settings={}, compile=wrap,
        causal=lambda q, k, v: nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    )  # fmt: skip


def torch_library(compiled: bool) -> Any:
    import torch

    def assign(pairs: list) -> None:
        with torch.no_grad():
            for p, value in pairs:
                p.copy_(torch.from_numpy(value))

    def wrap(step: Any, net: Any) -> Any:
        if compiled:
            net.compile()
        return step

    F = torch.nn.functional
    return types.SimpleNamespace(
        nn=torch.nn, F=F, optim=torch.optim, tensor=torch.from_numpy, assign=assign, optimiser_settings={"fused": True}, compile=wrap,
        causal=lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    )  # fmt: skip
