"""Plots, explanations, TensorBoard logs and summaries."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest

import fastdl as fd
from fastdl import nn, visual


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def cnn() -> nn.Sequential:
    fd.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(6 * 16, 3),
    )  # fmt: skip


# ---- explanations --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 1, [0, 1, 2, 0]])
def test_integrated_gradients_are_complete(target) -> None:
    net, x = cnn().double(), normal(4, 1, 8, 8).astype(np.float64)
    baseline = np.full((1, 8, 8), 0.1)
    parts = visual.integrated_gradients(net, x, target, baseline=baseline, steps=200)
    net.eval()
    scores, start = net(fd.array(x)).detach().numpy(), net(fd.array(np.broadcast_to(baseline, x.shape).copy())).detach().numpy()
    chosen = scores.argmax(1) if target is None else np.broadcast_to(target, 4)
    rows = np.arange(4)
    np.testing.assert_allclose(parts.sum((1, 2, 3)), scores[rows, chosen] - start[rows, chosen], atol=2e-3)
    assert parts.shape == x.shape


def test_integrated_gradients_of_a_smooth_model_are_exact() -> None:
    """Between 0 and x, the integral of a cubic's gradient is exact with 2 points."""

    class Cubic(nn.Module):
        def forward(self, x):
            return fd.stack([(x**3).sum(axis=1), x.sum(axis=1)], axis=1)

    x = normal(5, 3).astype(np.float64)
    np.testing.assert_allclose(visual.integrated_gradients(Cubic(), x, 0, steps=2), x**3, rtol=1e-12)


def test_saliency_is_the_gradient() -> None:
    net, x = cnn().double(), normal(2, 1, 8, 8).astype(np.float64)
    net.train()
    found = visual.saliency(net, x, 2)
    assert net.training and net[1].training  # modes are restored,
    assert all(p.grad is None for p in net.parameters())  # gradients not touched
    net.eval()
    eps = 1e-6
    for n, i, j in [(0, 3, 4), (1, 0, 7)]:
        up, down = x.copy(), x.copy()
        up[n, 0, i, j] += eps
        down[n, 0, i, j] -= eps
        slope = (net(fd.array(up))[n, 2] - net(fd.array(down))[n, 2]).item() / (2 * eps)
        np.testing.assert_allclose(found[n, 0, i, j], abs(slope), rtol=1e-5, atol=1e-9)


def test_grad_cam_finds_the_spot() -> None:
    """A network that adds up one bright patch's channel: heat is where the patch is, in the corner that has it."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    net[0].weight.detach()[:] = fd.array(np.stack([np.ones((1, 3, 3)), -np.ones((1, 3, 3))]).astype(np.float32) / 9)
    net[4].weight.detach()[:] = fd.array([[1.0, 0.0], [0.0, 1.0]])
    x = np.zeros((2, 1, 16, 16), np.float32)
    x[0, 0, 2:6, 2:6] = x[1, 0, 9:13, 8:12] = 1
    heat = visual.grad_cam(net, x, "1", 0)
    assert heat.shape == (2, 16, 16)
    np.testing.assert_allclose(heat.max((1, 2)), 1, rtol=1e-6)
    assert heat[0, 3:5, 3:5].min() == pytest.approx(1)
    assert heat[0, 8:, :].max() == 0
    assert heat[1, 10, 9] == pytest.approx(1)
    assert visual.grad_cam(net, x, "1", 1).max() == 0  # nothing speaks for the other class
    small = visual.grad_cam(cnn(), normal(2, 1, 8, 8), "4")
    assert small.shape == (2, 8, 8)


def test_occlusion_of_a_linear_model() -> None:
    """Covering a square of a linear score takes away the sum under it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(49, 1, bias=False))
    x, w = normal(3, 1, 7, 7), net[1].weight.detach().numpy().reshape(7, 7)
    np.testing.assert_allclose(visual.occlusion(net, x, size=1, stride=1), x[:, 0] * w, rtol=1e-4, atol=1e-6)
    blocks = visual.occlusion(net, x, size=4, stride=3)  # 0..3 and 3..6: row and column 3 lie in both
    product = x[:, 0] * w
    np.testing.assert_allclose(blocks[:, 0, 0], product[:, :4, :4].sum((1, 2)), rtol=1e-4, atol=1e-5)
    halves = (product[:, :4, :4].sum((1, 2)) + product[:, 3:, :4].sum((1, 2))) / 2
    np.testing.assert_allclose(blocks[:, 3, 0], halves, rtol=1e-4, atol=1e-5)


