"""Hamlet, letter by letter, by an LSTM or GRU that carries its state along: trained on the first nine tenths, tested on the rest."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--cell", choices=["lstm", "gru"], default="lstm")
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--hidden", type=int, default=256)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

text, batch, length = data.load_hamlet(), 32, 64
if args.tiny:
    text, args.epochs, args.hidden, length = text[:12_000], 1, 16, 32
letters = sorted(set(text))
codes = np.array([letters.index(c) for c in text])
train, test = np.split(codes, [9 * len(codes) // 10])


def rows(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and next letters (steps, batch, length): each row of a batch goes on where the last left off."""
    steps = (len(codes) - 1) // (batch * length)
    cut = [c[: batch * steps * length].reshape(batch, steps, length).swapaxes(0, 1) for c in (codes[:-1], codes[1:])]
    return np.ascontiguousarray(cut[0]), np.ascontiguousarray(cut[1])


fd.manual_seed(args.seed)
model = models.RecurrentLM(len(letters), 64, args.hidden, cell=args.cell, dropout=0.2)
inputs, targets = rows(train)
optimizer = optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
schedule = optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(inputs))
zero = fd.zeros((1, batch, args.hidden))
start_state = (zero, zero) if args.cell == "lstm" else zero


def detached(state: object) -> object:
    return tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor, state: object) -> tuple[fd.Tensor, object]:
    optimizer.zero_grad()
    scores, state = model(x, state)
    loss = nn.functional.cross_entropy(scores.reshape(-1, len(letters)), y.reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach(), detached(state)


def bits(codes: np.ndarray) -> float:
    """Mean of -log2 p(next letter), reading from the beginning."""
    model.eval()
    with fd.no_grad():
        scores, _ = model(fd.asarray(codes[None, :-1]))
        loss = nn.functional.cross_entropy(scores[0], fd.asarray(codes[1:])).item()
    model.train()
    return loss / np.log(2)


began = time.perf_counter()
for epoch in range(1, args.epochs + 1):
    state, losses = start_state, []
    for x, y in zip(inputs, targets, strict=True):
        loss, state = step(x, y, state)
        losses.append(loss.item())
        schedule.step()
    seconds = time.perf_counter() - began
    print(f"epoch {epoch:2}  {np.mean(losses) / np.log(2):.3f} bits per letter, test {bits(test):.3f}  {seconds:.0f} s", flush=True)

prompt = [letters.index(c) for c in "\nHam.\n"]
print("".join(letters[k] for k in model.generate(prompt, 40 if args.tiny else 300, 0.7, rng=args.seed)))
