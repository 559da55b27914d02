"""Penalties, dropout variants, mixing, early stopping, averages of weights, transfer and distillation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from torch_bridge import compare, copy_weights, needs_torch, numpy, pair, torch

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F
from fastdl.optim import swa_utils


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def two(module) -> nn.Module:
    """A body and a head, in fastdl or PyTorch."""
    body = module.Sequential(module.Linear(4, 8), module.BatchNorm1d(8), module.ReLU())
    net = module.Sequential()
    net.add_module("body", body)
    net.add_module("head", module.Linear(8, 3))
    return net


# ---- penalties -----------------------------------------------------------------------------------------------------------------


def test_penalties() -> None:
    net = two(nn)
    (nn.utils.l1_penalty(net) * 0.1 + nn.utils.l2_penalty(net) * 0.2).backward()
    for p in net.parameters():
        w = p.detach().numpy()
        np.testing.assert_allclose(p.grad.numpy(), 0.1 * np.sign(w) + 0.2 * w, rtol=1e-6)
    flat = np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    np.testing.assert_allclose(nn.utils.l1_penalty(net).item(), np.abs(flat).sum(), rtol=1e-6)
    with pytest.raises(fd.FastdlError, match="no parameters"):
        nn.utils.l2_penalty([])


def test_l2_penalty_is_weight_decay() -> None:
    a, b = (nn.Parameter(fd.array(normal(5))) for _ in range(2))
    decayed, plain = optim.SGD([a], lr=0.1, weight_decay=0.3), optim.SGD([b], lr=0.1)
    for _ in range(5):
        decayed.zero_grad()
        plain.zero_grad()
        (a * a * a).sum().backward()
        ((b * b * b).sum() + 0.3 * nn.utils.l2_penalty(b)).backward()
        decayed.step()
        plain.step()
    np.testing.assert_allclose(numpy(a), numpy(b), rtol=1e-5)


def test_l1_makes_weights_sparse() -> None:
    x = normal(200, 20)
    y = x[:, :2] @ np.array([2.0, -3.0], np.float32)
    small = []
    for strength in (0.0, 0.1):
        w = nn.Parameter(fd.zeros(20))
        optimizer = optim.SGD([w], lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            (F.mse_loss(fd.asarray(x) @ w, fd.asarray(y + normal(200, seed=1))) + strength * nn.utils.l1_penalty(w)).backward()
            optimizer.step()
        small.append((np.abs(numpy(w)) < 0.02).sum())
    assert small[1] > small[0] + 5


# ---- dropout variants -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "lead"),
    [("Dropout1d", (40, 30, 5), 2), ("Dropout1d", (900, 5), 1), ("Dropout2d", (40, 30, 2, 3), 2), ("Dropout3d", (40, 30, 2, 1, 3), 2),
     ("Dropout3d", (900, 2, 1, 3), 1), ("FeatureAlphaDropout", (40, 30, 2, 3), 2), ("AlphaDropout", (40, 30), 2)],
)  # fmt: skip
def test_dropout_of_channels(name: str, shape: tuple[int, ...], lead: int) -> None:
    layer = getattr(nn, name)(0.3, rng=fd.Generator(3))
    x = fd.ones(shape, requires_grad=True)
    values = numpy(layer(x))
    flat = values.reshape(*shape[:lead], -1)
    assert (flat == flat[..., :1]).all()  # a channel lives or dies as a whole
    low, high = np.unique(values)
    assert abs((flat[..., 0] == low).mean() - 0.3) < 0.05
    if "Alpha" not in name:
        assert (low, round(float(high), 5)) == (0, round(1 / 0.7, 5))
    assert layer.eval()(x) is x
    layer.train()(x).sum().backward()
    assert set(np.unique(numpy(x.grad)).round(5)) <= {0.0, np.float32(high - low).round(5) if "Alpha" not in name else numpy(x.grad).max().round(5)}


@needs_torch
@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout", "Dropout1d", "Dropout3d"])
@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_dropout_values_are_pytorchs(name: str, p: float) -> None:
    """Which elements die is chance; the two values that an element of 1.5 can get are not."""
    x = np.full((50, 20, 3) if name != "Dropout3d" else (50, 20, 1, 1, 3), 1.5, np.float32)
    ours, theirs = getattr(nn, name)(p), getattr(torch.nn, name)(p)
    np.testing.assert_allclose(np.unique(numpy(ours(fd.array(x)))), np.unique(numpy(theirs(torch.tensor(x)))), rtol=1e-6)


def test_dropout_errors() -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        nn.AlphaDropout(1.5)
    for name, shape in (("dropout1d", (3,)), ("dropout3d", (2, 3, 4)), ("feature_alpha_dropout", (3,))):
        with pytest.raises(fd.ShapeError, match=name):
            getattr(F, name)(fd.ones(shape), 0.5, True)


# ---- mixup and cutout ------------------------------------------------------------------------------------------------------------


def test_mixup() -> None:
    x, y = normal(64, 3, 4, 4), np.arange(64) % 5
    mixed, labels = data.Mixup(5, alpha=1.0, rng=0)((x, y))
    again, _ = data.Mixup(5, alpha=1.0, rng=0)((x, y))
    np.testing.assert_array_equal(mixed, again)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    for row, share in zip(mixed.reshape(64, -1), labels, strict=True):  # each is own * w + other * (1 - w)
        assert (share > 0).sum() <= 2
        assert np.linalg.matrix_rank(np.vstack([x.reshape(64, -1), row])) <= 48
    np.testing.assert_allclose(mixed.mean(), x.mean(), atol=0.05)
    for bad in (x, (x, normal(64)), (x, y + 1)):
        with pytest.raises(ValueError, match="Mixup"):
            data.Mixup(5)(bad)


def test_mixup_in_a_loader_is_reproducible() -> None:
    def batches(workers: int) -> list:
        loader = data.DataLoader((normal(50, 4), np.arange(50) % 3), 16, shuffle=True, collate_fn=data.Mixup(3), num_workers=workers, rng=7)
        return [(numpy(x), numpy(y)) for x, y in loader]

    for (x, y), (u, v) in zip(batches(0), batches(2), strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)
    assert F.cross_entropy(fd.zeros((16, 3)), fd.asarray(batches(0)[0][1])).item() == pytest.approx(np.log(3), rel=1e-6)


@pytest.mark.parametrize("shape", [(30, 9, 9), (30, 2, 8, 11)])
def test_cutout(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    y = data.Cutout(4, fill=-1.0, rng=0)(x)
    holes = (y == -1).reshape(30, -1, *shape[-2:])
    assert (holes == holes[:, :1]).all()  # the same place in every channel
    for hole in holes[:, 0]:
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        assert 1 <= len(rows) <= 4
        assert hole.sum() == len(rows) * len(columns) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert (x == 1).all()
    assert len({h.tobytes() for h in holes[:, 0]}) > 5
    with pytest.raises(ValueError, match="Cutout"):
        data.Cutout(0)


# ---- early stopping ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "settings", "stop", "best"),
    [
        ([3, 2, 1, 1, 1], {"patience": 2}, 4, 2),
        ([1, 2, 3, 3, 2], {"patience": 2, "mode": "max"}, 4, 2),
        ([3, 2.95, 2.92, 2.95], {"patience": 2, "min_delta": 0.1}, 2, 0),
        ([float("nan"), float("nan")], {"patience": 2}, 1, -1),
        ([5, 4, 3], {"patience": 1}, None, 2),
    ],
)
def test_early_stopping(values: list, settings: dict, stop: int | None, best: int) -> None:
    stopper, model = optim.EarlyStopping(**settings), nn.Linear(1, 1)
    stops = []
    for k, value in enumerate(values):
        nn.init.constant_(model.weight, k)
        stops.append(stopper.step(value, model))
    assert (stops.index(True) if True in stops else None) == stop
    assert stopper.best_step == best
    if best >= 0:
        stopper.restore(model)
        assert model.weight.item() == best
    else:
        with pytest.raises(fd.FastdlError, match="no weights"):
            stopper.restore(model)


# ---- averages of weights -------------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("ema", [False, True])
def test_averaged_model(ema: bool, use_buffers: bool) -> None:
    ours, theirs = two(nn), two(torch.nn)
    copy_weights(ours, theirs)
    functions = (swa_utils.get_ema_avg_fn(0.7), torch.optim.swa_utils.get_ema_avg_fn(0.7)) if ema else (None, None)
    a = swa_utils.AveragedModel(ours, avg_fn=functions[0], use_buffers=use_buffers)
    b = torch.optim.swa_utils.AveragedModel(theirs, avg_fn=functions[1], use_buffers=use_buffers)
    for step in range(4):
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            new = normal(*p.shape, seed=step)
            p.detach().copy_(fd.array(new))
            q.data.copy_(torch.tensor(new))
        x = normal(6, 4, seed=step)
        ours(fd.array(x)), theirs(torch.tensor(x))  # moves the running statistics
        a.update_parameters(ours)
        b.update_parameters(theirs)
    assert set(a.state_dict()) == set(b.state_dict())
    for name, value in b.state_dict().items():
        if name.endswith("num_batches_tracked") and use_buffers:
            continue  # PyTorch averages this counter, too
        np.testing.assert_allclose(numpy(a.state_dict()[name]), numpy(value), rtol=1e-5, atol=1e-6, err_msg=name)


@needs_torch
def test_update_bn() -> None:
    ours, theirs = two(nn), two(torch.nn)
    copy_weights(ours, theirs)
    batches = [normal(7, 4, seed=k) for k in range(3)]
    swa_utils.update_bn([(fd.array(x), None) for x in batches], ours)
    torch.optim.swa_utils.update_bn([torch.tensor(x) for x in batches], theirs)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(numpy(ours.state_dict()[name]), numpy(value), rtol=1e-5, atol=1e-6, err_msg=name)
    assert ours.body[1].momentum == 0.1


# ---- transfer ------------------------------------------------------------------------------------------------------------------


def test_freeze_and_unfreeze() -> None:
    net = two(nn)
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    assert nn.utils.freeze(net, "body") == ["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]
    optimizer = optim.Adam(net.parameters(), lr=0.1, weight_decay=0.1)
    F.cross_entropy(net(fd.array(normal(5, 4))), fd.array([0, 1, 2, 0, 1])).backward()
    optimizer.step()
    moved = {name for name, p in net.named_parameters() if not np.array_equal(p.detach().numpy(), before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert nn.utils.unfreeze(net, "*.bias") == ["body.0.bias", "body.1.bias", "head.bias"]
    assert len(nn.utils.unfreeze(net)) == 6
    assert all(p.requires_grad for p in net.parameters())
    with pytest.raises(fd.FastdlError, match=r"freeze: no parameter of Sequential matches 'tail'"):
        nn.utils.freeze(net, "body", "tail")


def test_parameter_groups() -> None:
    net = two(nn)
    nn.utils.freeze(net, "body.1")
    groups = nn.utils.parameter_groups(net, {"head": {"lr": 1.0}, "*.weight": {"lr": 0.5}})
    assert [(g.get("lr"), [tuple(p.shape) for p in g["params"]]) for g in groups] == [(1.0, [(3, 8), (3,)]), (0.5, [(8, 4)]), (None, [(8,)])]
    with pytest.raises(fd.FastdlError, match="tail"):
        nn.utils.parameter_groups(net, {"tail": {}})


def test_load_matching() -> None:
    source = {name: value.numpy() for name, value in two(nn).state_dict().items()}
    target = two(nn)
    target.head = nn.Linear(8, 5)
    kept = target.head.weight.detach().numpy().copy()
    report = nn.utils.load_matching(target, {**source, "extra": np.zeros(1)})
    assert report.loaded == [name for name in source if name.startswith("body")]
    assert report.missing_keys == ["head.weight", "head.bias"]
    assert report.unexpected_keys == ["extra"]
    assert report.mismatched == {"head.weight": ((3, 8), (5, 8)), "head.bias": ((3,), (5,))}
    np.testing.assert_array_equal(target.body[0].weight.detach().numpy(), source["body.0.weight"])
    np.testing.assert_array_equal(target.head.weight.detach().numpy(), kept)
    renamed = {"encoder." + name.removeprefix("body."): value for name, value in source.items() if name.startswith("body")}
    report = nn.utils.load_matching(two(nn), {**renamed, "decoder.0": np.zeros(1)}, prefix="encoder.", into="body.", exclude=["*.bias"])
    assert not report.unexpected_keys
    assert "body.0.weight" in report.loaded
    assert "body.0.bias" in report.missing_keys


def test_load_state_dict_not_strict_reports_like_pytorch() -> None:
    result = two(nn).load_state_dict({"head.weight": normal(3, 8), "tail.weight": normal(1)}, strict=False)
    assert result.unexpected_keys == ["tail.weight"]
    assert "head.weight" not in result.missing_keys
    assert "head.bias" in result.missing_keys


def test_feature_extractor() -> None:
    net = two(nn).eval()
    x = fd.array(normal(5, 4))
    features = nn.utils.FeatureExtractor(net, ["body.0", "body", "head"])
    out = features(x)
    np.testing.assert_array_equal(numpy(out["body"]), numpy(net.body(x)))
    np.testing.assert_array_equal(numpy(out["body.0"]), numpy(net.body[0](x)))
    np.testing.assert_array_equal(numpy(out["head"]), numpy(net(x)))
    out["body"].sum().backward()
    assert net.body[0].weight.grad is not None  # features can be trained through
    assert all(module._hooks is None for module in net.modules())
    with pytest.raises(AttributeError, match="tail"):
        nn.utils.FeatureExtractor(net, ["tail"])


def test_shared_weights() -> None:
    """A parameter in two places is one parameter: one gradient, one update, both names in the state dict."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(6, 4), nn.Linear(4, 6, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x):
            return self.out(self.embed(x))

    net = Tied()
    assert [name for name, _ in net.named_parameters()] == ["embed.weight"]
    assert list(net.state_dict()) == ["embed.weight", "out.weight"]
    net(fd.array([0, 1])).sum().backward()
    w = net.embed.weight.detach().numpy()
    want = np.tile(w[:2].sum(0), (6, 1))
    want[:2] += w.sum(0)
    np.testing.assert_allclose(net.out.weight.grad.numpy(), want, rtol=1e-5, atol=1e-6)
    optim.SGD(net.parameters(), lr=0.1).step()
    for twin in (copy.deepcopy(net), net.double()):
        assert twin.out.weight is twin.embed.weight


