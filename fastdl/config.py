"""What this build and machine offer."""

from __future__ import annotations

import os
import platform
import sys

from . import _C
from .errors import ValueError_

ENVIRONMENT = ("FASTDL_NUM_THREADS", "FASTDL_ISA", "FASTDL_DEVICE", "FASTDL_DATA", "FASTDL_COMPILE", "FASTDL_WINOGRAD", "FASTDL_LOG", "OMP_NUM_THREADS")


def config() -> dict[str, str]:
    """Version, compiler, instruction sets, threads and environment, by name."""
    import numpy

    from . import __version__

    rows = {
        "fastdl": __version__,
        "python": f"{platform.python_version()} ({sys.implementation.name})",
        "numpy": numpy.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "compiler": _C.compiler(),
        "instruction set": _C.isa(),
        "compiled / supported": f"{', '.join(_C.compiled_isas())} / {', '.join(_C.supported_isas())}",
        "threads": str(_C.num_threads()),
        "CUDA": "not in this build",
    }
    rows.update({name: os.environ[name] for name in ENVIRONMENT if name in os.environ})
    return rows


def config_text() -> str:
    """The table that show_config prints."""
    rows = config()
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def show_config() -> None:
    """Prints version, compiler, instruction sets, threads and environment."""
    print(config_text())


def set_conv_winograd(allowed: bool) -> bool:
    """Whether 3x3 convolutions in float32 may use Winograd's algorithm (default: yes). Returns the setting before.

    It is up to twice as fast; rounding errors are about twice those of the direct sum, and an infinity or NaN in the input reaches
    all 4x4 output pixels of its tile, and all nine taps of its channel in the gradient by the weights.
    """

    return _C.set_conv_winograd(allowed)


if __name__ == "__main__":
    show_config()


_PRECISIONS = {"highest": 3, "high": 2, "medium": 1}
_precision = "highest"


def set_matmul_precision(precision: str) -> None:
    """How accurately float32 matrices are multiplied where bfloat16 tiles (AMX) can do it faster.

    Parameters
    ----------
    precision : {"highest", "high", "medium"}
        "highest" (the default): as accurate as float32 multiply-adds (six products of bfloat16 parts). "high": three products, relative
        error about 4e-6. "medium": one, about 2e-3, as if the operands were bfloat16; sums are float32 in any case.

    Raises
    ------
    ValueError
        When precision is none of the three.

    Notes
    -----
    On other machines, and for small matrices, products are always float32. The names are those of `torch.set_float32_matmul_precision`.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.set_matmul_precision("high")
    >>> fd.get_matmul_precision()
    'high'
    >>> fd.set_matmul_precision("highest")
    """
    global _precision
    if precision not in _PRECISIONS:
        raise ValueError_(f"set_matmul_precision: {precision!r}; need 'highest', 'high' or 'medium'")
    _C.set_matmul_parts(_PRECISIONS[precision])
    _precision = precision


def get_matmul_precision() -> str:
    """What `set_matmul_precision` has set: "highest", "high" or "medium"."""
    return _precision
