"""Optimisers, learning-rate schedules and gradient clipping, under PyTorch's names."""

from . import lr_scheduler
from .algorithms import SGD, Adam, AdamW, RMSprop
from .clip import clip_grad_norm_, clip_grad_value_
from .optimizer import Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "clip_grad_norm_", "clip_grad_value_", "lr_scheduler"]