# ---- distillation, vectors -----------------------------------------------------------------------------------------------------


@needs_torch
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("labels", [False, True])
def test_distillation_loss(labels: bool, reduction: str) -> None:
    y, t, a = np.array([0, 2, 1, 1, 3, 0]), 3.0, 0.7

    def theirs(z, teacher):
        f = torch.nn.functional
        soft = f.kl_div(f.log_softmax(z / t, 1), f.softmax(teacher.detach() / t, 1), reduction="sum") * t * t / (6 if reduction == "mean" else 1)
        return a * soft + (1 - a) * f.cross_entropy(z, torch.tensor(y), reduction=reduction) if labels else soft

    def ours(z, teacher):
        return nn.DistillationLoss(t, a, reduction)(z, teacher.detach(), fd.array(y) if labels else None)

    compare(ours, theirs, [normal(6, 4), normal(6, 4, seed=1)], work=10, modules=False)


def test_distillation_loss_errors() -> None:
    z = fd.zeros((2, 3))
    with pytest.raises(ValueError, match="distillation_loss"):
        F.distillation_loss(z, fd.zeros((2, 4)))
    with pytest.raises(ValueError, match="temperature"):
        F.distillation_loss(z, z, temperature=0)


@needs_torch
def test_label_smoothing_with_soft_labels() -> None:
    z, w = pair(normal(4, 3))
    soft = np.abs(normal(4, 3, seed=1))
    soft /= soft.sum(1, keepdims=True)
    ours = nn.CrossEntropyLoss(label_smoothing=0.2)(z, fd.array(soft))
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(w, torch.tensor(soft))
    np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-6)


@needs_torch
def test_parameter_vectors() -> None:
    ours, theirs = two(nn), two(torch.nn)
    copy_weights(ours, theirs)
    vector = nn.utils.parameters_to_vector(ours.parameters())
    np.testing.assert_array_equal(numpy(vector), numpy(torch.nn.utils.parameters_to_vector(theirs.parameters())))
    nn.utils.vector_to_parameters(vector * 2, ours.parameters())
    np.testing.assert_array_equal(numpy(nn.utils.parameters_to_vector(ours.parameters())), 2 * numpy(vector))
    with pytest.raises(fd.ShapeError, match="vector_to_parameters"):
        nn.utils.vector_to_parameters(vector[:3], ours.parameters())
