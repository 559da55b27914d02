"""Op stanzas by family. `fastdl.op.STANZAS` lists them all after this import."""

from . import (
    activation,
    attention,
    conv,
    creation,
    elementwise,
    index,
    linalg,
    loss,
    norm,
    optim,
    pool,
    random,
    recurrent,
    reduce,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "creation",
    "elementwise",
    "index",
    "linalg",
    "loss",
    "norm",
    "optim",
    "pool",
    "random",
    "recurrent",
    "reduce",
    "shape",
]