def test_explanations_check_their_arguments() -> None:
    net, x = cnn(), normal(2, 1, 8, 8)
    for call, text in [
        (lambda: visual.saliency(net, x, 3), "target must be in 0 .. 2"),
        (lambda: visual.saliency(net, np.zeros((2, 1, 8, 8), int)), "floats"),
        (lambda: visual.integrated_gradients(net, x, steps=0), "steps"),
        (lambda: visual.grad_cam(net, x, "6"), "need \\(N, K, h, w\\)"),
        (lambda: visual.occlusion(net, x, size=9), "size"),
        (lambda: visual.occlusion(net, x, size=2, stride=3), "stride"),
    ]:
        with pytest.raises(fd.FastdlError, match=text):
            call()


# ---- adapters ------------------------------------------------------------------------------------------------------------------


def test_predict_function() -> None:
    net, x = cnn(), normal(5, 1, 8, 8)
    net.eval()
    want = fd.softmax(net(fd.array(x)), 1).detach().numpy()
    net.train()
    np.testing.assert_allclose(visual.predict_function(net, shape=(1, 8, 8), batch_size=2)(x.reshape(5, 64).astype(float)), want, rtol=1e-5)
    colour = np.repeat(x.transpose(0, 2, 3, 1), 3, axis=-1)
    np.testing.assert_allclose(visual.predict_function(net, shape=(1, 8, 8), channels_last=True)(colour), want, rtol=1e-4)
    assert net.training
    np.testing.assert_allclose(visual.predict_function(nn.Identity(), probabilities=False)(want), want)


def test_shap_adapter(monkeypatch) -> None:
    """A stand-in that treats every feature alone, which is exact for a linear model."""

    class KernelExplainer:
        def __init__(self, function, background) -> None:
            self.function, self.background = function, background

        def shap_values(self, x, nsamples):
            base = self.background.mean(0, keepdims=True)
            columns = []
            for k in range(x.shape[1]):
                one = np.repeat(base, len(x), 0)
                one[:, k] = x[:, k]
                columns.append(self.function(one) - self.function(base))
            return np.stack(columns, 1)

    monkeypatch.setitem(sys.modules, "shap", types.SimpleNamespace(KernelExplainer=KernelExplainer))
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), normal(3, 1, 2, 2)
    values = visual.explain_with_shap(net, x, np.zeros((5, 1, 2, 2), np.float32), probabilities=False)
    np.testing.assert_allclose(values, x.reshape(3, 4, 1) * net[1].weight.detach().numpy().T, rtol=1e-5, atol=1e-6)


def test_lime_adapter(monkeypatch) -> None:
    class LimeImageExplainer:
        def __init__(self, random_state) -> None:
            self.random_state = random_state

        def explain_instance(self, image, function, top_labels, num_samples):
            assert image.shape == (8, 8, 3)
            return function(np.repeat(image[None], num_samples, 0))

    lime_image = types.ModuleType("lime.lime_image")
    lime_image.LimeImageExplainer = LimeImageExplainer
    monkeypatch.setitem(sys.modules, "lime", types.ModuleType("lime"))
    monkeypatch.setitem(sys.modules, "lime.lime_image", lime_image)
    net, x = cnn().eval(), normal(1, 8, 8)
    answer = visual.explain_with_lime(net, x, num_samples=4)
    np.testing.assert_allclose(answer, np.repeat(fd.softmax(net(fd.array(x[None])), 1).detach().numpy(), 4, 0), rtol=1e-4)
    with pytest.raises(fd.ShapeError, match="explain_with_lime"):
        visual.explain_with_lime(net, normal(2, 8, 8))


