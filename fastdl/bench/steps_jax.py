"""The seven training steps for JAX: one jitted function per step, its state donated."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .steps import BLOCKS, CONTEXT, HEADS, OPTIMISERS, VOCAB, WIDTH, data, initial


def parameters(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes, the same as in the models of `steps.model`."""
    found: dict[str, tuple[int, ...]] = {}

    layers: list[tuple[str, int, int]] = []  # weight (out, in) and bias
    norms: list[tuple[str, int]] = []
    if name == "xor":
        layers = [("0", 2, 4), ("2", 4, 1)]
    elif name == "mlp":
        layers = [("0", 784, 128), ("3", 128, 10)]
    elif name == "mlp1024":
        layers = [("0", 784, 1024), ("2", 1024, 1024), ("4", 1024, 10)]
    elif name == "cnn":
        found.update({"0.weight": (32, 1, 3, 3), "0.bias": (32,)})
        layers = [("4", 5408, 128), ("6", 128, 10)]
    elif name == "lstm":
        found.update({"embed.weight": (VOCAB, 64), "lstm.weight_ih_l0": (512, 64), "lstm.weight_hh_l0": (512, 128)})
        found.update({"lstm.bias_ih_l0": (512,), "lstm.bias_hh_l0": (512,)})
        layers = [("head", 128, VOCAB)]
    elif name == "gpt":
        found.update({"tok.weight": (VOCAB, WIDTH), "pos.weight": (CONTEXT, WIDTH)})
        layers, norms = [("head", WIDTH, VOCAB)], [("norm", WIDTH)]
        for i in range(4):
            norms += [(f"blocks.{i}.n1", WIDTH), (f"blocks.{i}.n2", WIDTH)]
            layers += [(f"blocks.{i}.qkv", WIDTH, 3 * WIDTH), (f"blocks.{i}.out", WIDTH, WIDTH)]
            layers += [(f"blocks.{i}.up", WIDTH, 4 * WIDTH), (f"blocks.{i}.down", 4 * WIDTH, WIDTH)]
    else:
        found["0.weight"] = (64, 3, 3, 3)
        layers, norms = [("13", 512, 10)], [("1", 64)]
        for i, (cin, cout, _) in enumerate(BLOCKS, 3):
            found.update({f"{i}.c1.weight": (cout, cin, 3, 3), f"{i}.c2.weight": (cout, cout, 3, 3)})
            norms += [(f"{i}.b1", cout), (f"{i}.b2", cout)]
            if cin != cout:
                found[f"{i}.c3.weight"] = (cout, cin, 1, 1)
                norms.append((f"{i}.b3", cout))
    for key, i, o in layers:
        found.update({f"{key}.weight": (o, i), f"{key}.bias": (o,)})
    for key, n in norms:
        found.update({f"{key}.weight": (n,), f"{key}.bias": (n,)})
    return found


def linear(p: dict, key: str, x: Any) -> Any:
    return x @ p[f"{key}.weight"].T + p[f"{key}.bias"]


