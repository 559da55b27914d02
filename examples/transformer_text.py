"""Two small Transformers on the letters of Hamlet: one goes on with a text (GPT), one fills in hidden letters (masked prediction)."""

import argparse
import time

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", choices=["gpt", "masked"], default="gpt")
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

text, context, width, depth, batch = data.load_hamlet(), 64, 128, 3, 32
if args.tiny:
    text, context, width, depth, args.steps = text[:12_000], 32, 16, 1, 10
letters = sorted(set(text))
codes = np.array([letters.index(c) for c in text])
train, test = np.split(codes, [9 * len(codes) // 10])
rng = np.random.default_rng(args.seed)
mask = len(letters)  # one more token: "hidden"

fd.manual_seed(args.seed)
kind = models.GPT if args.model == "gpt" else models.MaskedTransformer
model = kind(len(letters) + 1, context, width, depth, heads=4, dropout=0.1)
optimizer = optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, betas=(0.9, 0.98))
schedule = optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.steps + 1, pct_start=0.1)
print(f"{args.model}: {sum(p.size for p in model.parameters())} parameters")


def windows(source: np.ndarray, starts: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets (N, context): the next letter, or the hidden ones (-100 elsewhere)."""
    rows = source[starts[:, None] + np.arange(context + 1)]
    return (rows[:, :-1].copy(), rows[:, 1:].copy()) if args.model == "gpt" else models.mask_tokens(rows[:, :-1], mask, rng=rng)


def loss_of(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    return nn.functional.cross_entropy(model(x).reshape(-1, len(letters) + 1), y.reshape(-1))


@fd.compile
def step(x: fd.Tensor, y: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = loss_of(x, y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def bits() -> float:
    """Mean of -log2 p(right letter) in the held-back text."""
    model.eval()
    starts = np.arange(0, len(test) - context - 1, context)
    with fd.no_grad():
        x, y = windows(test, starts, np.random.default_rng(1))
        loss = np.mean([loss_of(fd.asarray(x[k : k + 8]), fd.asarray(y[k : k + 8])).item() for k in range(0, len(x) - 7, 8)])
    model.train()
    return float(loss / np.log(2))


began, losses = time.perf_counter(), []
for k in range(1, args.steps + 1):
    losses.append(step(*windows(train, rng.integers(0, len(train) - context, batch), rng)).item())
    schedule.step()
    if k % (args.steps // 5) == 0:
        recent = np.mean(losses[-args.steps // 5 :]) / np.log(2)
        print(f"step {k:5}  {recent:.3f} bits per letter, test {bits():.3f}  {time.perf_counter() - began:.0f} s", flush=True)

if args.model == "gpt":
    print("".join((*letters, "?")[c] for c in model.generate(train[:20], 40 if args.tiny else 200, 0.7, rng=args.seed)))
else:
    whole = test[: len(test) // context * context].reshape(-1, context)
    x = whole.copy()
    x[:, 5::9] = mask  # every ninth letter
    with fd.no_grad():
        found = np.concatenate([model.eval()(fd.asarray(x[k : k + 8])).numpy().argmax(-1) for k in range(0, len(x), 8)])
    for row in (x[0], np.where(x == mask, found, x)[0], whole[0]):
        print("".join((*letters, "_")[c] for c in row).replace("\n", "/"))
    print(f"hidden letters that were guessed: {np.mean(found[x == mask] == whole[x == mask]):.2f}")