@pytest.mark.parametrize("package", ["shap", "lime"])
def test_missing_packages_are_named(package: str, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        if package == "shap":
            visual.explain_with_shap(cnn(), normal(1, 1, 8, 8), normal(1, 1, 8, 8))
        else:
            visual.explain_with_lime(cnn(), normal(1, 8, 8))


# ---- plots ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def agg():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")


@pytest.mark.parametrize(
    "history",
    [
        visual.History(loss=[1.0, 0.5], val_loss=[1.2, 0.8], accuracy=[0.5, 0.7]),
        [{"loss": 1.0, "val_loss": 1.2, "accuracy": 0.5}, {"loss": 0.5, "val_loss": 0.8, "accuracy": 0.7}],
        types.SimpleNamespace(history={"loss": [1.0, 0.5], "val_loss": [1.2, 0.8], "accuracy": [0.5, 0.7], "names": ["a", "b"]}),
    ],
    ids=["History", "rows", "keras"],
)
def test_plot_history(agg, history) -> None:
    figure = visual.plot_history(history, log=True)
    loss, accuracy = figure.axes
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [1.2, 0.8])
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [1, 2])
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("log", "linear")


def test_history_grows(agg) -> None:
    history = visual.History()
    history.append(loss=fd.array(2.0), accuracy=0.5)
    history.append(loss=1, accuracy=0.75)
    assert history == {"loss": [2.0, 1.0], "accuracy": [0.5, 0.75]}
    assert len(history.plot().axes) == 2
    with pytest.raises(fd.FastdlError, match="no numbers"):
        visual.History().plot()


def test_plot_confusion_matrix(agg) -> None:
    scores = fd.array([[2.0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1.0]])
    figure = visual.plot_confusion_matrix(np.array([0, 1, 2, 2]), scores, ["a", "b", "c"])
    (axis,) = figure.axes
    np.testing.assert_allclose(axis.images[0].get_array(), [[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]])
    assert axis.get_title() == "accuracy 75.0%"
    assert sorted(text.get_text() for text in axis.texts) == ["1", "1", "1", "1"]
    with pytest.raises(fd.ShapeError, match="plot_confusion_matrix"):
        visual.plot_confusion_matrix([0, 1], [0])


def test_plot_grids(agg, tmp_path) -> None:
    net, x = cnn(), np.abs(normal(5, 1, 8, 8))
    grid = visual.plot_images(x, titles=list("abcde"))
    assert len(grid.axes) == 5
    shown = grid.axes[0].images[0].get_array()
    assert shown.min() == 0 and shown.max() == 1
    assert len(visual.plot_images(np.zeros((2, 3, 4, 4))).axes) == 2
    assert len(visual.plot_filters(net[0]).axes) == 4
    assert len(visual.plot_filters(normal(9, 3, 5, 5)).axes) == 9
    assert len(visual.plot_filters(nn.Linear(16, 5)).axes) == 5
    maps = visual.plot_feature_maps(net.eval(), x[0], "4")
    np.testing.assert_allclose(maps.axes[2].images[0].get_array(), net[:5](fd.array(x[:1])).detach().numpy()[0, 2], rtol=1e-5)
    heat = visual.plot_heatmaps(x, visual.saliency(net, x))
    heat.savefig(tmp_path / "heat.png")
    assert (tmp_path / "heat.png").stat().st_size > 1000
    for call in (
        lambda: visual.plot_images(np.zeros((2, 2, 4, 4))),
        lambda: visual.plot_images(np.zeros((0, 4, 4))),
        lambda: visual.plot_filters(nn.Linear(15, 5)),
        lambda: visual.plot_feature_maps(net, x[0], "8"),
        lambda: visual.plot_heatmaps(x, np.zeros((5, 4, 4))),
    ):
        with pytest.raises(fd.FastdlError, match="plot_"):
            call()


def test_plots_do_not_pile_up(agg) -> None:
    from matplotlib import pyplot

    visual.plot_images(np.zeros((1, 4, 4)))
    assert not pyplot.get_fignums()


def test_missing_matplotlib(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"fastdl-engine\[plot\]"):
        visual.plot_images(np.zeros((1, 4, 4)))


# ---- TensorBoard ---------------------------------------------------------------------------------------------------------------


