"""Checkpoints: everything that the next training step depends on, in one safetensors file, so that training resumes exactly."""

from __future__ import annotations

import json
import os
from typing import Any

import fastdl as fd

from .tensors import load_with_metadata, save

_KEY = "fastdl.checkpoint"
_VERSION = 1


def save_checkpoint(
    path: str | os.PathLike[str],
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    loader: Any = None,
    rng: Any = None,
    extra: Any = None,
) -> None:
    """Save the state of a training run, atomically.

    Parameters
    ----------
    path : str or os.PathLike
    model : Module, optional
    optimizer : Optimizer, optional
    scheduler : learning-rate scheduler, optional
    loader : DataLoader, optional
        Its seed, epoch and position: the next batch after loading is the next batch after saving.
    rng : fastdl.Generator, optional
        Default: fastdl's global generator.
    extra : optional
        Anything JSON can hold: epoch, best accuracy, history ...

    Raises
    ------
    TypeError
        When `extra` or a setting is not JSON-able.
    OSError
        When the file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import fastdl as fd
    >>> from fastdl import nn, optim
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.safetensors"
    >>> model = nn.Linear(3, 2)
    >>> optimizer = optim.Adam(model.parameters())
    >>> model(fd.ones((1, 3))).sum().backward()
    >>> optimizer.step()
    >>> fd.save_checkpoint(path, model, optimizer, extra={"epoch": 7})
    >>> fd.load_checkpoint(path, model, optimizer)
    {'epoch': 7}
    """
    tensors: dict[str, Any] = {}
    about: dict[str, Any] = {"version": _VERSION, "rng": _generator(rng).get_state(), "extra": extra}
    if model is not None:
        tensors.update({f"model.{name}": tensor for name, tensor in model.state_dict().items()})
    if optimizer is not None:
        state = optimizer.state_dict()
        scalars: dict[str, dict[str, Any]] = {}
        for number, entry in state["state"].items():
            for name, value in entry.items():
                if isinstance(value, fd.Tensor):
                    tensors[f"optimizer.{number}.{name}"] = value
                else:
                    scalars.setdefault(str(number), {})[name] = value
        about["optimizer"] = {"param_groups": state["param_groups"], "scalars": scalars}
    if scheduler is not None:
        about["scheduler"] = scheduler.state_dict()
    if loader is not None:
        about["loader"] = loader.state_dict()
    save(tensors, path, {_KEY: json.dumps(about)})


def load_checkpoint(
    path: str | os.PathLike[str],
    model: Any = None,
    optimizer: Any = None,
    scheduler: Any = None,
    loader: Any = None,
    rng: Any = None,
) -> Any:
    """Restore what :func:`save_checkpoint` saved into objects made in the same way; what is not given is not touched.

    Returns
    -------
    The `extra` of the checkpoint.

    Raises
    ------
    fastdl.FormatError
        When the file is broken, is no checkpoint, or lacks a part that is asked for.
    StateDictError, ValueError
        When model or optimiser do not fit.
    """
    tensors, metadata = load_with_metadata(path)
    name = os.fspath(path)
    try:
        about = json.loads(metadata[_KEY])
        version, state_of_rng, extra = about["version"], about["rng"], about["extra"]
    except (KeyError, TypeError, ValueError) as error:
        raise fd.FormatError(f"{name}: not a fastdl checkpoint") from error
    if version != _VERSION:
        raise fd.FormatError(f"{name}: checkpoint version {version}; this fastdl reads version {_VERSION}")
    parts = {"optimizer": optimizer, "scheduler": scheduler, "loader": loader}
    for part, wanted in parts.items():
        if wanted is not None and part not in about:
            raise fd.FormatError(f"{name}: the checkpoint has no {part}")
    if model is not None:
        model.load_state_dict(_with_prefix(tensors, "model."))
    if optimizer is not None:
        state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in about["optimizer"]["scalars"].items()}
        for key, tensor in _with_prefix(tensors, "optimizer.").items():
            number, _, entry = key.partition(".")
            state.setdefault(int(number), {})[entry] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": about["optimizer"]["param_groups"]})
    if scheduler is not None:
        scheduler.load_state_dict(about["scheduler"])
    if loader is not None:
        loader.load_state_dict(about["loader"])
    _generator(rng).set_state(state_of_rng)
    return extra


def _with_prefix(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _generator(rng: Any) -> Any:
    return fd.random.default_generator if rng is None else rng
