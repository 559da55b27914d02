"""What `fastdl bench` times, as data: one expression per engine over the same named inputs, and the least work it must do."""

from __future__ import annotations

import dataclasses
import math

Input = tuple  # ("normal", shape) | ("index", shape, below)

FD, TORCH, JAX, NUMPY, ONNX = "fastdl", "torch", "jax", "numpy", "onnxruntime"


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement.

    `code` maps an engine to an expression over the inputs (torch's serves torch-compile, too; onnxruntime's is made of operators of a graph
    `o`, see onnx_graph.py). `grad` names the inputs whose gradients are computed as well, from a fixed random gradient of the output.
    `setup` maps an engine to statements that define `run()` instead.
    `inner` names images that come from a layer before: they lie in memory as the engine's own layers hand them on, and so does the gradient.
    """

    name: str
    suite: str  # ops | conv-sweep | steps
    family: str
    inputs: dict[str, Input] = dataclasses.field(default_factory=dict)
    code: dict[str, str] = dataclasses.field(default_factory=dict)
    grad: tuple[str, ...] = ()
    setup: dict[str, str] = dataclasses.field(default_factory=dict)
    flops: float = 0.0
    bytes: float = 0.0
    depth: float = 1.0  # terms in the longest sum: the engines may differ by eps times its root
    inner: tuple[str, ...] = ()
    check: bool = True  # results are random numbers where False
    dtype: str = "float32"  # of the inputs


def engines_of(case: Case) -> set[str]:
    """The engines for which a case has code.

    >>> from fastdl.bench.cases import all_cases, engines_of
    >>> sorted(engines_of(all_cases()[0]))
    ['fastdl', 'fastdl-eager', 'jax', 'numpy', 'onnxruntime', 'torch', 'torch-compile']
    """
    if case.suite == "steps":
        return {FD, "fastdl-eager", TORCH, "torch-compile", JAX}
    names = set(case.code) | set(case.setup)
    if case.grad:
        names -= {NUMPY, ONNX}
    return names | ({"fastdl-eager"} if FD in names else set()) | ({"torch-compile"} if TORCH in case.code else set())


def same(expression: str, *engines: str) -> dict[str, str]:
    return dict.fromkeys(engines or (FD, TORCH, JAX, NUMPY), expression)


def gemm(m: int, k: int, n: int, form: str = "NN", batch: tuple[int, ...] = (), dtype: str = "float32") -> Case:
    a = (*batch, k, m) if form[0] == "T" else (*batch, m, k)
    b = (*batch, n, k) if form[1] == "T" else (*batch, k, n)
    left, right = ("a.mT" if form[0] == "T" else "a"), ("b.mT" if form[1] == "T" else "b")
    count = math.prod(batch)
    title = f"matmul {m}" if m == k == n else f"matmul {m}x{k}x{n}"
    full = dtype == "float32"
    code = same(f"{left} @ {right}", FD, TORCH, JAX)
    if full:
        code[NUMPY] = code[FD]
        swap = [*range(len(batch)), len(batch) + 1, len(batch)]
        operands = [f"o.Transpose({x}, perm={swap})" if f == "T" else x for x, f in zip("ab", form)]
        code[ONNX] = f"o.MatMul({', '.join(operands)})" if batch else f"o.Gemm(a, b, transA={form[0] == 'T':d}, transB={form[1] == 'T':d})"
    return Case(
        (f"bmm {count}x({m}x{k}x{n})" if batch else title) + f" {form}" + ("" if full else f" {dtype}"), "ops", "matmul",
        {"a": ("normal", a), "b": ("normal", b)}, code,
        flops=2.0 * count * m * k * n, bytes=(4.0 if full else 2.0) * count * (m * k + k * n + m * n), depth=k, dtype=dtype,
    )  # fmt: skip


def conv(batch: int, cin: int, size: int, cout: int, kernel: int, stride: int = 1, padding: int | None = None, groups: int = 1,
         first: bool = False, suite: str = "ops", dilation: int = 1) -> Case:  # fmt: skip
    """Forward and backward; a network's first layer needs no gradient of its input."""
    pad = dilation * (kernel // 2) if padding is None else padding
    out = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
    forward = 2.0 * batch * out * out * cout * (cin // groups) * kernel * kernel
    items = batch * cin * size * size + cout * (cin // groups) * kernel * kernel + batch * cout * out * out
    args = f"None, {stride}, {pad}, {dilation}, {groups}"
    jax = (
        f"lax.conv_general_dilated(x, w, ({stride}, {stride}), [({pad}, {pad})] * 2, rhs_dilation=({dilation}, {dilation}), "
        f"feature_group_count={groups}, dimension_numbers=('NCHW', 'OIHW', 'NCHW'))"
    )
    name = f"conv {batch}x{cin}x{size}x{size}->{cout} {kernel}x{kernel}"
    for what, value, default in (("s", stride, 1), ("p", pad, dilation * (kernel // 2)), ("d", dilation, 1), ("g", groups, 1)):
        name += f" {what}{value}" if value != default else ""
    return Case(
        name + (" first" if first else ""), suite, "conv",
        {"x": ("normal", (batch, cin, size, size)), "w": ("normal", (cout, cin // groups, kernel, kernel))},
        {**same(f"F.conv2d(x, w, {args})", FD, TORCH), JAX: jax}, ("w",) if first else ("x", "w"),
        flops=forward * (2 if first else 3), bytes=4.0 * items * (2 if first else 3),
        depth=max((cin // groups) * kernel * kernel, batch * out * out), inner=() if first else ("x",),
    )  # fmt: skip


def elementwise(name: str, n: int, code: dict[str, str], operands: int = 1) -> Case:
    inputs: dict[str, Input] = {k: ("normal", (n,)) for k in ("x", "y")[:operands]}
    return Case(f"{name} {n:,}", "ops", "elementwise", inputs, code, flops=float(n), bytes=4.0 * n * (operands + 1))


ELEMENTWISE: list[tuple[str, dict[str, str], int]] = [
    ("add", {**same("x + y"), ONNX: "o.Add(x, y)"}, 2),
    ("mul", {**same("x * y"), ONNX: "o.Mul(x, y)"}, 2),
    ("relu", {FD: "fd.relu(x)", TORCH: "torch.relu(x)", JAX: "jax.nn.relu(x)", NUMPY: "np.maximum(x, 0)", ONNX: "o.Relu(x)"}, 1),
    ("sigmoid", {FD: "fd.sigmoid(x)", TORCH: "torch.sigmoid(x)", JAX: "jax.nn.sigmoid(x)", NUMPY: "1 / (1 + np.exp(-x))", ONNX: "o.Sigmoid(x)"}, 1),
    ("tanh", {FD: "fd.tanh(x)", TORCH: "torch.tanh(x)", JAX: "jnp.tanh(x)", NUMPY: "np.tanh(x)", ONNX: "o.Tanh(x)"}, 1),
    ("exp", {FD: "fd.exp(x)", TORCH: "torch.exp(x)", JAX: "jnp.exp(x)", NUMPY: "np.exp(x)", ONNX: "o.Exp(x)"}, 1),
    ("gelu", {FD: "F.gelu(x)", TORCH: "F.gelu(x)", JAX: "jax.nn.gelu(x, approximate=False)", ONNX: "o.Gelu(x)"}, 1),
    ("silu", {FD: "F.silu(x)", TORCH: "F.silu(x)", JAX: "jax.nn.silu(x)", ONNX: "o.Mul(x, o.Sigmoid(x))"}, 1),
    ("softplus", {FD: "F.softplus(x)", TORCH: "F.softplus(x)", JAX: "jax.nn.softplus(x)", ONNX: "o.Softplus(x)"}, 1),
]


def pool(kind: str, batch: int, channels: int, size: int, kernel: int, stride: int, padding: int = 0) -> Case:
    out = (size + 2 * padding - kernel) // stride + 1
    window = f"(1, 1, {kernel}, {kernel}), (1, 1, {stride}, {stride}), ((0, 0), (0, 0), ({padding}, {padding}), ({padding}, {padding}))"
    jax = {
        "max": f"lax.reduce_window(x, -jnp.inf, lax.max, {window})",
        "avg": f"lax.reduce_window(x, 0., lax.add, {window}) / {kernel * kernel}",
    }[kind]
    return Case(
        f"{kind}-pool {kernel}x{kernel} s{stride} of {batch}x{channels}x{size}x{size}", "ops", "pool",
        {"x": ("normal", (batch, channels, size, size))},
        {**same(f"F.{kind}_pool2d(x, {kernel}, {stride}, {padding})", FD, TORCH), JAX: jax}, ("x",),
        bytes=4.0 * batch * channels * (2 * size * size + 2 * out * out), depth=kernel * kernel, inner=("x",),
    )  # fmt: skip


def _rows() -> list[Case]:
    cases: list[Case] = []
    for n, m in ((1024, 1024), (8192, 1024), (64, 10)):
        x: dict[str, Input] = {"x": ("normal", (n, m))}
        vectors: dict[str, Input] = {"w": ("normal", (m,)), "b": ("normal", (m,))}
        softmax = {**same("F.softmax(x, -1)", FD, TORCH), JAX: "jax.nn.softmax(x, -1)"}
        norm = {
            **same(f"F.layer_norm(x, ({m},), w, b)", FD, TORCH),
            JAX: "(x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * w + b",
        }
        numpy = "(lambda e: e / e.sum(-1, keepdims=True))(np.exp(x - x.max(-1, keepdims=True)))"
        cases += [
            Case(f"softmax {n}x{m}", "ops", "rows", x, {**softmax, NUMPY: numpy, ONNX: "o.Softmax(x, axis=-1)"}, bytes=8.0 * n * m, depth=m),
            Case(f"softmax {n}x{m} fwd+bwd", "ops", "rows", x, softmax, ("x",), bytes=20.0 * n * m, depth=m),
            Case(f"layer_norm {n}x{m} fwd+bwd", "ops", "rows", {**x, **vectors}, norm, ("x", "w", "b"), bytes=20.0 * n * m, depth=max(m, n)),
        ]
    for b, h, n, e, causal in ((8, 6, 128, 32, True), (2, 8, 512, 64, True), (4, 12, 197, 64, False), (1, 8, 2048, 64, True)):
        code = {
            **same(f"F.scaled_dot_product_attention(q, k, v, is_causal={causal})", FD, TORCH),
            JAX: f"jax.nn.dot_product_attention(*(t.swapaxes(1, 2) for t in (q, k, v)), is_causal={causal}).swapaxes(1, 2)",
        }
        heads: dict[str, Input] = {name: ("normal", (b, h, n, e)) for name in "qkv"}
        title = f"attention {b}x{h}x{n}x{e}{' causal' if causal else ''}"
        work = 4.0 * b * h * e * (n * (n + 1) / 2 if causal else n * n)
        onnx = {ONNX: f"o.Attention(q, k, v, is_causal={causal:d})"}
        cases.append(Case(title, "ops", "attention", heads, {**code, **onnx}, flops=work, depth=n))
        cases.append(Case(f"{title} fwd+bwd", "ops", "attention", heads, code, ("q", "k", "v"), flops=3.5 * work, depth=n))
    for n, m in ((64, 10), (1024, 1000), (3200, 96), (8192, 4096)):
        code = {
            **same("F.cross_entropy(x, t)", FD, TORCH),
            JAX: "-jnp.take_along_axis(jax.nn.log_softmax(x), t[:, None], 1).mean()",
        }
        inputs: dict[str, Input] = {"x": ("normal", (n, m)), "t": ("index", (n,), m)}
        cases.append(Case(f"cross_entropy {n}x{m} fwd+bwd", "ops", "rows", inputs, code, ("x",), bytes=12.0 * n * m, depth=max(m, n)))
    for b, c, s in ((32, 64, 56), (16, 256, 14)):
        code = {
            **same("F.batch_norm(x, None, None, w, b, True)", FD, TORCH),
            JAX: "(x - x.mean((0, 2, 3), keepdims=True)) * lax.rsqrt(x.var((0, 2, 3), keepdims=True) + 1e-5) * w[:, None, None] + b[:, None, None]",
        }
        inputs = {"x": ("normal", (b, c, s, s)), "w": ("normal", (c,)), "b": ("normal", (c,))}
        cases.append(Case(f"batch_norm {b}x{c}x{s}x{s} fwd+bwd", "ops", "rows", inputs, code, ("x", "w", "b"), bytes=24.0 * b * c * s * s, depth=b * s * s))
    return cases


def _reductions() -> list[Case]:
    big, square = 1 << 24, (4096, 4096)
    cases = []
    for op, onnx, depth in (("sum", "Sum", big), ("mean", "Mean", big), ("max", "Max", 1)):
        code = {**same(f"x.{op}()"), ONNX: f"o.Reduce{onnx}(x, keepdims=0)"}
        cases.append(Case(f"{op} of {big:,}", "ops", "reduction", {"x": ("normal", (big,))}, code, bytes=4.0 * big, depth=depth))
    for op in ("sum", "mean", "argmax"):
        for axis in (0, 1):
            onnx = f"o.ArgMax(x, axis={axis}, keepdims=0)" if op == "argmax" else f"o.Reduce{op.title()}(x, o.integers({axis}), keepdims=0)"
            code = {**same(f"x.{op}({axis})"), ONNX: onnx}
            cases.append(Case(f"{op} axis {axis} of 4096x4096", "ops", "reduction", {"x": ("normal", square)}, code, bytes=4.0 * big, depth=4096))
    return cases


ADAM = {
    FD: "from fastdl import nn, optim\np = nn.Parameter(x.clone())\np.grad = g\no = optim.Adam([p], lr=1e-3)\ndef run():\n  o.step()\n  return p",
    TORCH: "p = torch.nn.Parameter(x.clone())\np.grad = g\no = torch.optim.Adam([p], lr=1e-3, {}=True)\ndef run():\n  o.step()\n  return p",
    JAX: (
        "from functools import partial\n@partial(jax.jit, donate_argnums=(0, 1, 2, 3))\ndef update(p, m, v, t, g):\n"
        "  t = t + 1; m = 0.9 * m + 0.1 * g; v = 0.999 * v + 0.001 * g * g\n"
        "  return p - 1e-3 * (m / (1 - 0.9 ** t)) / (jnp.sqrt(v / (1 - 0.999 ** t)) + 1e-8), m, v, t\n"
        "state = (x + 0, jnp.zeros_like(x), jnp.zeros_like(x), jnp.float32(0))\n"
        "def run():\n  global state\n  state = update(*state, g)\n  return state[0]"
    ),
}


def adam(n: int, kind: str) -> Case:
    setup = {**ADAM, TORCH: ADAM[TORCH].format(kind)}
    inputs: dict[str, Input] = {"x": ("normal", (n,)), "g": ("normal", (n,))}
    return Case(f"Adam {n:,} parameters (torch: {kind})", "ops", "optimiser", inputs, setup=setup, bytes=28.0 * n, depth=100)


def _ops() -> list[Case]:
    forms = ("NN", "NT", "TN")
    skinny = [
        (4, 2, 4), (64, 784, 128), (64, 128, 10), (128, 784, 1024), (128, 1024, 1024), (1024, 192, 576), (1024, 192, 768),
        (1024, 768, 192), (1024, 192, 96), (64, 5408, 128), (32, 64, 512), (32, 128, 512), (1, 4096, 4096),
    ]  # fmt: skip
    n = 10_000_000
    return [
        *(gemm(s, s, s, form) for s in (16, 32, 64, 128, 256, 512, 1024, 2048) for form in forms),
        *(gemm(*shape, form) for shape in skinny for form in forms),
        *(gemm(128, 32, 128, form, (48,)) for form in forms),
        *(gemm(s, s, s, form, dtype="bfloat16") for s in (64, 256, 512, 1024, 2048) for form in forms),
        *(gemm(*shape, form, dtype="bfloat16") for shape in skinny[1:-1] for form in forms if shape[0] >= 128),
        *(elementwise(name, size, code, operands) for name, code, operands in ELEMENTWISE for size in (1024, 1 << 20, 1 << 24)),
        *_reductions(),
        *_rows(),
        *(conv(b, c, s, c, 3) for b in (1, 16) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7))),
        conv(64, 1, 28, 32, 3, padding=0, first=True), conv(16, 3, 32, 64, 3, first=True), conv(8, 3, 224, 64, 7, 2, first=True),
        conv(16, 64, 56, 128, 3, 2), conv(16, 64, 56, 128, 1, 2), conv(16, 256, 28, 64, 1), conv(16, 64, 28, 256, 1),
        conv(16, 128, 28, 128, 3, groups=128), conv(16, 512, 14, 512, 3, groups=512),
        pool("max", 32, 64, 56, 2, 2), pool("avg", 32, 64, 56, 2, 2), pool("max", 16, 64, 112, 3, 2, 1), pool("max", 64, 32, 26, 2, 2),
        adam(n, "fused"), adam(n, "foreach"),
        Case("embedding 32x100 of 10000x64 fwd+bwd", "ops", "index", {"w": ("normal", (10000, 64)), "i": ("index", (32, 100), 10000)},
             {**same("F.embedding(i, w)", FD, TORCH), JAX: "w[i]"}, ("w",), bytes=4.0 * 64 * (3 * 3200 + 10000), depth=16),
        *(Case(f"dropout {s:,}", "ops", "random", {"x": ("normal", (s,))},
               {**same("F.dropout(x, 0.5, True)", FD, TORCH), JAX: "jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, x.shape), 2 * x, 0)"},
               bytes=8.0 * s, check=False) for s in (1 << 20, 1 << 24)),
    ]  # fmt: skip


def _sweep() -> list[Case]:
    cases = []
    for batch in (2, 8):
        for cin, cout in ((3, 16), (16, 16), (16, 33), (32, 64), (64, 64), (64, 128), (96, 24), (128, 128)):
            for size in (7, 15, 28):
                for kernel, stride in ((1, 1), (3, 1), (3, 2), (5, 1)):
                    cases.append(conv(batch, cin, size, cout, kernel, stride, suite="conv-sweep"))
    for channels in (16, 32, 64, 144):
        for size in (14, 28):
            cases += [
                conv(8, channels, size, channels, 3, groups=channels, suite="conv-sweep"),
                conv(8, channels, size, channels, 3, 2, groups=channels, suite="conv-sweep"),
                conv(8, channels, size, channels, 3, groups=4, suite="conv-sweep"),
                conv(8, channels, size, channels, 3, dilation=2, suite="conv-sweep"),
            ]
    return cases


STEPS = {
    "xor": "2-4-1 sigmoid, batch 4, SGD", "mlp": "784-128-10, relu, dropout, batch 64, Adam", "mlp1024": "784-1024-1024-10, batch 128, Adam",
    "cnn": "conv 32 3x3, pool, fc 128, batch 64, Adam", "lstm": "embed 64, LSTM 128, 100 steps, batch 32, Adam",
    "gpt": "4 layers, width 192, batch 8 x 128, AdamW", "resnet18": "CIFAR size, batch 16, SGD",
}  # fmt: skip


def all_cases() -> list[Case]:
    """Every case, in the order in which they run."""
    return [*_ops(), *(Case(name, "steps", "step") for name in STEPS), *_sweep()]
