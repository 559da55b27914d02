"""Logistic regression on handwritten digits, twice: with the gradient derived by hand, and with `nn` and autograd. Both agree."""

import argparse

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()
steps, rate = 50 if args.tiny else args.steps, 0.5

(x, y), (x_test, y_test) = data.load_digits("train"), data.load_digits("test")
x, x_test = fd.asarray(x.reshape(len(x), -1)), fd.asarray(x_test.reshape(len(x_test), -1))
truth = fd.one_hot(fd.asarray(y), 10).astype("float32")

# By hand. The loss is the mean of -log softmax(x w + b)[true class]; its gradient with respect to the scores is (p - truth) / n.
w, b = fd.zeros((64, 10)), fd.zeros(10)
for _ in range(steps):
    p = fd.exp(x @ w + b)
    p = p / p.sum(axis=1, keepdims=True)
    error = (p - truth) / len(x)
    w = w - rate * (x.T @ error)
    b = b - rate * error.sum(axis=0)

# With nn. The same numbers come out: weights start at zero, the optimiser is plain gradient descent.
model = nn.Linear(64, 10)
nn.init.zeros_(model.weight)
nn.init.zeros_(model.bias)
optimizer = optim.SGD(model.parameters(), lr=rate)
labels = fd.asarray(y)


@fd.compile
def step() -> fd.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
    return loss


for k in range(1, steps + 1):
    loss = step()
    if k % (steps // 5) == 0:
        print(f"step {k:3}  loss {loss.item():.4f}")

difference = abs(model.weight.detach().T - w).max().item()
for name, scores in (("by hand", x_test @ w + b), ("with nn", model(x_test).detach())):
    print(f"{name}: test accuracy {np.mean(scores.numpy().argmax(1) == y_test):.4f}")
print(f"largest difference of the weights: {difference:.1e}")
