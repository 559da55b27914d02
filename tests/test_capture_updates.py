"""Updates of parameters run right behind their gradients, when nothing stands between: the same bits, less memory."""

import numpy as np
import pytest
from common import bits_of_training

import fastdl as fd
from fastdl import nn, optim

F = nn.functional
OPTIMISERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=1e-2),
    "adamw": lambda p: optim.AdamW(p, lr=1e-2, weight_decay=0.1),
}


def deep(optimiser: str, clip: bool = False, cleared: bool = True):
    fd.manual_seed(3)
    net = nn.Sequential(nn.Linear(64, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 4))
    opt = OPTIMISERS[optimiser](net.parameters())

    def step(x, y):
        if not cleared:
            opt.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        if cleared:
            opt.zero_grad()
        return loss.detach()

    return net, step


def batches(n: int = 6):
    rng = np.random.default_rng(1)
    return [[rng.standard_normal((32, 64)).astype("f"), rng.integers(0, 4, 32)] for _ in range(n)]


def ops(run):
    return [s["op"] for s in run._entries[0].capture.steps()]


@pytest.mark.parametrize("cleared", [True, False])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_updates_follow_their_gradients(optimiser, cleared):
    net, step = deep(optimiser, cleared=cleared)
    want, _ = bits_of_training(step, None, batches(), net)
    found = {}
    for on in (True, False):
        net, step = deep(optimiser, cleared=cleared)
        got, found[on] = bits_of_training(step, {"updates": on}, batches(), net)
        assert got == want
    update = "sgd_step" if optimiser == "sgd" else "adam_step"
    early, late = ops(found[True]), ops(found[False])
    assert sorted(early) == sorted(late) and early.count(update) == 10
    last_gradient = max(k for k, op in enumerate(early) if op == "linear_backward_weight")
    assert sum(op == update for op in early[:last_gradient]) == 8  # all but the first layer's
    assert late.index(update) > max(k for k, op in enumerate(late) if op.startswith("linear_backward"))
    if cleared:  # gradients that nobody sees: never all at once
        assert found[True].stats()["arena_bytes"] < found[False].stats()["arena_bytes"] - 3 * 256 * 256
    else:
        assert all(p.grad is not None for p in net.parameters())


def test_what_needs_all_gradients_stays_before_every_update():
    net, step = deep("adam", clip=True)
    want, _ = bits_of_training(step, None, batches(), net)
    net, step = deep("adam", clip=True)
    got, run = bits_of_training(step, {}, batches(), net)
    assert got == want
    order = ops(run)
    assert order.index("adam_step") > max(k for k, op in enumerate(order) if op == "linear_backward_weight")


@pytest.mark.parametrize("updates", [True, False])
def test_a_refused_index_leaves_the_parameters_alone(updates):
    """Indices that the step computes are checked where they are used: after the gradient, but before the update."""
    layer = nn.Linear(300, 300)
    opt = optim.SGD(layer.parameters(), lr=0.1)
    table = fd.ones((4, 2))

    def step(x, which):
        loss = layer(x).square().mean()
        loss.backward()
        rows = table[which + 0]
        opt.step()
        opt.zero_grad()
        return loss.detach(), rows

    run = fd.compile(step, passes={"updates": updates})
    x = fd.ones((2, 300))
    for _ in range(3):
        run(x, fd.array([0, 3]))
    assert run.stats()["replays"] == 1
    before = layer.weight.detach().numpy().copy()
    with pytest.raises(IndexError, match="9"):
        run(x, fd.array([0, 9]))
    np.testing.assert_array_equal(layer.weight.detach().numpy(), before)
    run(x, fd.array([1, 2]))
    assert (layer.weight.detach().numpy() != before).any()


def test_parameters_that_share_memory():
    """Two parameters over one NumPy array: the first one's update changes what the other one's forward pass has read already."""

    def train(compiled):
        memory = np.linspace(-1, 1, 3 * 40 * 40, dtype=np.float32)
        a = nn.Parameter(fd.from_dlpack(memory[: 2 * 1600].reshape(80, 40)))
        b = nn.Parameter(fd.from_dlpack(memory[1600:].reshape(80, 40)))
        assert np.shares_memory(a.detach().numpy(), memory) and np.shares_memory(b.detach().numpy(), memory)
        opt = optim.SGD([a, b], lr=0.5, momentum=0.9)

        def step(x):
            hidden = fd.tanh(x @ a.T)
            loss = (hidden @ b).square().mean()
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.detach()

        run = fd.compile(step) if compiled else step
        x = fd.array(np.random.default_rng(0).standard_normal((8, 40)).astype("f"))
        return [run(x).item() for _ in range(5)], memory

    want, memory = train(False)
    got, moved = train(True)
    assert got == want
    np.testing.assert_array_equal(moved, memory)


