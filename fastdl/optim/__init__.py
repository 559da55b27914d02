"""Optimisers, learning-rate schedules and gradient clipping, under PyTorch's names."""

from . import lr_scheduler
from .algorithms import SGD, Adam, AdamW, RMSprop
from .clip import clip_grad_norm_, clip_grad_value_
from .composed import Adadelta, Adagrad, Lion, NAdam
from .early_stopping import EarlyStopping
from .optimizer import Optimizer

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "EarlyStopping", "Lion", "NAdam", "Optimizer", "RMSprop", "clip_grad_norm_",
    "clip_grad_value_", "lr_scheduler",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "swa_utils":  # needs fastdl.nn, which optimisers do without
        from importlib import import_module

        return import_module("fastdl.optim.swa_utils")
    raise AttributeError(f"module 'fastdl.optim' has no attribute {name!r}")
