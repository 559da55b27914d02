"""What bench/gpu_run.py measures on a GPU: data only. A case: inputs, one statement per engine, the work it must do at least.

Inputs are made once and shared by all engines through DLPack: ("normal", shape), ("uniform", shape), ("index", shape, below). A statement
is an expression over them and `fd`, `torch` or `cp`, `F` being the engine's functional module; `setup` runs before, per engine. `check`:
the result is compared with torch's in float64. Sizes shrink to a few elements in a dry run: see `tiny`.
"""

from __future__ import annotations

import dataclasses

Input = tuple


@dataclasses.dataclass
class Case:
    name: str
    family: str  # row of gpu_predictions.toml
    inputs: dict[str, Input]
    fd: str
    torch: str
    cupy: str | None = None
    dtype: str = "float32"
    flops: float = 0.0
    bytes: float = 0.0
    setup: dict[str, str] = dataclasses.field(default_factory=dict)
    check: bool = True
    memory: str = ""  # channels_last: 4-d inputs lie in NHWC order


def tiny(n: int) -> int:
    """A size for dry runs: equal sizes stay equal, odd ones odd."""
    return n if n <= 8 else 8 if n % 8 == 0 else 8 + n % 5


ITEM = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}


def gemm(m: int, n: int, k: int, dtype: str, family: str = "") -> Case:
    return Case(
        f"matmul {m}x{n}x{k}", family or f"gemm {dtype}", {"a": ("normal", (m, k)), "b": ("normal", (k, n))}, "a @ b", "a @ b",
        None if dtype == "bfloat16" else "a @ b", dtype, 2.0 * m * n * k, ITEM[dtype] * (m * k + k * n + m * n),
    )  # fmt: skip


def linear_gelu(m: int, n: int, k: int, dtype: str) -> Case:
    return Case(
        f"gelu(linear) {m}x{n}x{k}", "gemm fused", {"x": ("normal", (m, k)), "w": ("normal", (n, k)), "c": ("normal", (n,))},
        "F.gelu(F.linear(x, w, c))", "F.gelu(F.linear(x, w, c))", None, dtype, 2.0 * m * n * k, ITEM[dtype] * (m * k + k * n + m * n),
    )  # fmt: skip


def conv(what: str, batch: int, size: int, cin: int, cout: int, kernel: int, stride: int, dtype: str) -> Case:
    pad, out = kernel // 2, (size + 2 * (kernel // 2) - kernel) // stride + 1
    x, w, g = (batch, cin, size, size), (cout, cin, kernel, kernel), (batch, cout, out, out)
    flops = 2.0 * batch * out * out * cout * cin * kernel * kernel
    items = batch * cin * size * size + cout * cin * kernel * kernel + batch * cout * out * out
    inputs: dict[str, Input] = {
        "forward": {"x": ("normal", x), "w": ("normal", w)},
        "input gradient": {"g": ("normal", g), "w": ("normal", w)},
        "weight gradient": {"g": ("normal", g), "x": ("normal", x)},
    }[what]
    fd = {
        "forward": f"F.conv2d(x, w, None, {stride}, {pad})",
        "input gradient": f"fd.conv2d_backward_input(g, w, {stride}, {pad}, size=SIZE)",
        "weight gradient": f"fd.conv2d_backward_weight(g, x, {stride}, {pad}, size={kernel})[0]",
    }[what]
    torch = {
        "forward": f"F.conv2d(x, w, None, {stride}, {pad})",
        "input gradient": f"torch.nn.grad.conv2d_input((len(g), w.shape[1], SIZE, SIZE), w, g, {stride}, {pad})",
        "weight gradient": f"torch.nn.grad.conv2d_weight(x, (g.shape[1], x.shape[1], {kernel}, {kernel}), g, {stride}, {pad})",
    }[what]
    if what == "input gradient":
        fd, torch = fd.replace("SIZE", "(g.shape[2] - 1) * S + 1"), torch.replace("SIZE", "(g.shape[2] - 1) * S + 1")
        fd, torch = fd.replace("S + 1", f"{stride} + 1"), torch.replace("S + 1", f"{stride} + 1")
    return Case(
        f"conv2d {what} {batch}x{cin}x{size}x{size} -> {cout}, {kernel}x{kernel}" + (f" stride {stride}" if stride > 1 else ""), f"conv {dtype}",
        inputs, fd, torch, None, dtype, flops, ITEM[dtype] * items, memory="channels_last",
    )  # fmt: skip


def rows(
    expression: str, n: int, m: int, dtype: str, passes: float = 2, family: str = "rows", torch: str = "", cupy: str | None = None
) -> Case:
    return Case(
        f"{expression.split('(')[0].split('.')[-1]} {n}x{m}", family, {"x": ("normal", (n, m)), "w": ("normal", (m,)), "c": ("normal", (m,))},
        expression, torch or expression, cupy, dtype, 0.0, passes * ITEM[dtype] * n * m,
    )  # fmt: skip


