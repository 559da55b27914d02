"""Layers against PyTorch: outputs, gradients, state; and what modules promise beyond the arithmetic."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest
from torch_bridge import close, compare, copy_weights, needs_torch, numpy, pair, torch

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F

rng = np.random.default_rng(7)


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


LAYERS = [
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Linear", (64, 33), {}, (17, 64)),
    ("Linear", (5, 3), {}, (5,)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (4, 6)),
    ("Unflatten", (1, (2, -1)), {}, (4, 6)),
    ("Identity", (), {}, (3,)),
    ("Conv2d", (3, 8, 3), {}, (2, 3, 9, 10)),
    ("Conv2d", (1, 32, 3), {"padding": 1}, (4, 1, 28, 28)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "bias": False}, (2, 4, 9, 8)),
    ("Conv2d", (4, 6, 3), {"dilation": 2, "groups": 2}, (2, 4, 9, 8)),
    ("Conv2d", (6, 6, 3), {"groups": 6, "padding": "same"}, (2, 6, 7, 8)),
    ("Conv2d", (3, 4, (4, 3)), {"padding": "same", "dilation": (1, 2)}, (2, 3, 9, 10)),
    ("Conv2d", (3, 4, 3), {"padding": "valid"}, (3, 9, 10)),
    ("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "replicate"}, (2, 3, 6, 5)),
    ("Conv2d", (3, 4, (4, 3)), {"padding": "same", "padding_mode": "circular"}, (2, 3, 6, 5)),
    ("Conv1d", (3, 8, 3), {}, (2, 3, 11)),
    ("Conv1d", (4, 6, 4), {"stride": 2, "padding": 3, "groups": 2}, (2, 4, 13)),
    ("Conv1d", (4, 6, 4), {"padding": "same"}, (4, 13)),
    ("MaxPool2d", (2,), {}, (2, 3, 8, 9)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 8, 9)),
    ("MaxPool2d", ((2, 3),), {"stride": (1, 2), "dilation": (2, 1)}, (3, 8, 9)),
    ("AvgPool2d", (2,), {}, (2, 3, 8, 9)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1}, (2, 3, 8, 9)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False, "ceil_mode": True}, (2, 3, 8, 9)),
    ("AdaptiveAvgPool2d", (1,), {}, (2, 3, 7, 5)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 7, 5)),
    ("AdaptiveMaxPool2d", ((2, 3),), {}, (2, 3, 7, 5)),
    ("MaxPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 10)),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 10)),
    ("AdaptiveAvgPool1d", (4,), {}, (2, 3, 10)),
    ("AdaptiveMaxPool1d", (4,), {}, (2, 3, 10)),
    ("BatchNorm1d", (5,), {}, (8, 5)),
    ("BatchNorm1d", (5,), {"affine": False}, (4, 5, 7)),
    ("BatchNorm2d", (3,), {}, (4, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"momentum": None}, (4, 3, 5, 6)),
    ("BatchNorm2d", (3,), {"track_running_stats": False, "eps": 1e-3}, (4, 3, 5, 6)),
    ("LayerNorm", (6,), {}, (4, 5, 6)),
    ("LayerNorm", ((5, 6),), {"eps": 1e-3}, (4, 5, 6)),
    ("LayerNorm", (6,), {"elementwise_affine": False}, (4, 6)),
    ("LayerNorm", (6,), {"bias": False}, (4, 6)),
    ("GroupNorm", (2, 6), {}, (3, 6, 4, 5)),
    ("GroupNorm", (3, 6), {"affine": False}, (3, 6, 7)),
    ("InstanceNorm1d", (3,), {"affine": True}, (2, 3, 9)),
    ("InstanceNorm1d", (3,), {}, (3, 9)),
    ("InstanceNorm2d", (3,), {}, (2, 3, 5, 6)),
    ("InstanceNorm2d", (3,), {}, (3, 5, 6)),
    ("InstanceNorm2d", (3,), {"affine": True}, (2, 3, 5, 6)),
    ("RMSNorm", (6,), {}, (4, 6)),
    ("RMSNorm", ((5, 6),), {"eps": 1e-4}, (4, 5, 6)),
    ("ReLU", (), {}, (4, 7)),
    ("ReLU6", (), {}, (4, 7)),
    ("Sigmoid", (), {}, (4, 7)),
    ("Tanh", (), {}, (4, 7)),
    ("LogSigmoid", (), {}, (4, 7)),
    ("SiLU", (), {}, (4, 7)),
    ("Mish", (), {}, (4, 7)),
    ("SELU", (), {}, (4, 7)),
    ("Softsign", (), {}, (4, 7)),
    ("Hardsigmoid", (), {}, (4, 7)),
    ("Hardswish", (), {}, (4, 7)),
    ("Tanhshrink", (), {}, (4, 7)),
    ("GELU", (), {}, (4, 7)),
    ("GELU", ("tanh",), {}, (4, 7)),
    ("LeakyReLU", (0.2,), {}, (4, 7)),
    ("ELU", (0.7,), {}, (4, 7)),
    ("CELU", (0.5,), {}, (4, 7)),
    ("Softplus", (2.0, 3.0), {}, (4, 7)),
    ("Hardtanh", (-0.5, 1.5), {}, (4, 7)),
    ("Softshrink", (0.4,), {}, (4, 7)),
    ("Hardshrink", (0.4,), {}, (4, 7)),
    ("Threshold", (0.1, 20.0), {}, (4, 7)),
    ("PReLU", (), {}, (4, 7)),
    ("PReLU", (7,), {}, (4, 7, 3)),
    ("GLU", (), {}, (4, 6)),
    ("GLU", (1,), {}, (4, 6, 3)),
    ("Softmax", (1,), {}, (4, 7, 3)),
    ("LogSoftmax", (-1,), {}, (4, 7)),
    ("Softmin", (0,), {}, (4, 7)),
]


def _named(row: tuple) -> str:
    name, args, kwargs, shape = row
    return f"{name}({', '.join([*map(str, args), *(f'{k}={v}' for k, v in kwargs.items())])})-{'x'.join(map(str, shape))}"


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", LAYERS, ids=_named)
def test_layer(row: tuple, dtype: str) -> None:
    name, args, kwargs, shape = row
    ours, theirs = getattr(nn, name)(*args, **kwargs), getattr(torch.nn, name)(*args, **kwargs)
    if dtype == "float64":
        if name == "Hardsigmoid":
            pytest.skip("PyTorch's own gradient has a float32 constant in it")
        ours, theirs = ours.to(fd.float64), theirs.to(torch.float64)
    copy_weights(ours, theirs)
    parameters = list(theirs.parameters())
    work = np.prod(parameters[0].shape[1:]) if parameters and parameters[0].ndim > 1 else np.prod(shape)
    for training in (True, True, False):  # twice: running statistics move
        ours.train(training), theirs.train(training)
        ours.zero_grad(), theirs.zero_grad()
        compare(ours, theirs, [normal(*shape, dtype=dtype)], work=float(work))
    for (key, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        close(a, b, f"state {key}", work=float(work))


@needs_torch
def test_bilinear() -> None:
    ours, theirs = nn.Bilinear(3, 4, 5), torch.nn.Bilinear(3, 4, 5)
    copy_weights(ours, theirs)
    compare(ours, theirs, [normal(6, 3), normal(6, 4)], work=12)


@needs_torch
@pytest.mark.parametrize("padding_idx", [None, 2, -1])
def test_embedding(padding_idx: int | None) -> None:
    ours, theirs = nn.Embedding(7, 3, padding_idx=padding_idx), torch.nn.Embedding(7, 3, padding_idx=padding_idx)
    if padding_idx is not None:
        assert not numpy(ours.weight)[padding_idx].any()
    copy_weights(ours, theirs)
    compare(ours, theirs, [np.array([[0, 2, 2], [6, 6, 1]])], work=4)


def test_embedding_out_of_range() -> None:
    with pytest.raises(IndexError):
        nn.Embedding(7, 3)(fd.array([7])).tolist()  # on a device, indices are checked by the kernel


@needs_torch
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "settings,shape",
    [
        ({}, (5, 3, 4)),
        ({"num_layers": 2, "bidirectional": True, "batch_first": True}, (3, 5, 4)),
        ({"bias": False, "bidirectional": True}, (5, 4)),
        ({"num_layers": 3, "nonlinearity": "relu"}, (1, 2, 4)),
    ],
)
def test_recurrent(name: str, settings: dict, shape: tuple[int, ...]) -> None:
    settings = {k: v for k, v in settings.items() if k != "nonlinearity" or name == "RNN"}
    ours, theirs = getattr(nn, name)(4, 6, **settings), getattr(torch.nn, name)(4, 6, **settings)
    copy_weights(ours, theirs)
    compare(lambda x: ours(x)[0], lambda x: theirs(x)[0], [normal(*shape)], work=100, modules=False)
    for (key, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(p.grad, q.grad, key, work=1000)
    states = [
        normal(settings.get("num_layers", 1) * (1 + settings.get("bidirectional", 0)), 3, 6)[:, : 3 if len(shape) == 3 else 1]
    ] * 2
    states = [s[:, 0] if len(shape) == 2 else s[:, : shape[0 if settings.get("batch_first") else 1]] for s in states]
    x = normal(*shape)
    a = ours(fd.array(x), tuple(map(fd.array, states)) if name == "LSTM" else fd.array(states[0]))
    b = theirs(torch.tensor(x), tuple(map(torch.tensor, states)) if name == "LSTM" else torch.tensor(states[0]))
    close(a[0], b[0], "output", work=100)
    for h, k in zip(a[1] if name == "LSTM" else [a[1]], b[1] if name == "LSTM" else [b[1]], strict=True):
        close(h, k, "last state", work=100)
    with pytest.raises(fd.ShapeError):
        ours(fd.ones((5, 3, 7)))


@needs_torch
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("masks", ["none", "causal", "bool", "float", "padding"])
def test_attention(masks: str, batch_first: bool) -> None:
    ours, theirs = (n.MultiheadAttention(8, 2, batch_first=batch_first) for n in (nn, torch.nn))
    copy_weights(ours, theirs)
    n, length, source = 3, 4, 4 if masks == "causal" else 5
    settings: dict = {}
    if masks in ("bool", "causal"):
        settings["attn_mask"] = np.triu(np.ones((length, source), bool), 1)
    elif masks == "float":
        settings["attn_mask"] = normal(n * 2, length, source)
    elif masks == "padding":
        settings["key_padding_mask"] = np.arange(source)[None] > np.array([[4], [1], [2]])
    mine = {"is_causal": True} if masks == "causal" else {k: fd.array(v) for k, v in settings.items()}
    its = {k: torch.tensor(v) for k, v in settings.items()}
    inputs = [normal(*((n, s, 8) if batch_first else (s, n, 8))) for s in (length, source, source)]
    for part in (operator.itemgetter(0), operator.itemgetter(1)):  # output, weights

        def attend(module, settings, part=part):
            return lambda *x: part(module(*x, **settings))

        compare(attend(ours, mine), attend(theirs, its), inputs, work=100, modules=False)
    for (key, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        close(p.grad, q.grad, key, work=1000)


@needs_torch
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("settings", [{}, {"norm_first": True, "activation": "gelu", "batch_first": True, "bias": False}])
def test_transformer_encoder(settings: dict) -> None:
    def build(n):
        return n.TransformerEncoder(n.TransformerEncoderLayer(8, 2, 16, dropout=0.0, **settings), 2, n.LayerNorm(8))

    ours, theirs = build(nn), build(torch.nn)
    copy_weights(ours, theirs)
    compare(ours, theirs, [normal(3, 4, 8)], work=100)


@pytest.mark.parametrize("name", ["Dropout", "Dropout2d"])
def test_dropout(name: str) -> None:
    fd.manual_seed(0)
    layer = getattr(nn, name)(0.3)
    x = fd.ones((200, 50, 2), requires_grad=True) if name == "Dropout2d" else fd.ones((200, 100), requires_grad=True)
    y = layer(x)
    values = numpy(y)
    assert set(np.unique(values).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}
    assert abs((values == 0).mean() - 0.3) < 0.03
    y.sum().backward()
    np.testing.assert_array_equal(numpy(x.grad), values)  # the same elements
    assert not np.array_equal(numpy(layer(x)), values)  # new numbers each time
    if name == "Dropout2d":
        assert (values[..., 0] == values[..., 1]).all()
    np.testing.assert_array_equal(numpy(layer.eval()(x)), numpy(x))
    fd.manual_seed(0)
    np.testing.assert_array_equal(numpy(layer.train()(x)), values)


@needs_torch
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pad(mode: str) -> None:
    x = normal(2, 3, 5, 6)
    ours, theirs = pair(x)
    y = F.pad(ours, (2, 1, 0, 3), mode=mode)
    z = torch.nn.functional.pad(theirs, (2, 1, 0, 3), mode=mode)
    close(y, z, "output")
    (y * y).sum().backward()
    (z * z).sum().backward()
    close(ours.grad, theirs.grad, "gradient", 4)


@needs_torch
def test_normalize_and_similarities() -> None:
    a, b = normal(4, 6), normal(4, 6)
    T = torch.nn.functional
    compare(lambda x: F.normalize(x), lambda x: T.normalize(x), [a], work=6, modules=False)
    compare(lambda x: F.normalize(x, p=3.0, dim=0), lambda x: T.normalize(x, p=3.0, dim=0), [a], work=6, modules=False)
    compare(F.cosine_similarity, T.cosine_similarity, [a, b], work=6, modules=False)
    compare(F.pairwise_distance, T.pairwise_distance, [a, b], work=6, modules=False)


# ---- modules ---------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
        self.scale = nn.Parameter(fd.ones((1,)))
        self.register_buffer("count", fd.zeros((), dtype=fd.int64))
        self.register_buffer("scratch", fd.zeros((2,)), persistent=False)

    def forward(self, x: fd.Tensor) -> fd.Tensor:
        for layer in self.layers:
            x = fd.relu(layer(x))
        return x * self.scale


def test_registries() -> None:
    net = Net()
    names = ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]
    assert [name for name, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == ["scale", "count", *names[1:]]
    assert [name for name, _ in net.named_modules()] == ["", "layers", "layers.0", "layers.1"]
    assert [name for name, _ in net.named_buffers()] == ["count", "scratch"]
    assert net.get_submodule("layers.1") is net.layers[1]
    assert net.get_parameter("layers.1.bias") is net.layers[1].bias
    with pytest.raises(AttributeError):
        net.get_submodule("layers.2")
    del net.scale
    assert not hasattr(net, "scale") and "scale" not in net.state_dict()


def test_attributes_keep_their_kind() -> None:
    net = Net()
    with pytest.raises(TypeError, match="scale"):
        net.scale = 3.0
    net.scale = None
    assert "scale" not in net.state_dict()
    with pytest.raises(TypeError, match="count"):
        net.count = 3
    net.count = fd.ones((), dtype=fd.int64)
    assert net.state_dict()["count"].item() == 1
    with pytest.raises(AttributeError, match="__init__"):

        class Bad(nn.Module):
            def __init__(self) -> None:
                self.a = nn.Linear(1, 1)

        Bad()


def test_shared_parameters_count_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert len(net.state_dict()) == 4


def test_state_dict_round_trip_and_errors() -> None:
    a, b = Net(), Net()
    b.load_state_dict(a.state_dict())
    x = fd.asarray(normal(5, 3))
    np.testing.assert_array_equal(numpy(a(x)), numpy(b(x)))
    state = {name: numpy(value).copy() for name, value in a.state_dict().items()}
    before = {name: numpy(value).copy() for name, value in b.state_dict().items()}
    wrong = {**state, "extra": np.zeros(1), "layers.0.weight": np.zeros((4, 5))}
    del wrong["scale"]
    with pytest.raises(nn.StateDictError) as caught:
        b.load_state_dict(wrong)
    text = str(caught.value)
    assert "missing: scale" in text and "unexpected: extra" in text and "layers.0.weight: got (4, 5), need (4, 3)" in text
    for name, value in b.state_dict().items():
        np.testing.assert_array_equal(numpy(value), before[name])
    result = b.load_state_dict({"extra": np.zeros(1)}, strict=False)
    assert result.unexpected_keys == ["extra"] and "scale" in result.missing_keys


def test_state_dict_shares_memory() -> None:
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    with fd.no_grad():
        layer.weight.zero_()
    assert not numpy(state["weight"]).any() and not state["weight"].requires_grad


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_are_independent(clone) -> None:
    net = Net()
    other = clone(net)
    x = fd.asarray(normal(5, 3))
    np.testing.assert_array_equal(numpy(net(x)), numpy(other(x)))
    with fd.no_grad():
        other.layers[0].weight.zero_()
    assert numpy(net.layers[0].weight).any()
    assert other.layers[0].weight.requires_grad and isinstance(other.layers[0].weight, nn.Parameter)
    assert other.state_dict().keys() == net.state_dict().keys()


def test_train_eval_apply_zero_grad() -> None:
    net = Net()
    assert net.training and not net.eval().layers[1].training and net.train().layers[1].training
    seen = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Linear", "ModuleList", "Net"]
    net(fd.ones((2, 3))).sum().backward()
    assert net.layers[0].weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert not numpy(net.layers[0].weight.grad).any()
    net.zero_grad()
    assert net.layers[0].weight.grad is None
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_to_dtype() -> None:
    net = Net().double()
    assert {str(p.dtype) for p in net.parameters()} == {"float64"}
    assert str(net.count.dtype) == "int64"
    assert net(fd.ones((2, 3), dtype=fd.float64)).dtype == fd.float64
    assert all(p.requires_grad for p in net.parameters())


def test_hooks() -> None:
    layer = nn.Linear(3, 2)
    x = fd.ones((4, 3))
    plain = numpy(layer(x))
    seen: list[str] = []
    before = layer.register_forward_pre_hook(lambda module, args: (seen.append("before"), (args[0] * 2,))[1])
    after = layer.register_forward_hook(lambda module, args, output: (seen.append("after"), output * 0)[1])
    assert not numpy(layer(x)).any() and seen == ["before", "after"]
    before.remove()
    after.remove()
    np.testing.assert_array_equal(numpy(layer(x)), plain)
    assert layer._hooks is None


def test_errors_name_the_layer() -> None:
    net = nn.Sequential(nn.Linear(3, 4), Net())
    with pytest.raises(fd.ShapeError, match=r"^1\.layers\.0 \(Linear\): linear: "):
        net(fd.ones((2, 3)))
    with pytest.raises(fd.ShapeError, match=r"^0 \(Linear\): linear: "):
        net(fd.ones((2, 5)))
    with pytest.raises(fd.ShapeError, match=r"^Linear: linear: "):
        nn.Linear(2, 2)(fd.ones((2, 5)))
    with pytest.raises(TypeError, match=r"0 \(Linear\)"):
        nn.Sequential(nn.Linear(2, 2))("text")


@needs_torch
def test_repr_is_like_torch() -> None:
    def build(n):
        return n.Sequential(
            n.Conv2d(1, 2, 3, padding=1, bias=False), n.BatchNorm2d(2), n.LeakyReLU(), n.Sequential(n.Flatten(), n.Linear(3, 4))
        )

    ours, theirs = repr(build(nn)).splitlines(), repr(build(torch.nn)).splitlines()
    assert len(ours) == len(theirs)
    assert ours[1] == theirs[1] and ours[4:] == theirs[4:]


def test_containers() -> None:
    s = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    s.append(nn.Linear(3, 1)).insert(1, nn.Identity())
    assert [type(m).__name__ for m in s] == ["Linear", "Identity", "ReLU", "Linear"] and len(s) == 4
    assert list(s.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert isinstance(s[1:], nn.Sequential) and len(s[1:]) == 3 and s[-1] is s[3]
    del s[1]
    assert len(s) == 3 and s(fd.ones((4, 2))).shape == (4, 1)
    with pytest.raises(IndexError):
        s[5]
    with pytest.raises(TypeError):
        nn.Sequential(lambda x: x)
    named = nn.Sequential({"a": nn.Linear(2, 2), "b": nn.ReLU()})
    assert list(named.state_dict()) == ["a.weight", "a.bias"] and named.a is named[0]
    d = nn.ModuleDict({"x": nn.Linear(1, 1)})
    d["y"] = nn.ReLU()
    assert list(d) == ["x", "y"] and "y" in d and d.pop("y") is not None and len(d) == 1


@pytest.mark.parametrize("activation", ["ReLU", "Sigmoid", "Tanh", "GELU"])
@pytest.mark.parametrize(
    "layer,shape",
    [
        (lambda: nn.Linear(2, 4), (4, 2)),
        (lambda: nn.Linear(70, 33, bias=False), (5, 70)),
        (lambda: nn.Linear(5, 3), (5,)),
        (lambda: nn.Conv2d(3, 8, 3, padding=1), (2, 3, 9, 10)),
        (lambda: nn.Conv2d(3, 8, 3, padding="same"), (2, 3, 9, 10)),
        (lambda: nn.Conv2d(3, 8, 3), (3, 9, 10)),
        (lambda: nn.Conv2d(3, 3, 3, padding_mode="reflect", padding=1, groups=3), (2, 3, 9, 10)),
    ],
)
def test_sequential_fuses_without_a_difference(layer, shape: tuple[int, ...], activation: str) -> None:
    fd.manual_seed(1)
    net = nn.Sequential(layer(), getattr(nn, activation)(), nn.Identity())
    results = []
    for fused in (True, False):
        if not fused:
            net[1].register_forward_hook(lambda module, args, output: None)  # a hook sees every layer: nothing is fused
        x = fd.array(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)
        net.zero_grad()
        y = net(x)
        (y * y).sum().backward()
        results.append([y, x.grad, *[p.grad for p in net.parameters()]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-5, atol=1e-6 * np.abs(numpy(b)).max())


def test_init_statistics() -> None:
    fd.manual_seed(3)
    w = fd.empty((400, 300))
    expected = {
        "uniform_": (0.5, 1 / np.sqrt(12)),
        "normal_": (0.0, 1.0),
        "xavier_uniform_": (0.0, np.sqrt(2 / 700)),
        "xavier_normal_": (0.0, np.sqrt(2 / 700)),
        "kaiming_uniform_": (0.0, np.sqrt(2 / 300)),
        "kaiming_normal_": (0.0, np.sqrt(2 / 300)),
        "trunc_normal_": (0.0, 0.8796),
    }
    for name, (mean, std) in expected.items():
        values = numpy(getattr(nn.init, name)(w)).astype(np.float64)
        assert abs(values.mean() - mean) < 5 * std / np.sqrt(values.size), name
        assert abs(values.std() / std - 1) < 0.01, name
        again = numpy(getattr(nn.init, name)(w, rng=5)).copy()
        np.testing.assert_array_equal(numpy(getattr(nn.init, name)(w, rng=5)), again)
    assert np.abs(numpy(nn.init.trunc_normal_(w))).max() <= 2


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 2, 3)])
def test_init_orthogonal(shape: tuple[int, ...]) -> None:
    q = numpy(nn.init.orthogonal_(fd.empty(shape), gain=2.0)).reshape(shape[0], -1) / 2
    small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-6)


@needs_torch
def test_init_exact() -> None:
    for name, shape in (("eye_", (3, 5)), ("dirac_", (4, 3, 3, 3)), ("ones_", (2, 3)), ("zeros_", (2, 3))):
        ours = numpy(getattr(nn.init, name)(fd.empty(shape)))
        np.testing.assert_array_equal(ours, getattr(torch.nn.init, name)(torch.empty(shape)).numpy())
    sparse = numpy(nn.init.sparse_(fd.empty((10, 6)), 0.3))
    assert ((sparse == 0).sum(axis=0) == 3).all()
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == torch.nn.init.calculate_gain(name)


def test_wrong_arguments() -> None:
    for build in (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        lambda: nn.Conv2d(3, 4, 0),
        lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2),
        lambda: nn.Conv2d(3, 4, 3, padding="full"),
        lambda: nn.Conv2d(3, 4, (3, 3, 3)),
        lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"),
        lambda: nn.Dropout(1.5),
        lambda: nn.Embedding(3, 2, padding_idx=3),
        lambda: nn.GroupNorm(4, 6),
        lambda: nn.GELU("exact"),
        lambda: nn.Hardtanh(2.0, 1.0),
        lambda: nn.MSELoss("average"),
    ):
        with pytest.raises(ValueError):
            build()
    for layer, shape in (
        (nn.BatchNorm2d(3), (2, 4, 5, 5)),
        (nn.BatchNorm2d(3), (3, 5, 5)),
        (nn.LayerNorm(4), (2, 5)),
        (nn.GroupNorm(2, 4), (2, 5, 3)),
        (nn.RMSNorm(4), (2, 5)),
        (nn.Conv2d(3, 4, 5), (1, 3, 4, 4)),
        (nn.GLU(), (2, 5)),
        (nn.Flatten(), (3,)),
        (nn.Unflatten(1, (2, 2)), (2, 5)),
        (nn.MaxPool2d(5), (1, 1, 3, 3)),
    ):
        with pytest.raises(ValueError):
            layer(fd.ones(shape))
