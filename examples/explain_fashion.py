"""Train a small CNN on Fashion-MNIST, then look into it: curves, confusions, filters, feature maps, and what its decisions rest on."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

import fastdl as fd
from fastdl import data, nn, optim, visual

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "explain_fashion", help="folder for the pictures")
parser.add_argument("--tiny", action="store_true", help="a run of a second or two, for tests")
args = parser.parse_args()

fd.manual_seed(0)
(x_train, y_train), (x_test, y_test) = data.load_fashion_mnist("train"), data.load_fashion_mnist("test")
if args.tiny:
    x_train, y_train, x_test, y_test, args.epochs = x_train[:256], y_train[:256], x_test[:100], y_test[:100], 2

model = nn.Sequential(
    nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
)  # fmt: skip
print(fd.summary(model, (1, 28, 28)))
loader = data.DataLoader((x_train, y_train), 64, shuffle=True, rng=0)
optimizer = optim.Adam(model.parameters(), lr=1e-3)
predict = visual.predict_function(model, shape=(1, 28, 28))
stopper, history = optim.EarlyStopping(patience=2), visual.History()
for epoch in range(1, args.epochs + 1):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
    proba = predict(x_test)
    val_loss = -float(np.log(proba[np.arange(len(y_test)), y_test] + 1e-12).mean())
    history.append(loss=total / len(x_train), val_loss=val_loss, val_accuracy=(proba.argmax(1) == y_test).mean())
    print(f"epoch {epoch}  loss {history['loss'][-1]:.4f}  test accuracy {history['val_accuracy'][-1]:.4f}", flush=True)
    if stopper.step(val_loss, model):
        break
stopper.restore(model)

names = list(data.FASHION_CLASSES)
firsts = [int(np.flatnonzero(y_test == k)[0]) for k in range(10)]
images = x_test[firsts]
figures = {
    "history": history.plot(),
    "confusion": visual.plot_confusion_matrix(y_test, predict(x_test), names),
    "images": visual.plot_images(images, names, columns=5),
    "filters": visual.plot_filters(model[0]),
    "feature_maps": visual.plot_feature_maps(model, images[9], "6"),
    "saliency": visual.plot_heatmaps(images, visual.saliency(model, images), names, columns=5),
    "integrated_gradients": visual.plot_heatmaps(images, visual.integrated_gradients(model, images), names, columns=5),
    "grad_cam": visual.plot_heatmaps(images, visual.grad_cam(model, images, "10"), names, columns=5),
    "occlusion": visual.plot_heatmaps(images, visual.occlusion(model, images, size=5), names, columns=5),
}
args.out.mkdir(parents=True, exist_ok=True)
for name, figure in figures.items():
    figure.savefig(args.out / f"{name}.png", dpi=110)
print(f"{len(figures)} pictures in {args.out}")
