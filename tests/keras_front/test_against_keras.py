"""Layers, losses, metrics, optimisers and whole runs of `fit` against Keras 3 on the same weights. Skipped where Keras is not installed."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

from fastdl import keras

theirs = pytest.importorskip("keras")
if theirs.backend.backend() == "torch":
    import torch

    torch.set_num_threads(1)  # these sizes are too small for more
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((3, 9, 8, 4)).astype("float32")
STEPS = RNG.standard_normal((3, 6, 4)).astype("float32")
ROWS = RNG.standard_normal((5, 4)).astype("float32")
WORDS = RNG.integers(0, 11, (3, 6))


@pytest.fixture(autouse=True)
def _seed():
    """Initial weights come from Keras: the same in every run, as a rare network doubles each rounding difference from step to step."""
    theirs.utils.set_random_seed(0)


LAYERS = [
    ("Dense", {"units": 3, "activation": "relu"}, ROWS),
    ("Dense", {"units": 3, "activation": "softmax"}, STEPS),
    ("Conv2D", {"filters": 5, "kernel_size": 3, "activation": "relu"}, IMAGES),
    ("Conv2D", {"filters": 5, "kernel_size": (3, 2), "strides": 2, "padding": "same", "activation": "softmax"}, IMAGES),
    ("Conv2D", {"filters": 4, "kernel_size": 3, "dilation_rate": 2, "groups": 2, "use_bias": False}, IMAGES),
    ("Conv1D", {"filters": 5, "kernel_size": 3, "padding": "same", "strides": 2}, STEPS),
    ("Conv1D", {"filters": 5, "kernel_size": 3, "padding": "causal", "dilation_rate": 2}, STEPS),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same"}, IMAGES),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 4, "strides": 2, "padding": "same"}, IMAGES),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 2, "strides": 3, "padding": "valid"}, IMAGES),
    ("Conv2DTranspose", {"filters": 3, "kernel_size": 5, "strides": 2, "padding": "valid"}, IMAGES),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, IMAGES),
    ("SeparableConv2D", {"filters": 5, "kernel_size": 3, "depth_multiplier": 2, "activation": "tanh"}, IMAGES),
    ("MaxPooling2D", {"pool_size": 2}, IMAGES),
    ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, IMAGES),
    ("AveragePooling2D", {"pool_size": (3, 2), "strides": 2}, IMAGES),
    ("MaxPooling1D", {"pool_size": 2, "padding": "same"}, STEPS),
    ("AveragePooling1D", {"pool_size": 3, "strides": 1}, STEPS),
    ("GlobalAveragePooling2D", {}, IMAGES),
    ("GlobalMaxPooling2D", {"keepdims": True}, IMAGES),
    ("GlobalAveragePooling1D", {}, STEPS),
    ("GlobalMaxPooling1D", {}, STEPS),
    ("Flatten", {}, IMAGES),
    ("Reshape", {"target_shape": (8, -1)}, IMAGES),
    ("Permute", {"dims": (3, 1, 2)}, IMAGES),
    ("RepeatVector", {"n": 3}, ROWS),
    ("BatchNormalization", {}, IMAGES),
    ("BatchNormalization", {"axis": 1, "center": False}, IMAGES),
    ("LayerNormalization", {}, STEPS),
    ("LayerNormalization", {"axis": (2, 3)}, IMAGES),
    ("Embedding", {"input_dim": 11, "output_dim": 3}, WORDS),
    ("SimpleRNN", {"units": 5, "return_sequences": True}, STEPS),
    ("SimpleRNN", {"units": 5, "go_backwards": True}, STEPS),
    ("LSTM", {"units": 5, "go_backwards": True, "return_sequences": True, "use_bias": False}, STEPS),
    ("LSTM", {"units": 5}, STEPS),
    ("LSTM", {"units": 5, "return_sequences": True, "return_state": True, "recurrent_activation": "hard_sigmoid"}, STEPS),
    ("GRU", {"units": 5, "return_sequences": True}, STEPS),
    ("GRU", {"units": 5, "reset_after": False}, STEPS),
    ("Activation", {"activation": "swish"}, ROWS),
    ("ReLU", {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}, ROWS),
    ("LeakyReLU", {"negative_slope": 0.3}, ROWS),
    ("PReLU", {"shared_axes": [1, 2]}, IMAGES),
    ("Softmax", {"axis": 1}, STEPS),
    ("UpSampling2D", {"size": (2, 3)}, IMAGES),
    ("UpSampling2D", {"size": 2, "interpolation": "bilinear"}, IMAGES),
    ("ZeroPadding2D", {"padding": ((1, 0), (2, 3))}, IMAGES),
    ("Cropping2D", {"cropping": ((1, 0), (2, 3))}, IMAGES),
    ("Rescaling", {"scale": 0.5, "offset": -1.0}, IMAGES),
]


def _numpy(value):
    if isinstance(value, (list, tuple)):
        return [_numpy(v) for v in value]
    return value.detach().cpu().numpy()


def _random_weights(layer):
    """Weights that hide no mistake (zeros would); variances stay positive."""
    rng = np.random.default_rng(1)
    return [np.abs(rng.standard_normal(w.shape)).astype("float32") if "var" in w.path else 0.5 * rng.standard_normal(w.shape).astype("float32") for w in layer.weights]


def _same(mine, other, **tolerance):
    mine, other = (v if isinstance(v, list) else [v] for v in (_numpy(mine), _numpy(other)))
    assert len(mine) == len(other)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 2e-5, "atol": 2e-5, **tolerance})


@pytest.mark.parametrize(("name", "settings", "x"), LAYERS, ids=lambda v: v if isinstance(v, str) else "")
def test_layer(name, settings, x):
    mine, other = getattr(keras.layers, name)(**settings), getattr(theirs.layers, name)(**settings)
    mine(x), other(x)
    assert [w.shape for w in mine.weights] == [tuple(w.shape) for w in other.weights]
    weights = _random_weights(other)
    mine.set_weights(weights), other.set_weights(weights)
    _same(mine(x), other(x))
    assert mine.compute_output_shape((None, *x.shape[1:])) == tuple(other.compute_output_shape((None, *x.shape[1:]))) or "return_state" in settings
    if name == "BatchNormalization":
        _same(mine(x, training=True), other(x, training=True), atol=1e-4)
        for a, b in zip(mine.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional(mode, sequences):
    mine, other = (k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=sequences), merge_mode=mode) for k in (keras, theirs))
    mine(STEPS), other(STEPS)
    weights = _random_weights(other)
    mine.set_weights(weights), other.set_weights(weights)
    _same(mine(STEPS), other(STEPS))


@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(causal):
    mine, other = (k.layers.MultiHeadAttention(2, 3, value_dim=5) for k in (keras, theirs))
    mask = np.random.default_rng(3).random((3, 6, 6)) < 0.7
    mask[..., 0] = True
    mine(STEPS, STEPS), other(STEPS, STEPS)
    weights = _random_weights(other)
    mine.set_weights(weights), other.set_weights(weights)
    _same(mine(STEPS, STEPS, attention_mask=mask, use_causal_mask=causal), other(STEPS, STEPS, attention_mask=mask, use_causal_mask=causal))


P = RNG.random((6, 4)).astype("float32") * 0.98 + 0.01
T = (RNG.random((6, 4)) < 0.5).astype("float32")
ONE_HOT = np.eye(4, dtype="float32")[[0, 3, 1, 1, 2, 0]]
LOSSES = [
    *[(name, {}, RNG.random((6, 4)).astype("float32") + 0.1) for name in ("MeanSquaredError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "LogCosh", "Poisson", "CosineSimilarity")],
    ("Huber", {"delta": 0.3}, T),
    *[(name, {}, T) for name in ("Hinge", "SquaredHinge", "BinaryCrossentropy")],
    *[(name, {}, ONE_HOT) for name in ("CategoricalHinge", "KLDivergence", "CategoricalCrossentropy")],
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, T),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, ONE_HOT),
    ("SparseCategoricalCrossentropy", {}, np.array([0, 3, 1, 1, 2, 0])),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, np.array([0, 3, 1, 1, 2, 0])),
]


@pytest.mark.parametrize(("name", "settings", "t"), LOSSES, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "none"])
def test_loss(name, settings, t, reduction):
    p = P if name not in ("CategoricalCrossentropy", "SparseCategoricalCrossentropy") or settings else P / P.sum(1, keepdims=True)
    w = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0], "float32")
    mine, other = (getattr(k.losses, name)(reduction=reduction, **settings) for k in (keras, theirs))
    _same(mine(t, p), other(t, p))
    _same(mine(t, p, w), other(t, p, w))


METRICS = [
    ("BinaryAccuracy", {}, T), ("BinaryAccuracy", {"threshold": 0.3}, T), ("CategoricalAccuracy", {}, ONE_HOT), ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT),
    ("SparseCategoricalAccuracy", {}, np.array([0, 3, 1, 1, 2, 0])), ("SparseTopKCategoricalAccuracy", {"k": 2}, np.array([0, 3, 1, 1, 2, 0])),
    ("MeanSquaredError", {}, T), ("MeanAbsoluteError", {}, T), ("RootMeanSquaredError", {}, T), ("Precision", {}, T), ("Recall", {}, T),
    ("Precision", {"thresholds": [0.3, 0.6]}, T), ("Recall", {"class_id": 1}, T), ("Precision", {"class_id": 2}, T), ("Precision", {"top_k": 2}, T), ("AUC", {}, T), ("AUC", {"curve": "PR"}, T),
    ("CategoricalCrossentropy", {}, ONE_HOT), ("CosineSimilarity", {}, T),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "t"), METRICS, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("weighted", [False, True])
def test_metric(name, settings, t, weighted):
    mine, other = (getattr(k.metrics, name)(**settings) for k in (keras, theirs))
    w = np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0], "float32") if weighted else None
    if weighted and name in ("Precision", "Recall", "AUC") and "class_id" not in settings:
        w = np.repeat(w[:, None], 4, 1)
    for m in (mine, other):
        m.update_state(t[:4], P[:4], None if w is None else w[:4])
        m.update_state(t[4:], P[4:], None if w is None else w[4:])
    np.testing.assert_allclose(mine.result(), _numpy(other.result()), rtol=1e-5, atol=1e-6)


OPTIMIZERS = [
    ("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}), ("Adam", {}), ("Adam", {"amsgrad": True, "epsilon": 1e-3}),
    ("AdamW", {"weight_decay": 0.1}), ("RMSprop", {}), ("RMSprop", {"momentum": 0.5, "centered": True}), ("Adagrad", {}), ("Adadelta", {"learning_rate": 1.0}),
    ("Nadam", {}), ("Lion", {}), ("Adam", {"clipnorm": 0.1}), ("SGD", {"clipvalue": 0.01}), ("SGD", {"global_clipnorm": 0.1}), ("RMSprop", {"weight_decay": 0.05}),
]  # fmt: skip


def _small(k):
    return k.Sequential([k.Input((4,)), k.layers.Dense(8, activation="tanh"), k.layers.Dense(3, activation="softmax")])


def _data(n=160):
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, 4)).astype("float32")
    return x, (x[:, 0] + x[:, 1] > 0).astype("int64") + (x[:, 2] > 0.5)


def _both(mine, other, x, y, **settings):
    mine.set_weights(other.get_weights())
    histories = [m.fit(x, y, shuffle=False, verbose=0, **settings).history for m in (mine, other)]
    assert list(histories[0]) == list(histories[1])
    return histories


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda c: f"{c[0]}-{c[1]}")
def test_fifty_steps_of_every_optimizer(case):
    """Losses of every epoch of five steps, the last a smaller batch, within 1e-4."""
    name, settings = case
    x, y = _data(150)
    mine, other = _small(keras), _small(theirs)
    for k, model in ((keras, mine), (theirs, other)):
        rate = k.optimizers.schedules.ExponentialDecay(0.05, 10, 0.7) if name == "SGD" else 0.01
        model.compile(getattr(k.optimizers, name)(**{"learning_rate": rate, **settings}), "sparse_categorical_crossentropy", metrics=["accuracy"])
    a, b = _both(mine, other, x, y, batch_size=32, epochs=10)
    np.testing.assert_allclose(a["loss"], b["loss"], atol=1e-4)
    np.testing.assert_allclose(a["accuracy"], b["accuracy"], atol=0.01)


def _conv(k):
    i = k.Input((8, 8, 1))
    h = k.layers.Conv2D(6, 3, padding="same", use_bias=False, kernel_regularizer=k.regularizers.L2(0.01))(i)  # before a norm, Adam would amplify the noise of a bias
    h = k.layers.BatchNormalization(momentum=0.9)(h)
    h = k.layers.Activation("relu")(h)
    h = k.layers.MaxPooling2D()(h)
    skip = k.layers.Conv2D(6, 1)(h)
    h = k.layers.Add()([k.layers.DepthwiseConv2D(3, padding="same")(h), skip])
    h = k.layers.Dense(10, activation="relu", kernel_constraint=k.constraints.MaxNorm(1.5))(k.layers.Flatten()(h))
    return k.Model(i, k.layers.Dense(3, activation="softmax")(h))


def _text(k):
    layers = [k.Input((6,)), k.layers.Embedding(11, 5), k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=True)), k.layers.GRU(5), k.layers.Dense(3, activation="softmax")]
    return k.Sequential(layers)


@pytest.mark.parametrize("kind", ["conv", "text"])
def test_fifty_steps_of_networks(kind):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((80, 8, 8, 1)).astype("float32") if kind == "conv" else rng.integers(0, 11, (80, 6))
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 80)]
    mine, other = ((_conv if kind == "conv" else _text)(k) for k in (keras, theirs))
    for k, model in ((keras, mine), (theirs, other)):
        model.compile(k.optimizers.Adam(0.003), k.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy", "mse"])
    settings = {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}} if kind == "text" else {"validation_split": 0.2}
    a, b = _both(mine, other, x, y, batch_size=16, epochs=10, **settings)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-4 if "accuracy" not in key else 0.03, err_msg=key)
    np.testing.assert_allclose(mine.predict(x, verbose=0), other.predict(x, verbose=0), atol=2e-3)


def test_sample_weights_and_weighted_metrics():
    x, y = _data(96)
    w = np.random.default_rng(2).random(96).astype("float32")
    mine, other = _small(keras), _small(theirs)
    for model in (mine, other):
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], weighted_metrics=["sparse_categorical_accuracy"])
    a, b = _both(mine, other, x, y, batch_size=32, epochs=3, sample_weight=w)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-5, err_msg=key)
    np.testing.assert_allclose(mine.evaluate(x, y, verbose=0, sample_weight=w), other.evaluate(x, y, verbose=0, sample_weight=w), atol=1e-5)


def _two_outputs(k):
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    shared = k.layers.Dense(6, activation="relu", name="shared")
    h = k.layers.Concatenate()([shared(a), shared(b)])
    return k.Model([a, b], [k.layers.Dense(1, name="number")(h), k.layers.Dense(3, activation="softmax", name="kind")(h)])


def test_two_inputs_and_outputs():
    x, y = _data(96)
    mine, other = _two_outputs(keras), _two_outputs(theirs)
    for model in (mine, other):
        model.compile("adam", loss={"number": "mse", "kind": "sparse_categorical_crossentropy"}, loss_weights={"number": 0.3, "kind": 1.0}, metrics={"kind": ["accuracy"]})
    targets = {"number": x[:, :1], "kind": y}
    a, b = _both(mine, other, {"a": x, "b": x[::-1].copy()}, targets, batch_size=40, epochs=4)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", ["CosineDecay", "CosineDecayRestarts", "PolynomialDecay", "InverseTimeDecay", "PiecewiseConstantDecay"])
def test_schedules(name):
    settings = {
        "CosineDecay": {"initial_learning_rate": 0.1, "decay_steps": 8, "alpha": 0.1, "warmup_target": 0.3, "warmup_steps": 4},
        "CosineDecayRestarts": {"initial_learning_rate": 0.1, "first_decay_steps": 5, "m_mul": 0.9},
        "PolynomialDecay": {"initial_learning_rate": 0.1, "decay_steps": 7, "power": 2.0, "cycle": True},
        "InverseTimeDecay": {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True},
        "PiecewiseConstantDecay": {"boundaries": [3, 9], "values": [0.1, 0.03, 0.01]},
    }[name]
    mine, other = (getattr(k.optimizers.schedules, name)(**settings) for k in (keras, theirs))
    np.testing.assert_allclose([mine(k) for k in range(20)], [float(other(k)) for k in range(20)], rtol=1e-4, atol=1e-7)
