"""The Keras-style front by itself: programs in the style of tutorials, the functional API, training from all sources, callbacks, files."""

from __future__ import annotations

import copy
import csv
import json
import pickle

import numpy as np
import pytest

import fastdl as fd
from fastdl import data, keras
from fastdl.keras import layers


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(1)


def digits(n=600):
    x, y = data.load_digits("train")
    return x[:n].transpose(0, 2, 3, 1), y[:n]


# ---- programs --------------------------------------------------------------------------------------------------------------------


def test_dense_digits_with_one_hot_labels():
    from fastdl.keras.layers import Dense
    from fastdl.keras.models import Sequential
    from fastdl.keras.utils import to_categorical

    images, labels = digits(1000)
    train_images, test_images = images[:800].reshape((800, 8 * 8)).astype("float32"), images[800:].reshape((200, 64))
    train_labels, test_labels = to_categorical(labels[:800]), to_categorical(labels[800:])
    network = Sequential()
    network.add(Dense(128, activation="relu", input_shape=(8 * 8,)))
    network.add(Dense(10, activation="softmax"))
    network.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
    network.fit(train_images, train_labels, epochs=12, batch_size=64, verbose=0)
    test_loss, test_acc = network.evaluate(test_images, test_labels, verbose=0)
    assert test_acc > 0.9 and test_loss < 0.5


def test_convolutional_digits():
    x, y = digits(1000)
    model = keras.Sequential(
        [
            layers.Conv2D(16, (3, 3), activation="relu", input_shape=(8, 8, 1)),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(16, (2, 2), activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.1),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(x[:800], y[:800], epochs=15, validation_data=(x[800:], y[800:]), verbose=0)
    assert history.history["val_accuracy"][-1] > 0.9
    assert model._steps["train"].programs >= 1 and model._steps["train"].reason is None
    assert model.predict(x[:7], verbose=0).shape == (7, 10)


def test_dense_net_with_adam_and_batch_size():
    x, y = digits(800)
    model = keras.Sequential([keras.Input(shape=(64,)), layers.Dense(64, activation="relu"), layers.Dense(32, activation="relu"), layers.Dense(10, activation="softmax")])
    model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.005), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x.reshape(-1, 64), y, batch_size=50, epochs=10, validation_split=0.25, verbose=0)
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"} and len(history.epoch) == 10
    assert history.history["accuracy"][-1] > 0.95


def test_xor_from_numpy():
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    y = np.array([[0], [1], [1], [0]])
    model = keras.models.Sequential()
    model.add(layers.Dense(8, input_dim=2, activation="tanh"))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.SGD(learning_rate=0.5, momentum=0.9), metrics=["accuracy"])
    model.fit(x, y, batch_size=4, epochs=200, verbose=0)
    assert (model.predict(x, verbose=0) > 0.5).astype(int).tolist() == y.tolist()
    assert model.evaluate(x, y, verbose=0)[1] == 1.0


def test_captured_and_eager_fit_give_the_same_numbers():
    x, y = digits(150)

    def run(eager):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten(), layers.Dropout(0.3), layers.Dense(10, activation="softmax")])
        rate = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.9)
        model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=eager)
        return model.fit(x, y, batch_size=64, epochs=5, verbose=0).history, model.get_weights()

    (a, wa), (b, wb) = run(False), run(True)
    assert a == b
    assert all(np.array_equal(u, v) for u, v in zip(wa, wb, strict=True))


def test_predict_is_captured_with_activity_penalties():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activity_regularizer="l1"), layers.Dense(1)])
    whole = model.predict(X, verbose=0)
    np.testing.assert_allclose(model.predict(X, batch_size=10, verbose=0), whole, rtol=1e-5, atol=1e-6)
    assert model._steps["predict"].programs == 1 and not model.losses


# ---- building ----------------------------------------------------------------------------------------------------------------------


def test_shapes_and_parameters_of_the_functional_api():
    image = keras.Input((None, None, 3), name="image")
    h = layers.Conv2D(4, 3, padding="same")(image)
    h = (h * 2 + h) / 3 - 1
    model = keras.Model(image, layers.GlobalAveragePooling2D()(h))
    assert h.shape == (None, None, None, 4) and model.output_shape == (None, 4)
    assert model.count_params() == 3 * 3 * 3 * 4 + 4
    for size in (5, 9):
        assert model(np.ones((2, size, size + 1, 3))).shape == (2, 4)


