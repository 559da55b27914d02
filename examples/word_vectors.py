"""Word vectors from Hamlet: skip-gram with negative sampling. Words that keep the same company get similar vectors."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, models, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--width", type=int, default=48)
parser.add_argument("--window", type=int, default=4, help="how far neighbours may be")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
rng = np.random.default_rng(args.seed)
text = data.load_hamlet()
if args.tiny:
    text, args.epochs, args.width = text[:20_000], 1, 16
vocabulary = data.Vocabulary([text], min_count=3)
words = vocabulary.numbers(text)
counts = np.array(vocabulary.counts, float)
print(f"{len(words)} words, {len(vocabulary)} different ones that occur three times or more")

# Frequent words say little about their neighbours: most are left out. Random words come by frequency to the power 3/4, both as in the
# paper (Mikolov et al., 2013). Numbers 0 and 1, the filler and the rare words, never take part.
share = counts / counts.sum()
keep = np.minimum(1, np.sqrt(1e-3 / np.maximum(share, 1e-9)))
keep[:2], noise = 0, counts**0.75
noise[:2] = 0
noise /= noise.sum()

model = models.SkipGram(len(vocabulary), args.width)
optimizer = optim.Adam(model.parameters(), lr=2e-3)


@fd.compile
def step(word: fd.Tensor, neighbour: fd.Tensor, others: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = model(word, neighbour, others)
    loss.backward()
    optimizer.step()
    return loss


for epoch in range(1, args.epochs + 1):
    kept = words[rng.random(len(words)) < keep[words]]
    pairs = np.concatenate([np.stack([kept[d:], kept[:-d]], 1) for d in range(1, args.window + 1)])
    pairs = rng.permutation(np.concatenate([pairs, pairs[:, ::-1]]))
    losses = []
    for k in range(0, len(pairs) - 511, 512):
        batch = pairs[k : k + 512]
        losses.append(step(batch[:, 0].copy(), batch[:, 1].copy(), rng.choice(len(vocabulary), (512, 5), p=noise)).item())
    if epoch % max(1, args.epochs // 5) == 0:
        print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}", flush=True)

for word in ("king", "mother", "death", "night", "hamlet", "love"):
    if vocabulary[word] > 1:
        print(f"{word:7} {', '.join(vocabulary.words[k] for k in model.nearest(vocabulary[word], 6))}")