def test_logs_are_read_back(tmp_path) -> None:
    pytest.importorskip("tensorboardX")
    net = nn.Linear(3, 2)
    net(fd.ones((1, 3))).sum().backward()
    with visual.SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("loss", fd.array(1.0) / (step + 1), step)
        writer.add_scalar("accuracy", 0.25, 3)
        writer.add_parameters(net, 0)
        writer.add_image("image", fd.ones((1, 4, 4)), 0)
    logs = visual.read_events(tmp_path)
    assert [step for step, _ in logs["loss"]] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([value for _, value in logs["loss"]], 1 / np.arange(1, 6), rtol=1e-6)
    assert logs["accuracy"] == [(3, 0.25)]
    assert logs["weights/weight"] == logs["gradients/bias"] == logs["image"] == [(0, None)]
    (file,) = tmp_path.glob("events*")
    content = file.read_bytes()
    file.write_bytes(content[:-3])  # a writer that still runs
    assert len(visual.read_events(file)["loss"]) == 5
    broken = bytearray(content)
    broken[len(content) // 2] ^= 1
    file.write_bytes(bytes(broken))
    with pytest.raises(fd.FormatError, match="checksum"):
        visual.read_events(file)
    with pytest.raises(fd.FormatError, match="no event files"):
        visual.read_events(tmp_path / "nothing")
    with pytest.raises(AttributeError):
        writer.no_such_method()


# ---- summaries -----------------------------------------------------------------------------------------------------------------


def test_summary_of_lenet() -> None:
    """LeNet-5 on 32 x 32: parameters and multiply-adds as computed by hand."""
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
    found = fd.summary(net, (1, 32, 32))
    assert found.total_parameters == 156 + 2416 + 48120 + 10164 + 850 == 61706
    conv1, conv2 = 28 * 28 * 6 * (2 * 25 + 1), 10 * 10 * 16 * (2 * 150 + 1)
    dense = [2 * a * b + b for a, b in ((400, 120), (120, 84), (84, 10))]
    assert [row.flops for row in found.rows if row.flops] == [conv1, conv2, *dense]
    assert found.flops == conv1 + conv2 + sum(dense)
    assert found.rows[3].output_shape == (1, 16, 10, 10)
    assert fd.summary(net, (1, 32, 32), batch_size=3).flops == found.flops
    text = str(found)
    assert "61,706" in text and f"{found.flops:,}" in text
    assert str(net.summary((1, 32, 32))) == text


def test_summary_of_grouped_strided_and_one_dimensional_convolutions() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), nn.Flatten(2), nn.Conv1d(8, 2, 5, dilation=2))
    rows = fd.summary(net, (4, 11, 11)).rows
    assert rows[0].flops == 2 * 8 * 5 * 5 * 2 * 9
    assert rows[2].output_shape == (1, 2, 17)
    assert rows[2].flops == 2 * 17 * (2 * 8 * 5 + 1)


def test_summary_of_recurrent_and_attention_layers() -> None:
    lstm = fd.summary(nn.LSTM(6, 5, batch_first=True), (7, 6))
    assert lstm.total_parameters == 4 * 5 * (6 + 5 + 2)
    assert lstm.flops == 7 * 4 * 5 * (2 * 6 + 2 * 5 + 2)
    assert lstm.rows[0].output_shape == (1, 7, 5)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    project, attend, feed = 4 * 5 * 8 * (2 * 8 + 1), 4 * 5 * 5 * 8, 5 * 16 * (2 * 8 + 1) + 5 * 8 * (2 * 16 + 1)
    assert fd.summary(layer, (5, 8)).flops == project + attend + feed


def test_summary_of_shared_frozen_and_idle_parts() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out, self.idle = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False), nn.Linear(3, 3)
            self.out.weight = self.embed.weight
            self.scale = nn.Parameter(fd.ones(()))

        def forward(self, x):
            return self.out(self.embed(x)) * self.scale

    net = Net()
    nn.utils.freeze(net, "idle")
    found = net.summary((7,), dtype="int64")
    assert (found.total_parameters, found.trainable_parameters) == (40 + 12 + 1, 41)
    assert {row.name: (row.parameters, row.flops) for row in found.rows} == {"(model)": (1, 0), "embed": (40, 0), "out": (0, 2 * 7 * 40), "idle": (12, 0)}
    assert "not run" in str(found)
    assert all(module._hooks is None for module in net.modules())


def test_summary_leaves_the_model_alone() -> None:
    net = cnn().train()
    net[7].eval()
    before = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    net.summary((1, 8, 8))
    assert net[1].training and not net[7].training
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in net.state_dict().items())
    with pytest.raises(fd.FastdlError):
        net.summary((2, 8, 8))
    assert all(module._hooks is None for module in net.modules())