@pytest.mark.parametrize("updates", [True, False])
def test_gradients_that_are_one_tensor(updates):
    """The gradient of b is that of a, put there by hand: what is added for b counts for a's update, or not, as in the eager step."""

    def train(compiled):
        a, b = nn.Parameter(fd.zeros(40)), nn.Parameter(fd.zeros(40))
        first, second = optim.SGD([a], lr=0.1), optim.SGD([b], lr=0.1)

        def step(x):
            (a * x).sum().backward()
            (b * x * 2).sum().backward()
            first.step()
            second.step()

        run = fd.compile(step, passes={"updates": updates}) if compiled else step
        for k in range(6):
            a.grad = b.grad = fd.ones(40)
            run(fd.full((40,), float(k)))
        return a.detach().numpy(), b.detach().numpy()

    for want, got in zip(train(False), train(True), strict=True):
        np.testing.assert_array_equal(want, got)


def test_out_of_memory_in_the_middle_changes_nothing():
    """Scratch for slices of images, which the number of threads decides, is there before the first update."""
    fd.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 13 * 13, 10))
    opt = optim.SGD(net.parameters(), lr=0.1)

    @fd.compile
    def step(x, y):
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        opt.step()
        opt.zero_grad()
        return loss.detach()

    x, y = fd.random.normal((64, 1, 28, 28)), fd.random.integers(0, 10, 64)
    threads = fd.get_num_threads()
    try:
        fd.set_num_threads(1)
        for _ in range(3):
            step(x, y)
        assert any("conv2d" in op for op in ops(step))
        failed = 0
        for threads_now, at in ((3, 1), (5, 2), (7, 3), (9, 4)):  # more threads need more scratch
            fd.set_num_threads(threads_now)
            before = [p.detach().numpy().copy() for p in net.parameters()]
            fd._C.fail_after(at)
            try:
                step(x, y)
            except fd.OutOfMemoryError:
                failed += 1
                for p, value in zip(net.parameters(), before, strict=True):
                    np.testing.assert_array_equal(p.detach().numpy(), value)
            finally:
                fd._C.fail_after(0)
        assert failed  # at the scratch, or at the loss
        step(x, y)
    finally:
        fd.set_num_threads(threads)


# batch, height and width, channels, filters, kernel: 2.4 to 4.2 MB of weights' gradients
WIDE = {
    "few pixels": (5, 4, 256, 256, 3),
    "tiles": (16, 8, 256, 256, 3),
    "tiles, two sums": (8, 16, 128, 128, 7),
    "one tap": (16, 8, 1024, 1024, 1),
    "one tap, two parts of pixels": (33, 8, 512, 2048, 1),
}


