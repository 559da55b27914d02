"""fd.models: sizes of the published networks, names, shapes, gradients, and what each model promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from torch_bridge import copy_weights, needs_torch, torch

import fastdl as fd
from fastdl import models, nn, optim
from fastdl.nn import functional as F

rng = np.random.default_rng(5)


def images(*shape: int) -> fd.Tensor:
    return fd.array(rng.random(shape, dtype=np.float32))


def tokens(*shape: int, high: int = 12) -> fd.Tensor:
    return fd.array(rng.integers(0, high, shape))


def count(model: nn.Module) -> int:
    return sum(p.size for p in model.parameters())


@pytest.fixture
def unfilled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large networks are built without touching their memory."""
    for name in ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "xavier_uniform_", "zeros_", "ones_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)


PUBLISHED = [
    (models.alexnet, {}, 61_100_840),
    (models.vgg11, {}, 132_863_336),
    (models.vgg13, {}, 133_047_848),
    (models.vgg16, {}, 138_357_544),
    (models.vgg16, {"batch_norm": True}, 138_365_992),
    (models.vgg19, {}, 143_667_240),
    (models.resnet18, {}, 11_689_512),
    (models.resnet34, {}, 21_797_672),
    (models.resnet50, {}, 25_557_032),
    (models.resnet101, {}, 44_549_160),
    (models.LeNet5, {}, 61_706),
    (models.DCGenerator, {"channels": 3, "size": 64}, 3_576_704),
    (models.DCDiscriminator, {"channels": 3, "size": 64}, 2_765_568),
    (models.GPT, {"vocabulary": 50257, "context": 1024, "width": 768, "depth": 12, "heads": 12}, 124_439_808),
]


@pytest.mark.usefixtures("unfilled")
@pytest.mark.parametrize(("build", "settings", "size"), PUBLISHED, ids=lambda v: getattr(v, "__name__", str(v)))
def test_published_sizes(build, settings, size) -> None:
    assert count(build(**settings)) == size


def test_unet_size() -> None:
    """Two 3x3 convolutions at every size on the way down and up, 2x2 transposed ones between, one 1x1 at the end."""
    w, depth, classes = 4, 3, 5
    widths = [w * 2**k for k in range(depth + 1)]
    down = sum(9 * a * b + 9 * b * b for a, b in zip([2, *widths], widths, strict=False))
    up = sum(4 * 2 * a * a + a + 9 * 2 * a * a + 9 * a * a for a in widths[:-1])
    biases = 2 * sum(widths) + 2 * sum(widths[:-1])
    assert count(models.UNet(2, classes, w, depth, batch_norm=False)) == down + up + biases + w * classes + classes
    assert count(models.UNet(2, classes, w, depth)) == down + up + 2 * biases + w * classes + classes  # scale and shift, no bias


def test_names_are_torchvisions() -> None:
    """The keys of torchvision's state dicts, in their order."""
    norm = "weight bias running_mean running_var num_batches_tracked".split()
    for blocks, convs, build in (((2, 2, 2, 2), 2, models.resnet18), ((3, 4, 6, 3), 3, models.resnet50)):
        keys = ["conv1.weight", *(f"bn1.{n}" for n in norm)]
        for stage, k in itertools.chain.from_iterable([(s + 1, k) for k in range(b)] for s, b in enumerate(blocks)):
            for c in range(1, convs + 1):
                keys += [f"layer{stage}.{k}.conv{c}.weight", *(f"layer{stage}.{k}.bn{c}.{n}" for n in norm)]
            if k == 0 and (stage > 1 or convs == 3):
                keys += [f"layer{stage}.{k}.downsample.0.weight", *(f"layer{stage}.{k}.downsample.1.{n}" for n in norm)]
        assert list(build(width=4, num_classes=3).state_dict()) == [*keys, "fc.weight", "fc.bias"]
    both = ("weight", "bias")
    alexnet = [f"features.{k}.{n}" for k in (0, 3, 6, 8, 10) for n in both] + [f"classifier.{k}.{n}" for k in (1, 4, 6) for n in both]
    assert list(models.AlexNet(3, hidden=4).state_dict()) == alexnet
    vgg16 = [f"features.{k}.{n}" for k in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28) for n in both]
    assert list(models.vgg16(num_classes=3, hidden=4).state_dict()) == vgg16 + [f"classifier.{k}.{n}" for k in (0, 3, 6) for n in both]
    assert list(models.VGG(11, 3, batch_norm=True, hidden=4).state_dict())[:7] == ["features.0.weight", "features.0.bias", *(f"features.1.{n}" for n in norm)]


