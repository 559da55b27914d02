"""Keras's names on fastdl's engine: change the imports, keep the program.

>>> import numpy as np
>>> from fastdl import keras
>>> keras.utils.set_random_seed(0)
>>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32")
>>> y = np.array([0, 1, 1, 0], "float32")
>>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")])
>>> model.compile(optimizer=keras.optimizers.Adam(learning_rate=0.1), loss="binary_crossentropy", metrics=["accuracy"])
>>> history = model.fit(x, y, epochs=100, verbose=0)
>>> model.evaluate(x, y, verbose=0)[1]
1.0
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from . import (
    activations,
    backend,
    callbacks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    regularizers,
    saving,
    utils,
)  # fmt: skip
from .layers.base import Layer, Variable
from .layers.core import Input
from .models import Model, Sequential

__all__ = [
    "Input", "Layer", "Model", "Sequential", "Variable", "activations", "backend", "callbacks", "constraints", "datasets", "initializers",
    "layers", "losses", "metrics", "models", "optimizers", "preprocessing", "regularizers", "saving", "utils",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("datasets", "preprocessing"):
        return import_module(f"fastdl.keras.{name}")
    raise AttributeError(f"module 'fastdl.keras' has no attribute {name!r}")
