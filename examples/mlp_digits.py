"""Handwritten digits of 8x8 pixels with two dense layers, loaders and a learning-rate schedule."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
epochs = 2 if args.tiny else args.epochs

fd.manual_seed(0)
train, (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
loader = data.DataLoader(train, 32, shuffle=True, rng=0)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
optimizer = optim.AdamW(model.parameters(), lr=3e-3)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))

for epoch in range(1, epochs + 1):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with fd.no_grad():
        guesses = model(fd.asarray(x_test)).numpy().argmax(1)
    print(f"epoch {epoch:2}  loss {loss.item():.4f}  test accuracy {np.mean(guesses == y_test):.4f}")