SMALL = {"num_classes": 3, "hidden": 8}
BUILT = [
    ("LeNet5", {"num_classes": 3}, [(2, 1, 28, 28)], (2, 3)),
    ("LeNet5", {"activation": "relu", "in_channels": 3}, [(2, 3, 32, 32)], (2, 10)),
    ("AlexNet", SMALL, [(2, 3, 63, 70)], (2, 3)),
    ("vgg11", {**SMALL, "in_channels": 1}, [(1, 1, 32, 32)], (1, 3)),
    ("resnet18", {"num_classes": 3, "width": 4}, [(2, 3, 40, 33)], (2, 3)),
    ("resnet18", {"num_classes": 3, "width": 4, "small_images": True, "in_channels": 1}, [(2, 1, 28, 28)], (2, 3)),
    ("resnet50", {"num_classes": 3, "width": 4}, [(2, 3, 33, 40)], (2, 3)),
    ("UNet", {"width": 4, "depth": 2}, [(2, 1, 16, 12)], (2, 2, 16, 12)),
    ("UNet", {"width": 4, "depth": 1, "batch_norm": False, "in_channels": 3, "num_classes": 5}, [(2, 3, 6, 8)], (2, 5, 6, 8)),
    ("Autoencoder", {"sizes": [12, 6, 3]}, [(4, 12)], (4, 12)),
    ("ConvAutoencoder", {"width": 4}, [(2, 1, 12, 16)], (2, 1, 12, 16)),
    ("RBM", {"visible": 6, "hidden": 4}, [(3, 6)], (3, 4)),
    ("DBN", {"sizes": [6, 5, 4]}, [(3, 6)], (3, 4)),
    ("DCGenerator", {"latent": 5, "width": 4}, [(3, 5)], (3, 1, 28, 28)),
    ("DCGenerator", {"latent": 5, "width": 2, "size": 32, "channels": 3}, [(3, 5)], (3, 3, 32, 32)),
    ("DCDiscriminator", {"width": 4, "dropout": 0.3}, [(3, 1, 28, 28)], (3,)),
    ("TextCNN", {"vocabulary": 12, "num_classes": 3, "width": 4, "channels": 2}, ["tokens 2 7"], (2, 3)),
    ("GPT", {"vocabulary": 12, "context": 8, "width": 8, "depth": 2, "heads": 2}, ["tokens 2 8"], (2, 8, 12)),
    ("MaskedTransformer", {"vocabulary": 12, "context": 9, "width": 8, "depth": 1, "heads": 2}, ["tokens 2 9"], (2, 9, 12)),
    ("MatrixFactorization", {"users": 12, "items": 12}, ["tokens 50", "tokens 50"], (50,)),
    ("NeuralRecommender", {"users": 12, "items": 12, "dropout": 0.2}, ["tokens 50", "tokens 50"], (50,)),
    ("NeuralRecommender", {"users": 12, "items": 12, "hidden": ()}, ["tokens 50", "tokens 50"], (50,)),
]


@pytest.mark.parametrize("row", BUILT, ids=lambda r: f"{r[0]}-{'-'.join(map(str, r[1].values()))}")
def test_shapes_and_gradients(row: tuple) -> None:
    """The output has its shape, and every parameter that the output depends on is reached."""
    name, settings, shapes, out = row
    fd.manual_seed(0)
    model = getattr(models, name)(**settings)
    inputs = [tokens(*map(int, s.split()[1:])) if isinstance(s, str) else images(*s) for s in shapes]
    y = model(*inputs)
    assert tuple(y.shape) == out
    (y * images(*out)).sum().backward()
    unused = {"RBM": {"visible_bias"}, "DBN": {"rbms.0.visible_bias", "rbms.1.visible_bias"}}.get(name, set())
    for key, parameter in model.named_parameters():
        if key in unused:
            assert parameter.grad is None
        else:
            assert parameter.grad is not None and np.isfinite(parameter.grad.numpy()).all(), key
    assert repr(model).startswith(type(model).__name__)
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    other = getattr(models, name)(**settings)
    other.load_state_dict(before)
    if "dropout" not in settings and name not in ("GPT", "MaskedTransformer", "TextCNN"):
        model.eval(), other.eval()
        np.testing.assert_array_equal(model(*inputs).detach().numpy(), other(*inputs).detach().numpy())