def test_nested_and_shared_models():
    encoder = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)], name="encoder")
    a, b = keras.Input((4,)), keras.Input((4,))
    distance = layers.Lambda(lambda v: fd.square(v[0] - v[1]).sum(axis=-1, keepdims=True))([encoder(a), encoder(b)])
    model = keras.Model([a, b], distance)
    assert len(model.weights) == 4  # the encoder's, once
    x = np.random.default_rng(0).random((6, 4)).astype("float32")
    assert not model.predict([x, x], verbose=0).any()
    model.compile("sgd", "mse")
    before = encoder.get_weights()
    model.fit([x, x[::-1].copy()], np.ones(6), epochs=1, verbose=0)
    assert any((u != v).any() for u, v in zip(before, encoder.get_weights(), strict=True))


def test_subclassed_model_with_modes_lists_and_added_losses():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [layers.Dense(8, activation="relu") for _ in range(2)]
            self.drop = layers.Dropout(0.5)
            self.out = layers.Dense(1)

        def call(self, x, training=False):
            for block in self.blocks:
                x = block(x)
            self.add_loss(0.01 * fd.square(x).mean())
            return self.out(self.drop(x, training=training))

    net = Net()
    x = np.ones((16, 3), "float32")
    net.compile("adam", "mse")
    history = net.fit(x, np.zeros(16), epochs=30, verbose=0).history["loss"]
    assert history[-1] < history[0] and len(net.weights) == 6
    with fd.no_grad():
        assert np.array_equal(net(x).numpy(), net.predict(x, verbose=0)) and not np.array_equal(net(x, training=True).numpy(), net(x).numpy())


def test_frozen_layers_stay():
    base = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.BatchNormalization()])
    base.trainable = False
    model = keras.Sequential([base, layers.Dense(2)])
    model.compile("adam", "mse")
    before = base.get_weights()
    model.fit(np.random.default_rng(0).random((32, 4)), np.zeros((32, 2)), epochs=2, verbose=0)
    assert all(np.array_equal(u, v) for u, v in zip(before, base.get_weights(), strict=True))
    assert len(model.trainable_weights) == 2 and len(model.non_trainable_weights) == 6


def test_constraints_and_regularizers():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_constraint=keras.constraints.NonNeg()), layers.Dense(2, kernel_constraint="unit_norm", kernel_regularizer=keras.regularizers.l1(0.1))])
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(0).standard_normal((64, 4)), np.ones((64, 2)), epochs=3, verbose=0)
    first, _, second, _ = model.get_weights()
    assert (first >= 0).all() and (first == 0).any()
    np.testing.assert_allclose(np.linalg.norm(second, axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(model.losses[0].item(), 0.1 * np.abs(second).sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "lecun_normal", "lecun_uniform"])
def test_initializers_have_their_variance(name):
    shape = (3, 3, 40, 80)
    fan = {"glorot": (9 * 40 + 9 * 80) / 2, "he": 9 * 40 / 2, "lecun": 9 * 40}[name.split("_")[0]]
    values = keras.initializers.get(name)(shape).numpy()
    np.testing.assert_allclose(values.var(), 1 / fan, rtol=0.03)
    q = keras.initializers.Orthogonal(seed=1)((6, 4)).numpy()
    np.testing.assert_allclose(q.T @ q, np.eye(4), atol=1e-5)


def test_recurrent_states_pass_from_encoder_to_decoder():
    steps = keras.Input((None, 3))
    _, h, c = layers.LSTM(5, return_state=True)(steps)
    start = keras.Input((None, 3))
    decoded = layers.LSTM(5, return_sequences=True)(start, initial_state=[h, c])
    model = keras.Model([steps, start], layers.TimeDistributed(layers.Dense(2))(decoded))
    assert model.output_shape == (None, None, 2)
    rng = np.random.default_rng(0)
    a, b = rng.random((4, 7, 3)), rng.random((4, 5, 3))
    assert model.predict([a, b], verbose=0).shape == (4, 5, 2)
    assert not np.allclose(model.predict([a, b], verbose=0), model.predict([2 * a, b], verbose=0))


def test_augmentation_changes_images_in_training_only():
    x = np.random.default_rng(0).random((8, 12, 10, 3)).astype("float32")
    for layer in (layers.RandomFlip(), layers.RandomTranslation(0.2, 0.2), layers.RandomRotation(0.1), layers.RandomZoom(0.3), layers.GaussianNoise(0.1)):
        assert np.array_equal(layer(x).numpy(), x)
        assert layer(x, training=True).shape == x.shape and not np.array_equal(layer(x, training=True).numpy(), x)
    turned = layers.RandomRotation((0.25, 0.25))(x[:, :10], training=True).numpy()
    np.testing.assert_allclose(turned, np.rot90(x[:, :10], 1, (1, 2)), atol=1e-4)
    moved = layers.RandomTranslation((0.25, 0.25), (-0.2, -0.2), fill_mode="wrap")(x, training=True).numpy()
    np.testing.assert_allclose(moved, np.roll(x, (3, -2), (1, 2)), atol=1e-5)
    flips = layers.RandomFlip("horizontal", seed=1)(x, training=True).numpy()
    assert {bool(np.array_equal(a, b[:, ::-1])) for a, b in zip(flips, x, strict=True)} == {True, False}


def test_summary_lists_layers(capsys):
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(10)])
    model.summary()
    text = capsys.readouterr().out
    assert "(None, 6, 6, 2)" in text and "Total params: 750" in text