def elementwise(
    name: str, fd: str, torch: str, cupy: str | None, passes: float, n: int, dtype: str = "float32", family: str = "elementwise"
) -> Case:
    return Case(
        f"{name} {n // 1048576} Mi",
        family,
        {"x": ("normal", (n,)), "y": ("normal", (n,))},
        fd,
        torch,
        cupy,
        dtype,
        0.0,
        passes * ITEM[dtype] * n,
    )


N = 64 << 20
CHAIN = "((x * 2.0 + y) * x - y) * 0.5 + x"
TRAIN = {  # a training step; `lib` is fastdl or torch, `make` puts a module on the device
    "mlp 784-1024-1024-10, batch 128, Adam": (
        "m = make(nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10)))\n",
        {"x": ("normal", (128, 784)), "y": ("index", (128,), 10)},
    ),
    "cnn conv 32-64-128, fc, batch 256, Adam": (
        "m = make(nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),"
        " nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128 * 16, 10)))\n",
        {"x": ("normal", (256, 3, 32, 32)), "y": ("index", (256,), 10)},
    ),
}
STEP = "o = optim.Adam(m.parameters(), lr=1e-3)\nf = nn.CrossEntropyLoss()\ndef step():\n  l = f(m(x), y); l.backward(); o.step(); o.zero_grad()\n"


def training(name: str, captured: bool = False) -> Case:
    """`captured`: fastdl's step as a CUDA graph, beside the same eager step of PyTorch."""
    model, inputs = TRAIN[name]
    # Not shrunk in a dry run: the layers' sizes are in the text. Batch and image are what they are.
    graph = "step = fd.compile(step)\n" if captured else ""
    setup = {
        "fd": "from fastdl import nn, optim\nmake = lambda m: m.to(DEVICE)\n" + model + STEP + graph,
        "torch": "from torch import nn, optim\nmake = lambda m: m.to(DEVICE)\n" + model + STEP,
    }
    return Case(name + ", captured" * captured, "training step", inputs, "step()", "step()", setup=setup, check=False)