WRONG = [
    (lambda: models.LeNet5(activation="gelu"), ValueError),
    (lambda: models.VGG(12), ValueError),
    (lambda: models.ResNet(models.resnet.BasicBlock, (1, 1, 1)), ValueError),
    (lambda: models.UNet(1, 2, 4, 3)(fd.zeros((1, 1, 20, 16))), fd.ShapeError),
    (lambda: models.UNet(1, 2, 0), ValueError),
    (lambda: models.Autoencoder([5]), ValueError),
    (lambda: models.VAE([5, 3]), ValueError),
    (lambda: models.StackedAutoencoder([5, 3]).pretrain(fd.zeros((4, 6))), fd.ShapeError),
    (lambda: models.StackedAutoencoder([5, 3]).pretrain(fd.zeros((4, 5)), noise=1.0), ValueError),
    (lambda: models.RBM(0, 3), ValueError),
    (lambda: models.RBM(2, 3).gibbs(fd.zeros((1, 2)), 0), ValueError),
    (lambda: models.DBN([4]), ValueError),
    (lambda: models.DBN([4, 2]).pretrain(fd.zeros((4, 5))), fd.ShapeError),
    (lambda: models.DCGenerator(size=30), ValueError),
    (lambda: models.DCDiscriminator(size=7), ValueError),
    (lambda: models.DCGenerator(5, width=2)(fd.zeros((2, 6))), fd.ShapeError),
    (lambda: models.TextCNN(5, 2)(fd.zeros((2, 4), dtype="int64")), fd.ShapeError),
    (lambda: models.SkipGram(5, 2)(fd.array([1]), fd.array([1]), fd.array([1])), fd.ShapeError),
    (lambda: models.RecurrentLM(5, cell="rnn"), ValueError),
    (lambda: models.GPT(5, context=4, width=8, heads=2)(fd.zeros((1, 5), dtype="int64")), fd.ShapeError),
    (lambda: models.GPT(5, depth=0), ValueError),
    (lambda: models.GPT(5, width=6, heads=4), ValueError),
    (lambda: models.sampler(-1.0), ValueError),
    (lambda: models.mask_tokens(np.array([3]), 3), ValueError),
    (lambda: models.mask_tokens(np.array([1]), 3, share=0.0), ValueError),
    (lambda: models.nt_xent_loss(fd.ones((2, 3)), fd.ones((3, 3))), fd.ShapeError),
    (lambda: models.nt_xent_loss(fd.ones((2, 3)), fd.ones((2, 3)), 0.0), ValueError),
    (lambda: models.fgsm(nn.Linear(2, 2), fd.ones((1, 2)), fd.array([0]), -0.1), ValueError),
    (lambda: models.pgd(nn.Linear(2, 2), fd.ones((1, 2)), fd.array([0]), 0.1, steps=0), ValueError),
    (lambda: models.Ensemble([]), ValueError),
    (lambda: models.SSD(3, image_size=40), ValueError),
    (lambda: models.SSD(3, 32, width=2)(fd.zeros((1, 1, 64, 64))), fd.ShapeError),
    (lambda: models.mean_average_precision([], [([], [])], 1), ValueError),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_arguments(number: int) -> None:
    call, error = WRONG[number]
    with pytest.raises(error):
        call()


# ---- autoencoders, Boltzmann machines ------------------------------------------------------------------------------------


def test_autoencoders_learn() -> None:
    fd.manual_seed(0)
    x = fd.array((rng.random((128, 2)) @ rng.random((2, 10)) / 2).astype("float32"))  # two numbers say everything
    net = models.Autoencoder([10, 8, 2])
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    stacked = models.StackedAutoencoder([10, 8, 2])
    before = F.mse_loss(stacked(x), x).item()
    history = stacked.pretrain(x, epochs=60, batch_size=32, lr=0.01, noise=0.1, rng=0)
    assert [len(h) for h in history] == [60, 60] and all(h[-1] < 0.5 * h[0] for h in history)
    assert F.mse_loss(stacked(x), x).item() < 0.5 * before  # the layers fit one another


def test_vae_loss() -> None:
    fd.manual_seed(0)
    net = models.VAE([5, 4, 2])
    x = images(3, 5)
    logits, mean, log_var = (t.detach().numpy().astype(float) for t in net(x))
    fd.manual_seed(0)
    net = models.VAE([5, 4, 2])
    found = net.loss(x).item()
    p, v = 1 / (1 + np.exp(-logits)), x.numpy()
    cross = -(v * np.log(p) + (1 - v) * np.log(1 - p)).sum()
    variance = np.exp(log_var)
    divergence = (0.5 * (variance + mean**2 - 1) - 0.5 * log_var).sum()
    assert found == pytest.approx((cross + divergence) / 3, rel=1e-5)
    assert net.sample(4, rng=1).shape == (4, 5)


def _states(n: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def test_rbm_free_energy_and_gradient() -> None:
    """Against sums over all states of a small machine."""
    fd.manual_seed(1)
    rbm = models.RBM(4, 3)
    for p in rbm.parameters():
        p.detach().copy_(fd.random.normal(p.shape))
    w, b, c = (p.detach().numpy().astype(float) for p in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    v, h = _states(4), _states(3)
    energy = -(v @ b)[:, None] - (h @ c)[None] - v @ w.T @ h.T
    expected = -np.log(np.exp(-energy).sum(1))
    np.testing.assert_allclose(rbm.free_energy(fd.array(v.astype("float32"))).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    weights = np.exp(-energy)
    np.testing.assert_allclose(rbm(fd.array(v.astype("float32"))).detach().numpy(), (weights @ h) / weights.sum(1, keepdims=True), atol=1e-5)
    back = np.exp(-energy)
    np.testing.assert_allclose(rbm.backwards(fd.array(h.astype("float32"))).detach().numpy(), (back.T @ v) / back.sum(0)[:, None], atol=1e-5)
    data = fd.array(v[[1, 5, 6]].astype("float32"))
    fd.manual_seed(2)
    dream = rbm.gibbs(data, 2).numpy()
    fd.manual_seed(2)
    rbm.contrastive_divergence(data, 2).backward()
    hidden = lambda x: 1 / (1 + np.exp(-(x @ w.T + c)))  # noqa: E731
    np.testing.assert_allclose(rbm.weight.grad.numpy(), (hidden(dream).T @ dream - hidden(data.numpy()).T @ data.numpy()) / 3, atol=1e-5)
    np.testing.assert_allclose(rbm.visible_bias.grad.numpy(), (dream - data.numpy()).mean(0), atol=1e-5)


def test_rbm_learns_a_distribution() -> None:
    """Likelihood of two patterns, by summing over all states, rises."""
    fd.manual_seed(0)
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], "float32")
    dbn = models.DBN([6, 4])
    every = fd.array(_states(6).astype("float32"))

    def likelihood() -> float:
        energy = dbn.rbms[0].free_energy(every).detach().numpy().astype(float)
        known = dbn.rbms[0].free_energy(fd.array(patterns)).detach().numpy().astype(float)
        return float(-known.mean() - np.log(np.exp(-energy).sum()))

    before = likelihood()
    dbn.pretrain(np.repeat(patterns, 50, 0), epochs=60, batch_size=20, lr=0.1, rng=0)
    assert before == pytest.approx(-6 * math.log(2), abs=0.1) and likelihood() > -1.5


def test_dbn_classifier_starts_from_the_stack() -> None:
    dbn = models.DBN([6, 5, 4])
    x = images(3, 6)
    net = dbn.classifier(3)
    np.testing.assert_allclose(net[:4](x).detach().numpy(), dbn(x).detach().numpy(), rtol=1e-6)
    net[0].weight.detach().fill_(0)
    assert dbn.rbms[0].weight.detach().numpy().any()  # its own copy


# ---- text ------------------------------------------------------------------------------------------------------------------


def test_skip_gram() -> None:
    fd.manual_seed(0)
    net = models.SkipGram(6, 3)
    nn.init.normal_(net.context.weight)
    v, u = net.centre.weight.detach().numpy(), net.context.weight.detach().numpy()
    found = net(fd.array([1, 2]), fd.array([3, 0]), fd.array([[4, 5], [1, 1]])).item()
    log_sigmoid = lambda t: -np.log1p(np.exp(-t))  # noqa: E731
    first = log_sigmoid(v[1] @ u[3]) + log_sigmoid(-v[1] @ u[4]) + log_sigmoid(-v[1] @ u[5])
    second = log_sigmoid(v[2] @ u[0]) + 2 * log_sigmoid(-v[2] @ u[1])
    assert found == pytest.approx(-(first + second) / 2, rel=1e-5)
    net.centre.weight.detach().copy_(fd.array([[1.0, 0, 0], [0, 1, 0], [2, 0.1, 0], [-1, 0, 0], [1, 1, 0], [0, 0, 1]]))
    assert net.nearest(0, 3) == [2, 4, 1]


@needs_torch
def test_text_cnn_is_torchs() -> None:
    net = models.TextCNN(9, 3, width=4, kernels=(2, 3), channels=5).eval()
    theirs = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(9, 4),
            "convs": torch.nn.ModuleList([torch.nn.Conv1d(4, 5, k) for k in (2, 3)]),
            "fc": torch.nn.Linear(10, 3),
        }
    )
    copy_weights(net, theirs)
    words = rng.integers(0, 9, (2, 6))
    x = theirs["embedding"](torch.tensor(words)).transpose(1, 2)
    y = theirs["fc"](torch.cat([torch.relu(c(x)).max(2).values for c in theirs["convs"]], 1))
    np.testing.assert_allclose(net(fd.array(words)).detach().numpy(), y.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_generation_agrees_with_the_whole_text(cell: str) -> None:
    """Token by token with the state carried along, or all at once: the same likeliest tokens."""
    fd.manual_seed(0)
    net = models.RecurrentLM(7, 5, 6, num_layers=2, cell=cell, dropout=0.5)
    for p in net.parameters():
        p.detach().mul_(3)
    text = net.generate([1, 2, 3], 10, temperature=0.0)
    assert net.training
    with fd.no_grad():
        scores, _ = net.eval()(fd.array([text.tolist()]))
    np.testing.assert_array_equal(scores.numpy()[0].argmax(-1)[2:-1], text[3:])
    np.testing.assert_array_equal(net.generate([1], 20, rng=3), net.generate([1], 20, rng=3))


def test_gpt_looks_back_and_bert_both_ways() -> None:
    fd.manual_seed(0)
    a = rng.integers(0, 9, (1, 6))
    b = a.copy()
    b[0, 4] = (b[0, 4] + 1) % 9
    for build, before in ((models.GPT, 0), (models.MaskedTransformer, 1)):
        net = build(9, context=6, width=8, depth=2, heads=2).eval()
        for p in net.parameters():
            p.detach().mul_(5)
        x, y = (net(fd.array(t)).detach().numpy() for t in (a, b))
        assert (np.abs(x[0, :4] - y[0, :4]).max() > 1e-6) == bool(before)
        assert np.abs(x[0, 4:] - y[0, 4:]).max() > 1e-6
    with fd.no_grad():
        gpt = models.GPT(9, context=6, width=8, depth=1, heads=2).eval()
        text = gpt.generate(a[0], 8, temperature=0.0)
        scores = gpt(fd.array([text[-7:-1].tolist()])).numpy()
    assert scores[0, -1].argmax() == text[-1]


def test_gpt_learns_a_rule() -> None:
    """Counting modulo 5, in captured steps with the numbers of eager ones."""

    def train(wrap) -> list[float]:
        fd.manual_seed(0)
        net = models.GPT(5, context=8, width=16, depth=1, heads=2, dropout=0.1)
        optimizer = optim.AdamW(net.parameters(), lr=1e-2)

        def step(x):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x[:, :-1]).reshape(-1, 5), x[:, 1:].reshape(-1))
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        starts = np.random.default_rng(0).integers(0, 5, (60, 16, 1))
        return [step(fd.array((s + np.arange(9)) % 5)).item() for s in starts]

    losses = train(fd.compile)
    assert losses == train(lambda f: f)
    assert losses[-1] < 0.35 < losses[0]


