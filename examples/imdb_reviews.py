"""Is a film review good or bad? Reads the official folder `aclImdb`; without one, it writes made-up reviews in the same layout."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, models, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--folder", type=Path, help="aclImdb, or the folder above it")
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--limit", type=int, help="at most so many reviews of each class")
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()


def make_up(folder: Path, count: int) -> Path:
    """Reviews of mostly neutral words with five opinions, each right four times in five; some are turned round by "not".

    Who understands "not" and counts opinions is right in 94 of 100 reviews; no one can do better.
    """
    rng = np.random.default_rng(0)
    words = {
        "pos": "moving superb warm clever gripping".split(),
        "neg": "dull clumsy lifeless tired silly".split(),
        "any": "the plot a film its actors scenes and music with of camera story ending was it in long first".split(),
    }
    for split in ("train", "test"):
        for label, other in (("pos", "neg"), ("neg", "pos")):
            (folder / split / label).mkdir(parents=True)
            for k in range(count):
                text = list(rng.choice(words["any"], rng.integers(20, 60)))
                for place in rng.choice(len(text), 5, replace=False):
                    mine, its_opposite = (label, other) if rng.random() < 0.8 else (other, label)
                    text[place] = rng.choice(words[mine]) if rng.random() < 0.5 else f"not {rng.choice(words[its_opposite])}"
                (folder / split / label / f"{k}_{9 if label == 'pos' else 2}.txt").write_text(" ".join(text) + ".<br />")
    return folder


count = 60 if args.tiny else 1000
folder = args.folder or make_up(Path(tempfile.mkdtemp()) / "aclImdb", count)
(texts, y), (test_texts, y_test) = (data.load_imdb(s, path=folder, limit=args.limit) for s in ("train", "test"))
length = int(np.percentile([len(data.split_words(t)) for t in texts[:2000]], 90))
vocabulary = data.Vocabulary(texts, max_size=20_000, min_count=2)
x, x_test = vocabulary.encode(texts, length), vocabulary.encode(test_texts, length)
print(f"{len(x)} reviews of up to {length} words, {len(vocabulary)} different ones")

fd.manual_seed(0)
model = models.TextCNN(len(vocabulary), 2, width=64, kernels=(2, 3, 4), channels=32, padding_idx=0)
optimizer = optim.Adam(model.parameters(), lr=1e-3)


@fd.compile
def step(words: fd.Tensor, labels: fd.Tensor) -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(words), labels)
    loss.backward()
    optimizer.step()
    return loss


start = time.perf_counter()
for epoch in range(1, (1 if args.tiny else args.epochs) + 1):
    model.train()
    losses = [step(words, labels).item() for words, labels in data.DataLoader((x, y), 32, shuffle=True, drop_last=True, rng=epoch)]
    model.eval()
    with fd.no_grad():
        guesses = np.concatenate([model(fd.asarray(x_test[k : k + 100])).numpy().argmax(1) for k in range(0, len(x_test), 100)])
    seconds = time.perf_counter() - start
    print(f"epoch {epoch}  loss {np.mean(losses):.4f}  test accuracy {np.mean(guesses == y_test):.4f}  {seconds:.1f} s", flush=True)
