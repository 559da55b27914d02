"""What happens to data before a model sees them: images, sequences, text."""

from . import image, sequence, text

__all__ = ["image", "sequence", "text"]