CASES: list[Case] = [
    # ---- matrix products
    *(gemm(n, n, n, "bfloat16") for n in (512, 1024, 2048, 4096, 8192)),
    gemm(4096, 64, 4096, "bfloat16"), gemm(4096, 1001, 4096, "bfloat16"), gemm(16, 4096, 4096, "bfloat16", "gemm skinny"),
    linear_gelu(8192, 1024, 4096, "bfloat16"),
    Case("matmul batch 64 of 512x512x64", "gemm bfloat16", {"a": ("normal", (64, 512, 64)), "b": ("normal", (64, 64, 512))}, "a @ b", "a @ b", None,
         "bfloat16", 2.0 * 64 * 512 * 512 * 64, 2.0 * 64 * (2 * 512 * 64 + 512 * 512)),
    Case("matmul 2048x2048x2048 transposed", "gemm bfloat16", {"a": ("normal", (2048, 2048)), "b": ("normal", (2048, 2048))}, "a.T @ b.T", "a.T @ b.T",
         None, "bfloat16", 2.0 * 2048**3, 6.0 * 2048**2),
    gemm(4096, 4096, 4096, "float16"),
    *(gemm(n, n, n, "float32") for n in (512, 1024, 4096)),
    linear_gelu(8192, 1024, 4096, "float32"),
    # ---- convolution
    conv("forward", 32, 56, 64, 64, 3, 1, "bfloat16"), conv("forward", 32, 28, 128, 128, 3, 2, "bfloat16"),
    conv("forward", 32, 14, 256, 256, 3, 1, "bfloat16"), conv("forward", 32, 14, 256, 1024, 1, 1, "bfloat16"),
    conv("forward", 32, 224, 3, 64, 7, 2, "bfloat16"), conv("forward", 32, 56, 64, 64, 3, 1, "float32"),
    conv("input gradient", 32, 56, 64, 64, 3, 1, "bfloat16"), conv("weight gradient", 32, 56, 64, 64, 3, 1, "bfloat16"),
    conv("input gradient", 32, 56, 64, 64, 3, 1, "float32"), conv("weight gradient", 32, 56, 64, 64, 3, 1, "float32"),
    # ---- rows
    *(rows("F.softmax(x, -1)", 8192, m, "float32", torch="F.softmax(x, -1)") for m in (1024, 4096, 32768)),
    rows("F.softmax(x, -1)", 256, 131072, "float32"), rows("F.softmax(x, -1)", 8192, 4096, "bfloat16"),
    *(rows("F.layer_norm(x, (x.shape[1],), w, c)", 8192, m, "float32") for m in (1024, 4096, 32768)),
    rows("F.layer_norm(x, (x.shape[1],), w, c)", 8192, 4096, "bfloat16"),
    Case("cross_entropy 8192x50257, forward and backward", "rows", {"x": ("normal", (8192, 50257)), "y": ("index", (8192,), 50257)}, "run()", "run()",
         bytes=4.0 * 8192 * 50257 * 3, check=False, setup={
             "fd": "p = x.detach().requires_grad_()\ndef run():\n  p.grad = None; F.cross_entropy(p, y).backward()\n",
             "torch": "p = x.detach().requires_grad_()\ndef run():\n  p.grad = None; F.cross_entropy(p, y).backward()\n"}),
    Case("embedding 32 Ki of 50257x768", "gather", {"x": ("index", (32768,), 50257), "w": ("normal", (50257, 768))}, "F.embedding(x, w)", "F.embedding(x, w)",
         "w[x]", bytes=2.0 * 4 * 32768 * 768),
    Case("batch_norm 64x64x56x56, training", "normalisation", {"x": ("normal", (64, 64, 56, 56)), "w": ("normal", (64,)), "c": ("normal", (64,))},
         "F.batch_norm(x, None, None, w, c, True)", "F.batch_norm(x, None, None, w, c, True)", bytes=3.0 * 4 * 64 * 64 * 56 * 56, memory="channels_last"),
    # ---- elementwise and reductions
    elementwise("relu", "fd.relu(x)", "torch.relu(x)", None, 2, N), elementwise("exp", "fd.exp(x)", "torch.exp(x)", "cp.exp(x)", 2, N),
    elementwise("gelu", "fd.gelu(x)", "F.gelu(x)", None, 2, N), elementwise("tanh", "fd.tanh(x)", "torch.tanh(x)", "cp.tanh(x)", 2, N),
    elementwise("add", "x + y", "x + y", "x + y", 3, N), elementwise("add", "x + y", "x + y", None, 3, N, "bfloat16"),
    elementwise("chain of 6", CHAIN, CHAIN, CHAIN, 3, N, family="elementwise chain"),
    Case("add a row and a column 8192x8192", "elementwise", {"x": ("normal", (8192, 1)), "y": ("normal", (1, 8192))}, "x + y", "x + y", "x + y",
         bytes=4.0 * 8192 * 8192),
    Case("transpose 8192x8192", "copy", {"x": ("normal", (8192, 8192))}, "x.T.contiguous()", "x.T.contiguous()", "cp.ascontiguousarray(x.T)",
         bytes=8.0 * 8192 * 8192),
    Case("concat 4 of 4096x4096", "copy", {"x": ("normal", (4096, 4096)), "y": ("normal", (4096, 4096))}, "fd.concat([x, y, x, y], 1)",
         "torch.cat([x, y, x, y], 1)", "cp.concatenate([x, y, x, y], 1)", bytes=2.0 * 4 * 4 * 4096 * 4096),
    elementwise("sum", "x.sum()", "x.sum()", "x.sum()", 1, N, family="reduction"), elementwise("max", "x.max()", "x.max()", "x.max()", 1, N, family="reduction"),
    *(Case(f"{op} of axis {axis} of 8192x8192", "reduction", {"x": ("normal", (8192, 8192))}, f"x.{op}({axis})", f"x.{t}({axis})", f"x.{op}({axis})",
           bytes=4.0 * 8192 * 8192) for op, t, axis in (("sum", "sum", 0), ("sum", "sum", 1), ("mean", "mean", 1), ("argmax", "argmax", 1))),
    Case("cumsum of axis 1 of 8192x8192", "reduction", {"x": ("normal", (8192, 8192))}, "fd.cumsum(x, 1)", "torch.cumsum(x, 1)", "cp.cumsum(x, 1)",
         bytes=8.0 * 8192 * 8192),
    Case("max_pool2d 64x64x112x112, 3x3 stride 2", "pool", {"x": ("normal", (64, 64, 112, 112))}, "F.max_pool2d(x, 3, 2, 1)", "F.max_pool2d(x, 3, 2, 1)",
         bytes=4.0 * 64 * 64 * (112 * 112 + 56 * 56), memory="channels_last"),
    # ---- optimiser, random numbers
    Case("Adam, 100 M parameters", "optimiser", {"x": ("normal", (100_000_000,)), "y": ("normal", (100_000_000,))}, "o.step()", "o.step()",
         bytes=7.0 * 4 * 100e6, check=False, setup={
             "fd": "from fastdl import nn, optim\np = nn.Parameter(x.clone())\np.grad = y\no = optim.Adam([p], lr=1e-3)\n",
             "torch": "p = torch.nn.Parameter(x.clone())\np.grad = y\no = torch.optim.Adam([p], lr=1e-3, fused=DEVICE != 'cpu')\n"}),
    elementwise("random normal", "fd.random.normal(x.shape, device=DEVICE)", "torch.randn(x.shape, device=DEVICE)",
                "cp.random.standard_normal(x.shape, dtype='f')", 1, N, family="random"),
    elementwise("dropout", "F.dropout(x, 0.5, True)", "F.dropout(x, 0.5, True)", None, 2, N, family="random"),
    # ---- small tensors: the host's cost per op
    Case("add 16 floats", "launch", {"x": ("normal", (16,)), "y": ("normal", (16,))}, "x + y", "x + y", "x + y"),
    # ---- whole steps
    *(training(name, captured) for name in TRAIN for captured in (False, True)),
]  # fmt: skip
for case in CASES:
    if case.family == "random":
        case.check = False
