"""Who speaks? Kim's convolutional network tells Hamlet's lines from those of the others by their words. Not easy: naive Bayes is no better."""

import argparse
import re

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

# A speech is a name of one word and a full stop on a line of its own, then lines up to an empty one. Cut into pieces of 30 words.
length, pieces, labels = 30, [], []
for name, speech in re.findall(r"^([A-Z][a-z]+)\.\n(.+?)\n\n", data.load_hamlet(), re.M | re.S):
    speech = data.split_words(re.sub(r"\[.*?\]", " ", speech, flags=re.S))
    for k in range(0, len(speech), length):
        if len(speech[k : k + length]) >= 8:
            pieces.append(" ".join(speech[k : k + length]))
            labels.append(name == "Ham")
y = np.array(labels, np.int64)

fd.manual_seed(args.seed)
order = np.random.default_rng(args.seed).permutation(len(y))
test, train = order[: len(y) // 5], order[len(y) // 5 :]
if args.tiny:
    test, train, args.epochs = test[:50], train[:100], 1
vocabulary = data.Vocabulary([pieces[k] for k in train], min_count=2)
x = vocabulary.encode(pieces, length)
print(f"{len(train)} pieces to learn from, {len(test)} to test with, {len(vocabulary)} words; Hamlet's share {y[test].mean():.3f}")

model = models.TextCNN(len(vocabulary), 2, width=32, kernels=(1, 2, 3), channels=32, padding_idx=0)
optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)


@fd.compile
def step(words: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(words), labels)
    loss.backward()
    optimizer.step()
    return loss


for epoch in range(1, args.epochs + 1):
    model.train()
    losses = [step(words, labels).item() for words, labels in data.DataLoader((x[train], y[train]), 32, shuffle=True, drop_last=True, rng=epoch)]
    model.eval()
    with fd.no_grad():
        guesses = model(fd.asarray(x[test])).numpy().argmax(1)
    balanced = np.mean([np.mean(guesses[y[test] == c] == c) for c in (0, 1)])
    if epoch % max(1, args.epochs // 6) == 0:
        print(f"epoch {epoch:2}  loss {np.mean(losses):.4f}  test accuracy {np.mean(guesses == y[test]):.3f}, mean of both classes {balanced:.3f}", flush=True)
