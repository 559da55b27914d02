"""Preprocessing, and data sets on small files in the official formats."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import fastdl as fd
from fastdl import keras
from fastdl.keras.preprocessing.image import ImageDataGenerator
from fastdl.keras.preprocessing.sequence import pad_sequences
from fastdl.keras.preprocessing.text import Tokenizer, tokenizer_from_json


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDL_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def _idx(path, array):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes())


RNG = np.random.default_rng(0)
IMAGES = {"train": RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), "t10k": RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8)}
LABELS = {"train": np.arange(6, dtype=np.uint8), "t10k": np.arange(3, dtype=np.uint8)}


@pytest.mark.parametrize(("name", "folder"), [("mnist", "mnist"), ("fashion_mnist", "fashion-mnist")])
def test_idx_files(root, name, folder):
    for part in IMAGES:
        _idx(root / folder / f"{part}-images-idx3-ubyte", IMAGES[part])
        _idx(root / folder / f"{part}-labels-idx1-ubyte", LABELS[part])
    (x, y), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    assert x.dtype == np.uint8 and np.array_equal(x, IMAGES["train"]) and np.array_equal(y, LABELS["train"])
    assert np.array_equal(x_test, IMAGES["t10k"]) and np.array_equal(y_test, LABELS["t10k"])


def test_mnist_npz_and_its_absence(root):
    with pytest.raises(FileNotFoundError, match=r"mnist\.npz.*does not download"):
        keras.datasets.mnist.load_data()
    np.savez(root / "mnist.npz", x_train=IMAGES["train"], y_train=LABELS["train"], x_test=IMAGES["t10k"], y_test=LABELS["t10k"])
    (x, _), (_, y_test) = keras.datasets.mnist.load_data()
    assert np.array_equal(x, IMAGES["train"]) and np.array_equal(y_test, LABELS["t10k"])
    np.savez(root / "mnist.npz", x_train=IMAGES["train"])
    with pytest.raises(fd.FormatError, match="y_train"):
        keras.datasets.mnist.load_data()


def test_fashion_part_says_so(root):
    with pytest.warns(fd.FastdlWarning, match=r"5,000 \+ 1,000"):
        (x, y), (x_test, _) = keras.datasets.fashion_mnist.load_data()
    assert x.shape == (5000, 28, 28) and x.dtype == y.dtype == np.uint8 and x_test.shape == (1000, 28, 28)


def test_cifar10(root):
    with pytest.raises(FileNotFoundError, match="cifar-10-batches-bin"):
        keras.datasets.cifar10.load_data()
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    records = RNG.integers(0, 10, (4, 3073), dtype=np.uint8)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        records.tofile(folder / name)
    (x, y), (x_test, y_test) = keras.datasets.cifar10.load_data()
    assert x.shape == (8, 32, 32, 3) and y.shape == (8, 1) and x_test.shape == (4, 32, 32, 3) and y_test.shape == (4, 1)
    assert x[1, 2, 3, 2] == records[1, 1 + 2 * 1024 + 2 * 32 + 3] and y[1, 0] == records[1, 0]


def test_imdb(root):
    with pytest.raises(FileNotFoundError, match="aclImdb"):
        keras.datasets.imdb.load_data()
    texts = {"pos/0_9.txt": "Good, good film.", "neg/0_2.txt": "A bad film"}
    for split in ("train", "test"):
        for name, text in texts.items():
            file = root / "aclImdb" / split / name
            file.parent.mkdir(parents=True)
            file.write_text(text)
    index = keras.datasets.imdb.get_word_index()
    assert sorted(index.values()) == [1, 2, 3, 4] and index["film"] < index["bad"] and index["good"] < index["bad"]
    (x, y), _ = keras.datasets.imdb.load_data()
    words = {k + 3: w for w, k in index.items()}
    assert {(label, " ".join(words[k] for k in row[1:])) for row, label in zip(x, y, strict=True)} == {(1, "good good film"), (0, "a bad film")}
    assert all(row[0] == 1 for row in x)
    (x, _), _ = keras.datasets.imdb.load_data(num_words=6)
    assert max(k for row in x for k in row) < 6 and sum(k == 2 for row in x for k in row) == 2
    (x, _), _ = keras.datasets.imdb.load_data(maxlen=4)
    assert len(x) == 0


def test_pad_sequences():
    rows = [[1, 2, 3], [4], []]
    assert pad_sequences(rows).tolist() == [[1, 2, 3], [0, 0, 4], [0, 0, 0]]
    assert pad_sequences(rows, 2, padding="post", truncating="post", value=9).tolist() == [[1, 2], [4, 9], [9, 9]]
    assert pad_sequences([[[1, 2]], [[3, 4], [5, 6]]], dtype="float32").tolist() == [[[0, 0], [1, 2]], [[3, 4], [5, 6]]]
    with pytest.raises(ValueError, match="'pre' or 'post'"):
        pad_sequences(rows, padding="left")


def test_tokenizer():
    t = Tokenizer(num_words=4)
    t.fit_on_texts(["The cat sat.", "The cat, the dog!"])
    assert t.word_index == {"the": 1, "cat": 2, "sat": 3, "dog": 4} and t.document_count == 2
    assert t.texts_to_sequences(["the DOG sat", "bird"]) == [[1, 3], []]
    assert t.sequences_to_texts([[1, 2, 0]]) == ["the cat"]
    assert t.texts_to_matrix(["the the cat"], "count").tolist() == [[0, 2, 1, 0]]
    np.testing.assert_allclose(t.texts_to_matrix(["the the cat"], "freq"), [[0, 2 / 3, 1 / 3, 0]])
    np.testing.assert_allclose(t.texts_to_matrix(["the the sat"], "tfidf"), [[0, (1 + np.log(2)) * np.log(1 + 2 / 3), 0, np.log(2)]])
    again = tokenizer_from_json(t.to_json())
    assert again.word_index == t.word_index and again.texts_to_sequences(["the dog"]) == t.texts_to_sequences(["the dog"])
    chars = Tokenizer(char_level=True, oov_token="?")
    chars.fit_on_texts(["aab"])
    assert chars.texts_to_sequences(["abc"]) == [[2, 3, 1]]


def test_generator_of_images_is_affine():
    x = RNG.random((5, 9, 9, 2)).astype("float32")
    rotated = ImageDataGenerator(rotation_range=30).random_transform(x[0], seed=3)
    scipy = pytest.importorskip("scipy.ndimage")
    angle = np.deg2rad(np.random.default_rng(3).uniform(-np.deg2rad(30), np.deg2rad(30), 1)[0] * 180 / np.pi)
    m = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    want = np.stack([scipy.affine_transform(x[0, ..., c], m, [4, 4] - m @ [4, 4], order=1, mode="nearest") for c in range(2)], -1)
    np.testing.assert_allclose(rotated, want, atol=1e-5)
    plain = ImageDataGenerator().random_transform(x[0])
    assert np.array_equal(plain, x[0])
    shifted = ImageDataGenerator(height_shift_range=2, width_shift_range=0.3, shear_range=10, zoom_range=0.2, fill_mode="constant", cval=7.0).random_transform(x[0], seed=1)
    assert shifted.shape == x[0].shape and not np.array_equal(shifted, x[0])


def test_generator_standardizes_and_flows():
    x = RNG.random((20, 6, 6, 3)).astype("float32") * 255
    y = np.arange(20)
    g = ImageDataGenerator(featurewise_center=True, featurewise_std_normalization=True)
    with pytest.raises(ValueError, match="call fit"):
        g.standardize(x)
    g.fit(x)
    np.testing.assert_allclose(g.standardize(x).mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(g.standardize(x).std((0, 1, 2)), 1, atol=1e-4)
    flow = ImageDataGenerator(rescale=1 / 255, horizontal_flip=True, validation_split=0.25)
    parts = {s: flow.flow(x, y, batch_size=4, subset=s, seed=0) for s in ("training", "validation")}
    seen = {s: sorted(int(k) for _ in range(len(f)) for k in next(f)[1]) for s, f in parts.items()}
    assert seen == {"training": list(range(5, 20)), "validation": list(range(5))}
    batch, labels = next(parts["training"])
    flipped = {bool(np.allclose(a, x[k] / 255, atol=1e-6)) for a, k in zip(batch, labels, strict=True)}
    assert flipped <= {True, False} and all(
        np.allclose(a, x[k] / 255, atol=1e-6) or np.allclose(a, x[k][:, ::-1] / 255, atol=1e-6) for a, k in zip(batch, labels, strict=True)
    )
    np.testing.assert_array_equal(*(next(flow.flow(x, y, seed=5))[0] for _ in range(2)))


def test_fit_on_a_generator_of_images():
    keras.utils.set_random_seed(0)
    x = np.concatenate([np.zeros((20, 8, 8, 1)), np.ones((20, 8, 8, 1))]).astype("float32")
    y = np.repeat([0, 1], 20)
    g = ImageDataGenerator(width_shift_range=0.2, height_shift_range=0.2, brightness_range=(0.8, 1.2))
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(g.flow(x, y, batch_size=8), epochs=25, verbose=0)
    assert history.history["accuracy"][-1] > 0.95


def test_small_helpers():
    assert keras.utils.to_categorical([[1], [0]]).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="need 0 to 1"):
        keras.utils.to_categorical([2], 2)
    np.testing.assert_allclose(np.linalg.norm(keras.utils.normalize(RNG.random((3, 4))), axis=1), 1)
    keras.utils.set_random_seed(5)
    a = fd.random.uniform(3).tolist(), np.random.rand()  # noqa: NPY002
    keras.utils.set_random_seed(5)
    assert a == (fd.random.uniform(3).tolist(), np.random.rand())  # noqa: NPY002