def layer_norm(p: dict, key: str, x: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * p[f"{key}.weight"] + p[f"{key}.bias"]


def conv(w: Any, x: Any, stride: int = 1, padding: int = 0) -> Any:
    return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NCHW", "OIHW", "NCHW"))


def batch_norm(p: dict, key: str, x: Any, statistics: dict) -> Any:
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
    n = x.size // x.shape[1]
    statistics[key] = (mean, var * (n / (n - 1)))
    scale = lax.rsqrt(var + 1e-5) * p[f"{key}.weight"]
    return (x - mean[:, None, None]) * scale[:, None, None] + p[f"{key}.bias"][:, None, None]


def lstm(p: dict, x: Any) -> Any:
    gates = x @ p["lstm.weight_ih_l0"].T + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]
    w = p["lstm.weight_hh_l0"].T

    def cell(state: tuple, gate: Any) -> tuple:
        h, c = state
        i, f, g, o = jnp.split(gate + h @ w, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((x.shape[0], 128))
    return lax.scan(cell, (zero, zero), gates.swapaxes(0, 1))[1].swapaxes(0, 1)


def forward(name: str, p: dict, x: Any, key: Any, dropout: float, statistics: dict) -> Any:
    relu = jax.nn.relu
    if name == "xor":
        return jax.nn.sigmoid(linear(p, "2", jax.nn.sigmoid(linear(p, "0", x))))
    if name == "mlp":
        h = relu(linear(p, "0", x))
        h = jnp.where(jax.random.bernoulli(key, 1 - dropout, h.shape), h / (1 - dropout), 0) if dropout else h
        return linear(p, "3", h)
    if name == "mlp1024":
        return linear(p, "4", relu(linear(p, "2", relu(linear(p, "0", x)))))
    if name == "cnn":
        h = relu(conv(p["0.weight"], x) + p["0.bias"][:, None, None])
        h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return linear(p, "6", relu(linear(p, "4", h.reshape(h.shape[0], -1))))
    if name == "lstm":
        return linear(p, "head", lstm(p, p["embed.weight"][x]))
    if name == "gpt":
        h = p["tok.weight"][x] + p["pos.weight"]
        b, t, _ = h.shape
        mask = np.tril(np.ones((t, t), bool))
        for i in range(4):
            qkv = linear(p, f"blocks.{i}.qkv", layer_norm(p, f"blocks.{i}.n1", h)).reshape(b, t, 3, HEADS, WIDTH // HEADS)
            q, k, v = (qkv[:, :, j].swapaxes(1, 2) for j in range(3))
            scores = jnp.where(mask, q @ k.mT * (q.shape[-1] ** -0.5), -jnp.inf)
            h = h + linear(p, f"blocks.{i}.out", (jax.nn.softmax(scores, -1) @ v).swapaxes(1, 2).reshape(b, t, WIDTH))
            up = jax.nn.gelu(linear(p, f"blocks.{i}.up", layer_norm(p, f"blocks.{i}.n2", h)), approximate=False)
            h = h + linear(p, f"blocks.{i}.down", up)
        return linear(p, "head", layer_norm(p, "norm", h))
    h = relu(batch_norm(p, "1", conv(p["0.weight"], x, 1, 1), statistics))
    for i, (cin, cout, stride) in enumerate(BLOCKS, 3):
        y = relu(batch_norm(p, f"{i}.b1", conv(p[f"{i}.c1.weight"], h, stride, 1), statistics))
        y = batch_norm(p, f"{i}.b2", conv(p[f"{i}.c2.weight"], y, 1, 1), statistics)
        h = relu(y + (batch_norm(p, f"{i}.b3", conv(p[f"{i}.c3.weight"], h, stride), statistics) if cin != cout else h))
    return linear(p, "13", h.mean((2, 3)))


def update(name: str, p: dict, grads: dict, slots: dict, t: Any) -> tuple[dict, dict]:
    kind, settings = OPTIMISERS[name]
    lr = settings["lr"]
    if kind == "SGD":
        momentum = settings.get("momentum", 0.0)
        if not momentum:
            return {k: p[k] - lr * grads[k] for k in p}, slots
        slots = {k: momentum * slots[k] + grads[k] for k in p}
        return {k: p[k] - lr * slots[k] for k in p}, slots
    decay = 1 - lr * settings.get("weight_decay", 0.0)
    first = {k: 0.9 * slots[k][0] + 0.1 * grads[k] for k in p}
    second = {k: 0.999 * slots[k][1] + 0.001 * grads[k] ** 2 for k in p}
    a, b = 1 - 0.9**t, 1 - 0.999**t
    p = {k: decay * p[k] - lr * (first[k] / a) / (jnp.sqrt(second[k] / b) + 1e-8) for k in p}
    return p, {k: (first[k], second[k]) for k in p}


def build(name: str, dropout: float) -> Any:
    """A function without arguments that makes one training step and returns the loss."""
    x, y = (jnp.asarray(v) for v in data(name))

    def loss_of(p: dict, x: Any, y: Any, key: Any) -> Any:
        statistics: dict = {}
        out = forward(name, p, x, key, dropout, statistics)
        if name == "xor":
            return ((out - y) ** 2).mean(), statistics
        logits = jax.nn.log_softmax(out.reshape(-1, out.shape[-1]))
        return -jnp.take_along_axis(logits, y.reshape(-1, 1), 1).mean(), statistics

    @partial(jax.jit, donate_argnums=(0,))
    def step(state: tuple, x: Any, y: Any) -> tuple:
        p, slots, running, t, key = state
        key, use = jax.random.split(key) if name == "mlp" else (key, key)
        (loss, statistics), grads = jax.value_and_grad(loss_of, has_aux=True)(p, x, y, use)
        p, slots = update(name, p, grads, slots, t + 1)
        running = {k: tuple(0.9 * old + 0.1 * new for old, new in zip(running[k], statistics[k])) for k in running}
        return loss, (p, slots, running, t + 1, key)

    p = {k: jnp.asarray(initial(k, shape)) for k, shape in parameters(name).items()}
    kind, settings = OPTIMISERS[name]

    def zeros() -> dict:
        return {k: jnp.zeros_like(v) for k, v in p.items()}

    slots: dict = {}
    if kind != "SGD":
        slots = {k: (v, jnp.zeros_like(v)) for k, v in zeros().items()}
    elif "momentum" in settings:
        slots = zeros()
    norms = {k[: -len(".bias")]: v.shape[0] for k, v in p.items() if k.endswith(".bias")} if name == "resnet18" else {}
    running = {k: (jnp.zeros(n), jnp.ones(n)) for k, n in norms.items() if k != "13"}
    state: tuple = (p, slots, running, jnp.float32(0), jax.random.key(0))

    def run() -> Any:
        nonlocal state
        loss, state = step(state, x, y)
        return loss
    return run
