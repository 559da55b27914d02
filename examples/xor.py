"""XOR, the smallest problem that needs a hidden layer: four sigmoid units, full batches, Adam."""

import argparse

import fastdl as fd
from fastdl import data, nn, optim

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(args.seed)
points, labels = data.make_xor()
x, y = fd.array(points), fd.array(labels).astype("float32").reshape(-1, 1)

model = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1))
optimizer = optim.Adam(model.parameters(), lr=0.1)
for step in range(200 if args.tiny else 1000):
    loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        print(f"step {step:4}  loss {loss.item():.4f}")

with fd.no_grad():
    for point, value in zip(points, fd.sigmoid(model(x)).tolist()):
        print(f"{point.tolist()} -> {value[0]:.3f}")