# ---- sources -----------------------------------------------------------------------------------------------------------------------


def _model():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


X = np.random.default_rng(0).standard_normal((50, 2)).astype("float32")
Y = X.sum(1, keepdims=True)


class Pairs(keras.utils.Sequence):
    def __len__(self):
        return 5

    def __getitem__(self, k):
        return X[10 * k : 10 * k + 10], Y[10 * k : 10 * k + 10]


def test_all_sources_train_alike():
    def endless():
        while True:
            for k in range(5):
                yield X[10 * k : 10 * k + 10], Y[10 * k : 10 * k + 10]

    def run(source, **settings):
        model = _model()
        model.set_weights([np.ones((2, 1)) * 0.3, np.zeros(1)])
        model.fit(source, epochs=4, verbose=0, shuffle=False, **settings)
        return model.get_weights()[0], model.evaluate(X, Y, verbose=0)

    want = run(X, y=Y, batch_size=10)
    for got in (run(Pairs()), run(endless(), steps_per_epoch=5), run(data.DataLoader((X, Y), 10)), run(X, y=Y, batch_size=10, steps_per_epoch=5)):
        assert np.array_equal(got[0], want[0]) and got[1] == want[1]


def test_single_batches():
    model = _model()
    first = model.train_on_batch(X, Y)
    for _ in range(30):
        last = model.train_on_batch(X, Y, return_dict=True)
    assert last["loss"] < first[0] and model.test_on_batch(X, Y)[0] < last["loss"]
    assert np.array_equal(model.predict_on_batch(X), model.predict(X, batch_size=7, verbose=0))


def test_initial_epoch_and_progress_lines(capsys):
    history = _model().fit(X, Y, epochs=5, initial_epoch=3, verbose=2, batch_size=20, validation_split=0.2)
    text = capsys.readouterr().out.splitlines()
    assert history.epoch == [3, 4] and text[0] == "Epoch 4/5" and text[1].startswith("2/2 ") and "val_loss: " in text[1] and len(text) == 4


def test_metrics_of_users():
    class Largest(keras.metrics.Metric):
        def __init__(self):
            super().__init__("largest")
            self.top = self.add_weight()

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.top.assign(max(float(self.top), float(abs(y_true - y_pred).max())))

        def result(self):
            return float(self.top)

    def off_by(y_true, y_pred):
        return abs(y_true - y_pred).mean(axis=-1)

    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", lambda t, p: fd.square(t - p), metrics=[Largest(), off_by, "mae"])
    logs = model.evaluate(X, Y, verbose=0, return_dict=True)
    error = np.abs(model.predict(X, verbose=0) - Y)
    np.testing.assert_allclose([logs["largest"], logs["off_by"], logs["mae"], logs["loss"]], [error.max(), error.mean(), error.mean(), (error**2).mean()], rtol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda m: m.fit(X[:, :1], Y, verbose=0), "need (None, 2)"),
        (lambda m: m.fit(X, Y[:7], verbose=0), "same number of rows"),
        (lambda m: m.fit(X, np.ones((50, 3)), verbose=0), "need equal shapes"),
        (lambda m: m.compile("adamm", "mse"), "optimizer 'adamm' is unknown"),
        (lambda m: m.compile("adam", "msee"), None),
        (lambda m: keras.Sequential([layers.Dense(2)]).fit(X, Y), "compile() first"),
        (lambda m: m.fit(X, Y, validation_split=1.5), "between 0 and 1"),
        (lambda m: layers.Dense(0), "positive integer"),
        (lambda m: (setattr(m, "trainable", False), m.fit(X, Y, verbose=0)), "no weight is trainable"),
        (lambda m: layers.Embedding(3, 2, mask_zero=True), "mask_zero"),
        (lambda m: m.set_weights([np.ones((2, 1))]), "has 2 weights"),
        (lambda m: layers.Conv2D(2, 3, data_format="channels_first"), "channels_last"),
    ],
)
def test_errors_teach(wrong, text):
    model = _model()
    with pytest.raises(ValueError) as caught:
        wrong(model)
        model.fit(X, Y, verbose=0)
    assert (text or "'msee' is unknown") in str(caught.value)


