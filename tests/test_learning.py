"""Networks learn what they must: XOR from any seed, digits, moons."""

from __future__ import annotations

import numpy as np
import pytest

import fastdl as fd
from fastdl import data, nn, optim
from fastdl.nn import functional as F


def learn_xor(seed: int, steps: int = 1000) -> bool:
    """XOR with a 2-4-1 sigmoid network, from any seed.

    Two things keep every start off the plateau on which one corner is given up for good: inputs of -1 and 1, not 0 and 1, and
    hidden weights that are orthogonal (gain 2), so that the four units look in different directions. Momentum does the rest.
    """
    fd.manual_seed(seed)
    x, y = data.make_xor()
    inputs, targets = fd.asarray(2 * x - 1), fd.asarray(y.astype(np.float32).reshape(4, 1))
    net = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())
    nn.init.orthogonal_(net[0].weight, gain=2.0)
    nn.init.xavier_normal_(net[2].weight)
    nn.init.zeros_(net[0].bias)
    nn.init.zeros_(net[2].bias)
    optimizer = optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        F.binary_cross_entropy(net(inputs), targets).backward()
        optimizer.step()
    with fd.no_grad():
        return bool((abs(net(inputs) - targets) < 0.2).all())


@pytest.mark.parametrize("first", range(0, 100, 10))
def test_xor_from_every_seed(first: int) -> None:
    assert [seed for seed in range(first, first + 10) if not learn_xor(seed)] == []


def test_digits_mlp() -> None:
    fd.manual_seed(0)
    (x, y), (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    loader = data.DataLoader((x, y), 64, shuffle=True, rng=0)
    for _ in range(30):
        for xb, yb in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(xb), yb).backward()
            optimizer.step()
    with fd.no_grad():
        accuracy = (net(fd.asarray(x_test)).argmax(axis=1) == fd.asarray(y_test)).astype(fd.float32).mean().item()
    assert accuracy >= 0.97


def test_digits_cnn_with_everything() -> None:
    """Convolution, batch norm, pooling, dropout, augmentation, AdamW, a schedule and clipping in one run."""
    fd.manual_seed(0)
    (x, y), (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 10),
    )
    optimizer = optim.AdamW(net.parameters(), lr=0.01)
    loader = data.DataLoader((x, y), 64, shuffle=True, transform=data.RandomShift(1), num_workers=1, rng=0)
    schedule = optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=12 * len(loader) + 1)
    for _ in range(12):
        for xb, yb in loader:
            optimizer.zero_grad()
            F.cross_entropy(net(xb), yb, label_smoothing=0.05).backward()
            optim.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    net.eval()
    with fd.no_grad():
        accuracy = float(np.mean(net(fd.asarray(x_test)).numpy().argmax(1) == y_test))
    assert accuracy >= 0.97


def test_moons_and_spirals() -> None:
    for make, classes, needed in ((data.make_moons, 2, 0.97), (data.make_spirals, 3, 0.97)):
        fd.manual_seed(1)
        x, y = make(300, rng=0)
        net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, classes))
        optimizer = optim.Adam(net.parameters(), lr=0.01)
        inputs, labels = fd.asarray(x), fd.asarray(y)
        for _ in range(600):
            optimizer.zero_grad()
            F.cross_entropy(net(inputs), labels).backward()
            optimizer.step()
        with fd.no_grad():
            assert float(np.mean(net(inputs).numpy().argmax(1) == y)) >= needed
