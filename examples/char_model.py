"""The next letter of Hamlet from the three before it: an embedding, a dense layer, and a line in the Bard's manner."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
steps = 100 if args.tiny else args.steps
context = 3

text = data.load_hamlet()
letters = sorted(set(text))
codes = np.array([letters.index(c) for c in text[: 20_000 if args.tiny else None]])
windows = np.lib.stride_tricks.sliding_window_view(codes, context + 1)

fd.manual_seed(0)
rng = np.random.default_rng(0)
model = nn.Sequential(
    nn.Embedding(len(letters), 16), nn.Flatten(), nn.Linear(16 * context, 128), nn.Tanh(), nn.Linear(128, len(letters))
)
optimizer = optim.Adam(model.parameters(), lr=3e-3)
for step in range(1, steps + 1):
    batch = fd.asarray(windows[rng.integers(0, len(windows), 128)])
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(batch[:, :-1]), batch[:, -1])
    loss.backward()
    optimizer.step()
    if step % (steps // 10) == 0:
        print(f"step {step:5}  loss {loss.item():.3f}  ({loss.item() / np.log(2):.2f} bits per letter)")

line = "The"
with fd.no_grad():
    for _ in range(120):
        recent = fd.array([[letters.index(c) for c in line[-context:]]])
        chances = fd.softmax(model(recent), axis=-1).numpy()[0].astype(np.float64)
        line += letters[rng.choice(len(letters), p=chances / chances.sum())]
print(line)