def test_sampler_follows_the_chances() -> None:
    scores = fd.array([0.0, 1.0, -1.0])
    for temperature in (1.0, 0.5):
        draw = models.sampler(temperature, rng=0)
        counts = np.bincount([draw(scores) for _ in range(2000)], minlength=3) / 2000
        np.testing.assert_allclose(counts, fd.softmax(scores / temperature).numpy(), atol=0.04)


def test_mask_tokens() -> None:
    text = rng.integers(0, 9, (200, 100))
    inputs, targets = models.mask_tokens(text, 9, 0.15, rng=0)
    hidden = targets != -100
    np.testing.assert_array_equal(targets[hidden], text[hidden])
    np.testing.assert_array_equal(inputs[~hidden], text[~hidden])
    assert hidden.mean() == pytest.approx(0.15, abs=0.01)
    assert (inputs[hidden] == 9).mean() == pytest.approx(0.8, abs=0.03)
    assert (inputs[hidden] == text[hidden]).mean() == pytest.approx(0.1 + 0.1 / 9, abs=0.02)


# ---- recommenders, contrastive learning, attacks, ensembles -----------------------------------------------------------------


def test_recommenders_find_structure() -> None:
    fd.manual_seed(0)
    truth = 3 + rng.standard_normal((20, 3)) @ rng.standard_normal((3, 15))
    user, item = np.divmod(rng.permutation(300), 15)
    rating = fd.array(truth[user, item].astype("float32"))
    for build in (models.MatrixFactorization, models.NeuralRecommender):
        net = build(20, 15, 8, mean=3.0)
        optimizer = optim.Adam(net.parameters(), lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            loss = F.mse_loss(net(fd.array(user), fd.array(item)), rating)
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.05 * truth.var()
        assert "mean" in net.state_dict()


def test_nt_xent_by_hand() -> None:
    a, b = rng.standard_normal((2, 3, 4))
    z = np.concatenate([a, b])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    total = 0.0
    for i in range(6):
        scores = np.exp([z[i] @ z[j] / 0.2 for j in range(6) if j != i])
        total -= np.log(np.exp(z[i] @ z[(i + 3) % 6] / 0.2) / scores.sum())
    found = models.nt_xent_loss(fd.array(a), fd.array(b), 0.2)
    assert found.item() == pytest.approx(total / 6, rel=1e-6)


def test_attacks() -> None:
    fd.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    for p in net.parameters():
        p.detach().mul_(3)
    x, y = images(32, 6), tokens(32, high=3)
    rows = x.numpy().astype(float)

    def loss(x: np.ndarray) -> float:
        return F.cross_entropy(net(fd.array(x.astype("float32"))), y).item()

    clean, fast, slow = loss(rows), models.fgsm(net, x, y, 0.1), models.pgd(net, x, y, 0.1, steps=10, rng=0)
    for attacked in (fast, slow):
        assert np.abs(attacked.numpy() - rows).max() <= 0.1 + 1e-6 and 0 <= attacked.numpy().min() and attacked.numpy().max() <= 1
        assert not attacked.requires_grad
    assert clean < loss(fast.numpy()) <= loss(slow.numpy()) + 1e-3
    assert all(p.grad is None for p in net.parameters()) and x.grad is None
    once = models.pgd(net, x, y, 0.1, steps=1, step_size=0.1, random_start=False)
    np.testing.assert_allclose(once.numpy(), fast.numpy(), atol=1e-7)
    net, step = net.to(fd.float64), 1e-5  # every value moves where the loss, by differences, is larger
    fast = models.fgsm(net, fd.array(rows), y, 0.1, -9.0, 9.0).numpy()
    for k in range(6):
        moved = rows.copy()
        moved[:, k] += step
        slope = F.cross_entropy(net(fd.array(moved)), y, reduction="none") - F.cross_entropy(net(fd.array(rows)), y, reduction="none")
        np.testing.assert_allclose(fast[:, k] - rows[:, k], 0.1 * np.sign(slope.detach().numpy()), atol=1e-9)


def test_ensemble_is_the_mean() -> None:
    members = [nn.Linear(4, 3) for _ in range(3)]
    x = images(5, 4)
    mean = np.mean([fd.softmax(m(x), -1).detach().numpy() for m in members], 0)
    np.testing.assert_allclose(np.exp(models.Ensemble(members)(x).detach().numpy()), mean, rtol=1e-5)


# ---- detection -----------------------------------------------------------------------------------------------------------


def _boxes(n: int) -> np.ndarray:
    corner, size = rng.random((n, 2)) * 10, 0.5 + rng.random((n, 2)) * 5
    return np.concatenate([corner, corner + size], 1)


def test_boxes() -> None:
    a, b = _boxes(7), _boxes(9)
    overlap = models.box_iou(a, b)
    for i, j in itertools.product(range(7), range(9)):
        w = max(0.0, min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0]))
        h = max(0.0, min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1]))
        area = np.prod(a[i, 2:] - a[i, :2]) + np.prod(b[j, 2:] - b[j, :2]) - w * h
        assert overlap[i, j] == pytest.approx(w * h / area)
    np.testing.assert_allclose(models.decode_boxes(models.encode_boxes(a, b[:7]), b[:7]), a, rtol=1e-9)
    boxes, scores = _boxes(40), rng.random(40)
    kept = models.nms(boxes, scores, 0.3)
    among = models.box_iou(boxes[kept], boxes[kept]) - np.eye(len(kept))
    assert among.max() <= 0.3 and (np.diff(scores[kept]) <= 0).all()
    for lost in set(range(40)) - set(kept.tolist()):
        better = kept[scores[kept] > scores[lost]]
        assert models.box_iou(boxes[[lost]], boxes[better]).max() > 0.3
    assert models.nms(np.zeros((0, 4)), [], 0.5).shape == (0,)