def wide(name: str, optimiser: str = "adam", *, bias: bool = True, groups: int = 1, clip: bool = False, dtype: str = "float32", filters: int = 0, order: str = "C"):
    """A convolution whose weights' gradient is large, and a step."""
    n, size, channels, all_filters, kernel = WIDE[name]
    filters = filters or all_filters
    fd.manual_seed(3)
    conv = nn.Conv2d(channels * groups, filters, kernel, padding=kernel // 2, bias=bias, groups=groups)
    if order == "F":  # channels last
        conv.weight = nn.Parameter(conv.weight.detach().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
    net = nn.Sequential(nn.Conv2d(3, channels * groups, 1), nn.ReLU(), conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, 4)).to(dtype)
    opt = OPTIMISERS[optimiser](net.parameters())

    def step(x, y):
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        opt.step()
        opt.zero_grad()
        return loss.detach()

    rng = np.random.default_rng(1)
    return net, step, [[rng.standard_normal((n, 3, size, size)).astype(dtype), rng.integers(0, 4, n)] for _ in range(4)]


def pieces(run):
    return ops(run).count("conv2d_backward_weight") - 1


# every way of summing with and without bias; what the update and the gradient look like beside it, once
CUT = [(name, {"bias": bias}) for name in WIDE for bias in (True, False)]
CUT += [("few pixels", settings) for settings in ({"dtype": "float64"}, {"order": "F"}, {"optimiser": "sgd"}, {"optimiser": "adamw"})]


@pytest.mark.parametrize("name, settings", CUT, ids=str)
def test_large_gradients_of_filters_in_pieces(name, settings):
    net, step, data = wide(name, **settings)
    want, _ = bits_of_training(step, None, data, net)
    found = {}
    before = fd.get_num_threads()
    try:
        for on, threads in ((True, 1), (True, 3), (False, 3)):
            fd.set_num_threads(threads)
            net, step, data = wide(name, **settings)
            got, found[on] = bits_of_training(step, {"updates": on}, data, net)
            assert got == want
    finally:
        fd.set_num_threads(before)
    n, size, channels, filters, kernel = WIDE[name]
    expected = -(-filters // (64 * max(1, 5 * 2**18 // (channels * kernel**2 * (8 if "dtype" in settings else 4)) // 64)))
    assert expected > 1
    assert (pieces(found[True]), pieces(found[False])) == (expected, 1)
    if n * size**2 <= channels * kernel**2:  # else results are larger than the gradient
        assert found[True].stats()["arena_bytes"] < found[False].stats()["arena_bytes"] - 1e6
    if fd._C.isa() == "amx":
        plan = fd._C.conv_plans(n, channels, size, size, filters, kernel, 1, kernel // 2, 1, 1)[2]
        assert (plan == "tiles") == (name != "few pixels")


@pytest.mark.parametrize("factor", [2e38, 1e-32, np.inf])
def test_pieces_of_a_gradient_go_the_way_of_the_whole(factor):
    """Numbers that do not split into parts for tiles, in some filters only, decide for all filters, as they do without pieces."""
    def train(passes):
        fd.manual_seed(3)
        conv = nn.Conv2d(256, 256, 3, padding=1)
        opt = optim.SGD([conv.weight], lr=0.5)
        factors = fd.array(np.where(np.arange(256) < (1 if factor > 1 else 128), factor, 1).astype("f").reshape(256, 1, 1))

        def step(x):
            loss = (conv(x) * factors).sum()
            loss.backward()
            opt.step()
            opt.zero_grad()
            conv.bias.grad = None
            return loss.detach()

        rng = np.random.default_rng(1)
        return bits_of_training(step, passes, [[rng.standard_normal((16, 256, 8, 8)).astype("f")] for _ in range(3)], conv)

    with np.errstate(all="ignore"):
        got, run = train({})
        assert ops(run).count("conv2d_backward_weight") == 2
        assert got == train(None)[0]


@pytest.mark.parametrize("why", [{"groups": 2}, {"clip": True}, {"filters": 250}], ids=str)
def test_gradients_of_filters_that_stay_whole(why):
    net, step, data = wide("few pixels", **why)
    want, _ = bits_of_training(step, None, data, net)
    net, step, data = wide("few pixels", **why)
    got, run = bits_of_training(step, {}, data, net)
    assert got == want
    assert pieces(run) == 1


# shape of x, results, pieces of the gradient by weights of 8.4 to 9.8 MB
LINEAR = {
    "few rows": ((7, 2048), 1100, 9),
    "three axes": ((4, 33, 1600), 1400, 8),
    "turned": ((1030, 9), 2100, 1),
    "turned, long": ((700, 800), 3300, 1),  # x^T takes another way for few filters
    "as long as is worth it": ((256, 2048), 1100, 9),
    "longer": ((257, 2048), 1100, 1),  # x would be packed again for too little
    "small": ((7, 1024), 2000, 1),
    "few columns": ((9, 16), 140000, 7),
}


@pytest.mark.parametrize("settings", [{}, {"bias": False, "optimiser": "adamw"}, {"dtype": "float64", "optimiser": "sgd"}], ids=str)
@pytest.mark.parametrize("name", LINEAR)
def test_large_gradients_of_linear_layers_in_pieces(name, settings):
    shape, out, expected = LINEAR[name]
    dtype = settings.get("dtype", "float32")

    def train(passes):
        fd.manual_seed(3)
        turned = name.startswith("turned")
        layer = nn.Linear(shape[0] if turned else shape[-1], out, bias=settings.get("bias", True)).to(dtype)
        opt = OPTIMISERS[settings.get("optimiser", "adam")](layer.parameters())

        def step(x):
            loss = (layer(x.T if turned else x) ** 2).mean()
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.detach()

        rng = np.random.default_rng(1)
        return bits_of_training(step, passes, [[rng.standard_normal(shape).astype(dtype)] for _ in range(4)], layer)

    want, _ = train(None)
    before = fd.get_num_threads()
    try:
        for threads in (1, 3):
            fd.set_num_threads(threads)
            got, run = train({})
            assert got == want
    finally:
        fd.set_num_threads(before)
    assert train({"updates": False})[0] == want
    if fd._C.isa() == "amx" and name in ("three axes", "as long as is worth it"):
        expected = 1  # on tiles
    if dtype == "float32":
        assert ops(run).count("linear_backward_weight") == expected
    elif name == "few rows":
        assert ops(run).count("linear_backward_weight") > expected


def test_a_gradient_of_results_that_lies_turned():
    """As in a contrastive loss, where products of two sets of features are classified."""
    def train(passes):
        fd.manual_seed(3)
        layer = nn.Linear(2048, 1100)
        opt = OPTIMISERS["adam"](layer.parameters())

        def step(x, c):
            loss = ((c @ layer(x).T) ** 2).mean()
            loss.backward()
            opt.step()
            opt.zero_grad()
            return loss.detach()

        rng = np.random.default_rng(1)
        return bits_of_training(step, passes, [[rng.standard_normal(s).astype("f") for s in ((8, 2048), (8, 1100))] for _ in range(4)], layer)

    assert train({})[0] == train(None)[0]


def test_a_gradient_of_filters_that_somebody_keeps_stays_whole():
    def train(passes):
        net, _, data = wide("few pixels")
        opt = OPTIMISERS["sgd"](net.parameters())

        def step(x, y):
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            g = net[2].weight.grad.detach()
            opt.step()
            net.zero_grad()
            return g

        return bits_of_training(step, passes, data, net)

    got, run = train({})
    assert got == train(None)[0]
    assert ops(run).count("conv2d_backward_weight") == 2
