"""Files: weights as safetensors, checkpoints that resume exactly. Saves are atomic; nothing is ever unpickled."""

from .atomic import write_atomically
from .checkpoint import load_checkpoint, save_checkpoint
from .tensors import load, load_with_metadata, save

__all__ = ["load", "load_checkpoint", "load_with_metadata", "save", "save_checkpoint", "write_atomically"]