def test_match_boxes() -> None:
    anchors = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [0, 4, 4, 8], [4, 4, 8, 8.0]])
    classes, offsets = models.match_boxes(anchors, [[0, 0, 4, 3.5], [6.5, 6.5, 8.5, 8.5]], [2, 0])
    assert classes.tolist() == [3, 0, 0, 1]  # the second box overlaps none by half, and still has its best anchor
    np.testing.assert_allclose(models.decode_boxes(offsets[[0, 3]], anchors[[0, 3]]), [[0, 0, 4, 3.5], [6.5, 6.5, 8.5, 8.5]], atol=1e-5)
    assert not offsets[1:3].any() and not models.match_boxes(anchors, [], [])[0].any()


def test_mean_average_precision() -> None:
    truth = [([[0, 0, 2, 2], [5, 5, 7, 7]], [0, 1]), ([[1, 1, 3, 3]], [0])]
    exact = [(np.array(b), np.array(c), np.full(len(c), 0.9)) for b, c in truth]
    assert models.mean_average_precision(exact, truth, 3) == 1.0
    assert models.mean_average_precision([([], [], []), ([], [], [])], truth, 3) == 0.0
    # Class 0: a wrong detection above two right ones: precision 1/2 and 2/3 at recalls 1/2 and 1. Class 1: seen twice, once counts.
    found = [
        ([[0, 0, 2, 2], [20, 20, 22, 22], [5, 5, 7, 7], [5, 5, 7, 7]], [0, 0, 1, 1], [0.5, 0.9, 0.8, 0.7]),
        ([[1, 1, 3, 3]], [0], [0.4]),
    ]
    assert models.mean_average_precision(found, truth, 3) == pytest.approx((2 / 3 + 1) / 2)


def test_detector_finds_squares() -> None:
    """Bright and dark squares on grey, after 80 small steps."""
    fd.manual_seed(0)
    draw = np.random.default_rng(0)

    def scene(n: int) -> tuple:
        x, boxes, labels = np.full((n, 1, 32, 32), 0.5, "float32"), [], []
        for k in range(n):
            (a, b), size, label = draw.integers(0, 20, 2), int(draw.integers(8, 12)), int(draw.integers(0, 2))
            x[k, 0, b : b + size, a : a + size] = label
            boxes.append([[a, b, a + size, b + size]])
            labels.append([label])
        return x, boxes, labels

    net = models.SSD(2, 32, width=8)
    optimizer = optim.Adam(net.parameters(), lr=5e-3)

    @fd.compile
    def step(x, classes, offsets):
        optimizer.zero_grad()
        loss = net.loss(x, classes, offsets)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(80):
        x, boxes, labels = scene(16)
        step(x, *net.targets(boxes, labels))
    x, boxes, labels = scene(40)
    found = net.eval().detect(fd.array(x))
    assert models.mean_average_precision(found, list(zip(boxes, labels, strict=True)), 2) > 0.9