# ---- callbacks ---------------------------------------------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_weights():
    model = _model()
    seen = []
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=2, restore_best_weights=True)
    spy = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: (seen.append(model.get_weights()), setattr(model.optimizer, "learning_rate", 0.1 if epoch < 3 else 3.0)))
    history = model.fit(X, Y, epochs=50, verbose=0, callbacks=[spy, stop], shuffle=False)
    losses = history.history["loss"]
    assert len(losses) == int(np.argmin(losses)) + 3 < 50
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), seen[int(np.argmin(losses))], strict=True))


def test_learning_rates_of_callbacks():
    model = _model()
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    assert model.fit(X, Y, epochs=3, verbose=0, callbacks=[schedule]).history["learning_rate"] == [0.05, 0.025, 0.0125]
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=2, min_delta=10.0)
    model.optimizer.learning_rate = 0.01
    rates = model.fit(X, Y, epochs=6, verbose=0, callbacks=[plateau]).history["learning_rate"]
    np.testing.assert_allclose(rates, [0.01, 0.01, 0.01, 0.001, 0.001, 0.0001], rtol=1e-6)


def test_files_of_callbacks(tmp_path):
    model = _model()
    log, board = tmp_path / "log.csv", tmp_path / "board"
    calls = [keras.callbacks.CSVLogger(log), keras.callbacks.ModelCheckpoint(tmp_path / "m-{epoch:02d}-{loss:.2f}.keras"),
             keras.callbacks.ModelCheckpoint(tmp_path / "best.safetensors", monitor="loss", save_best_only=True, save_weights_only=True)]  # fmt: skip
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=calls).history
    rows = list(csv.DictReader(log.open()))
    assert [float(r["loss"]) for r in rows] == history["loss"] and [r["epoch"] for r in rows] == ["0", "1", "2"]
    assert len(list(tmp_path.glob("m-0?-*.keras"))) == 3
    other = _model()
    other.load_weights(tmp_path / "best.safetensors")
    assert np.array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))
    pytest.importorskip("tensorboardX")
    model.fit(X, Y, epochs=2, verbose=0, validation_split=0.2, callbacks=[keras.callbacks.TensorBoard(board, histogram_freq=1)])
    from fastdl.visual.tensorboard import read_events

    train, held = (read_events(next((board / part).iterdir())) for part in ("train", "validation"))
    assert len(train["epoch_loss"]) == 2 and "epoch_mae" in held


def test_order_of_events_and_terminate_on_nan():
    events = []
    names = ["train_begin", "epoch_begin", "train_batch_begin", "train_batch_end", "test_begin", "test_batch_end", "test_end", "epoch_end", "train_end"]
    spy = keras.callbacks.LambdaCallback(**{f"on_{n}": lambda *a, n=n: events.append(n) for n in names})
    _model().fit(X[:20], Y[:20], batch_size=10, verbose=0, validation_data=(X[:5], Y[:5]), callbacks=[spy])
    batch = ["train_batch_begin", "train_batch_end"]
    assert events == ["train_begin", "epoch_begin", *batch, *batch, "test_begin", "test_batch_end", "test_end", "epoch_end", "train_end"]
    model = _model()
    bad = X.copy()
    bad[25] = np.nan
    history = model.fit(bad, Y, batch_size=10, epochs=5, verbose=0, shuffle=False, callbacks=[keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) == 1 and model.optimizer.iterations == 3


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_train_by_themselves(how):
    model = _model()
    model.fit(X, Y, epochs=3, verbose=0)
    before = model.get_weights()
    other = how(model)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))
    other.fit(X, Y, epochs=1, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not np.array_equal(before[0], other.get_weights()[0])


# ---- files -------------------------------------------------------------------------------------------------------------------------


def _functional():
    a, b = keras.Input((8, 8, 1), name="a"), keras.Input((3,), name="b")
    h = layers.Conv2D(3, 3, activation=keras.activations.relu, kernel_regularizer=keras.regularizers.L2(0.1))(a)
    h = layers.BatchNormalization()(h)
    h = layers.Concatenate()([layers.Flatten()(h), layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(seed=3))(b) * 0.5])
    inner = keras.Sequential([keras.Input((112,)), layers.Dense(5, kernel_constraint=keras.constraints.MaxNorm(2.0))], name="inner")
    return keras.Model({"a": a, "b": b}, {"out": layers.Dense(2, activation="softmax")(inner(h))}, name="net")


def test_models_go_through_files_and_train_on_exactly(tmp_path):
    rng = np.random.default_rng(0)
    x = {"a": rng.random((20, 8, 8, 1)).astype("float32"), "b": rng.random((20, 3)).astype("float32")}
    y = {"out": np.eye(2, dtype="float32")[rng.integers(0, 2, 20)]}
    model = _functional()
    model.compile(keras.optimizers.Adam(0.01, clipnorm=1.0), {"out": keras.losses.CategoricalCrossentropy(label_smoothing=0.1)}, metrics=["accuracy"])
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    path = tmp_path / "net.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert [w.path for w in loaded.weights] == [w.path for w in model.weights]
    assert np.array_equal(loaded.predict(x, verbose=0)["out"], model.predict(x, verbose=0)["out"])
    assert loaded.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    for m in (model, loaded):  # the optimiser's state came along
        m.fit(x, y, epochs=2, verbose=0, shuffle=False)
    assert np.array_equal(loaded.predict(x, verbose=0)["out"], model.predict(x, verbose=0)["out"])
    with pytest.raises(ValueError):
        model.save(path, overwrite=False)


@pytest.mark.parametrize("layer", [layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.TimeDistributed(layers.Dense(3)), layers.GRU(4), layers.Conv1D(3, 2, padding="causal")])
def test_sequence_layers_go_through_files(layer, tmp_path):
    model = keras.Sequential([keras.Input((5, 2)), layer, layers.Flatten()])
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).random((3, 5, 2)).astype("float32")
    assert np.array_equal(keras.models.load_model(tmp_path / "m.keras").predict(x, verbose=0), model.predict(x, verbose=0))


def test_configurations_and_custom_layers(tmp_path):
    class Power(layers.Layer):
        def __init__(self, exponent, **kwargs):
            super().__init__(**kwargs)
            self.exponent = exponent

        def call(self, x):
            return x**self.exponent

    model = keras.Sequential([keras.Input((3,)), Power(2, name="square"), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="Power"):
        keras.models.load_model(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras", custom_objects={"Power": Power})
    assert loaded.get_layer("square").exponent == 2
    config = layers.Conv2D(3, (2, 2), name="c").get_config()
    json.dumps(config)
    assert layers.Conv2D.from_config(config).get_config() == config
    clone = keras.models.clone_model(keras.models.model_from_json(_functional().to_json()))
    assert [w.shape for w in clone.weights] == [w.shape for w in _functional().weights]


def test_broken_files_are_named_errors(tmp_path):
    model = _model()
    path = tmp_path / "m.keras"
    model.save(path)
    content = path.read_bytes()
    for cut in (0, 5, 40, len(content) // 2):
        path.write_bytes(content[:cut])
        with pytest.raises(fd.FormatError):
            keras.models.load_model(path)
    model.save_weights(path)
    with pytest.raises(fd.FormatError, match="load_weights"):
        keras.models.load_model(path)
    fd.save({"w": fd.ones(3)}, path)
    with pytest.raises(fd.FormatError):
        model.load_weights(path)
    other = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    other.save_weights(path)
    before = model.get_weights()
    with pytest.raises(ValueError, match="shape"):
        model.load_weights(path)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("name", ["LSTM", "SimpleRNN", "GRU"])
def test_initial_states_broadcast_over_the_batch(name):
    layer, x = getattr(layers, name)(3, return_sequences=True), fd.ones((4, 5, 2))
    one = [fd.full((1, 3), 0.5, requires_grad=True) for _ in range(2 if name == "LSTM" else 1)]
    many = [fd.full((4, 3), 0.5, requires_grad=True) for _ in one]
    a, b = layer(x, initial_state=one), layer(x, initial_state=many)
    assert (a == b).all()
    a.sum().backward()
    b.sum().backward()
    for s, t in zip(one, many):
        np.testing.assert_allclose(s.grad.numpy(), t.grad.numpy().sum(0, keepdims=True), rtol=1e-5)
    with pytest.raises(fd.ShapeError):
        layer(x, initial_state=[fd.ones((3, 3)) for _ in one])
    assert layer(x[:1], initial_state=many).shape == (4, 5, 3)
    model = keras.Model(start := keras.Input((5, 2)), layer(start, initial_state=[np.zeros((4, 3), "f") for _ in one]))
    assert model(np.ones((4, 5, 2), "f")).shape == (4, 5, 3)
