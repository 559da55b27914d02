"""Tools around modules: penalties, freezing and fine-tuning by name, partial loading, features, vectors of parameters.

Patterns are shell patterns over dotted names: "body.*", "*.bias", "head.weight"; a name without wildcards also means all below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import fastdl as fd
from fastdl.optim.clip import clip_grad_norm_, clip_grad_value_

from .module import HookHandle, Module

__all__ = [
    "FeatureExtractor", "LoadReport", "clip_grad_norm_", "clip_grad_value_", "freeze", "l1_penalty", "l2_penalty", "load_matching",
    "parameter_groups", "parameters_to_vector", "unfreeze", "vector_to_parameters",
]  # fmt: skip


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or name.startswith(pattern + ".")


def _select(module: Module, patterns: tuple[str, ...], what: str) -> Iterator[tuple[str, Any]]:
    named = list(module.named_parameters())
    for pattern in patterns:
        if not any(_matches(name, pattern) for name, _ in named):
            known = ", ".join(name for name, _ in named)
            raise fd.errors.ValueError_(f"{what}: no parameter of {type(module).__name__} matches {pattern!r}; it has {known}")
    return ((name, p) for name, p in named if not patterns or any(_matches(name, pattern) for pattern in patterns))


# ---- penalties -----------------------------------------------------------------------------------------------------------------


def _as_tensors(parameters: Any) -> list[Any]:
    if isinstance(parameters, Module):
        parameters = parameters.parameters()
    tensors = [parameters] if isinstance(parameters, fd.Tensor) else list(parameters)
    if not tensors:
        raise fd.errors.ValueError_("penalty: got no parameters")
    return tensors


def l1_penalty(parameters: Module | fd.Tensor | Iterable[fd.Tensor]) -> fd.Tensor:
    """Sum of the absolute values of all parameters: `loss + 1e-4 * l1_penalty(model)` makes weights sparse.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.utils.l1_penalty(fd.array([3.0, -4.0])).item()
    7.0
    """
    return sum((abs(p).sum() for p in _as_tensors(parameters)), start=fd.zeros(()))


def l2_penalty(parameters: Module | fd.Tensor | Iterable[fd.Tensor]) -> fd.Tensor:
    """Half the sum of the squares of all parameters: `c * l2_penalty(...)` is the `weight_decay=c` of SGD and Adam.

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> nn.utils.l2_penalty(fd.array([3.0, -4.0])).item()
    12.5
    """
    return sum((fd.square(p).sum() for p in _as_tensors(parameters)), start=fd.zeros(())) * 0.5


# ---- freezing and fine-tuning --------------------------------------------------------------------------------------------------


def freeze(module: Module, *patterns: str) -> list[str]:
    """Stop training the parameters whose names match (all, without patterns); returns their names.

    Optimisers skip parameters without gradients; batch norm's statistics still move in training mode (`module.body.eval()` stops them).

    Raises
    ------
    ValueError
        When a pattern matches nothing.

    Examples
    --------
    >>> from fastdl import nn
    >>> net = nn.Sequential({"body": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
    >>> nn.utils.freeze(net, "body")
    ['body.weight', 'body.bias']
    >>> [name for name, p in net.named_parameters() if p.requires_grad]
    ['head.weight', 'head.bias']
    """
    return _set_trained(module, patterns, False, "freeze")


def unfreeze(module: Module, *patterns: str) -> list[str]:
    """Train the matching parameters (again); returns their names."""
    return _set_trained(module, patterns, True, "unfreeze")


def _set_trained(module: Module, patterns: tuple[str, ...], trained: bool, what: str) -> list[str]:
    names = []
    for name, parameter in _select(module, patterns, what):
        parameter.requires_grad_(trained)
        if not trained:
            parameter.grad = None
        names.append(name)
    return names


def parameter_groups(module: Module, settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Groups for an optimiser, by name: the trained parameters that a pattern matches get its settings, the others the defaults.

    The first pattern that matches counts. Frozen parameters are left out.

    Examples
    --------
    >>> from fastdl import nn, optim
    >>> net = nn.Sequential({"body": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
    >>> groups = nn.utils.parameter_groups(net, {"body": {"lr": 1e-5}, "*.bias": {"weight_decay": 0.0}})
    >>> optimizer = optim.AdamW(groups, lr=1e-3)
    >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
    [(1e-05, 2), (0.001, 1), (0.001, 1)]
    """
    list(_select(module, tuple(settings), "parameter_groups"))
    groups: dict[str | None, dict[str, Any]] = {pattern: {"params": [], **more} for pattern, more in settings.items()}
    groups[None] = {"params": []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups[next((pattern for pattern in settings if _matches(name, pattern)), None)]["params"].append(parameter)
    return [group for group in groups.values() if group["params"]]


# ---- partial loading -----------------------------------------------------------------------------------------------------------


class LoadReport(NamedTuple):
    """What :func:`load_matching` did with every name."""

    loaded: list[str]
    missing_keys: list[str]
    unexpected_keys: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]  # name: (shape in the file, shape needed)


def load_matching(
    module: Module, state_dict: Mapping[str, Any], *, prefix: str = "", into: str = "", exclude: Iterable[str] = ()
) -> LoadReport:
    """Load the weights that fit by name and shape, leave the others as they are, and report all of it.

    Parameters
    ----------
    module : Module
    state_dict : mapping of str to array_like
    prefix : str
        Only names that start with it, and without it: "encoder." takes encoder.0.weight for 0.weight.
    into : str
        Put before the names after that: "body." loads them into `module.body`.
    exclude : iterable of str
        Patterns over the module's names that are not loaded.

    Returns
    -------
    LoadReport
        `loaded`, `missing_keys` (of the module, not loaded), `unexpected_keys` (of the state dict, as given, with no place),
        `mismatched` (found, but of another shape).

    Examples
    --------
    >>> from fastdl import nn
    >>> old = nn.Sequential({"body": nn.Linear(4, 8), "head": nn.Linear(8, 10)})
    >>> new = nn.Sequential({"body": nn.Linear(4, 8), "head": nn.Linear(8, 2)})
    >>> report = nn.utils.load_matching(new, old.state_dict())
    >>> report.loaded, report.mismatched["head.weight"]
    (['body.weight', 'body.bias'], ((10, 8), (2, 8)))
    """
    own = module.state_dict()
    exclude = tuple(exclude)
    chosen: dict[str, Any] = {}
    unexpected, mismatched = [], {}
    for name, value in state_dict.items():
        target = into + name.removeprefix(prefix)
        if not name.startswith(prefix):
            continue
        if target not in own:
            unexpected.append(name)
        elif any(_matches(target, pattern) for pattern in exclude):
            continue
        elif tuple(value.shape) != tuple(own[target].shape):
            mismatched[target] = tuple(value.shape), tuple(own[target].shape)
        else:
            chosen[target] = value
    module.load_state_dict(chosen, strict=False)
    return LoadReport(list(chosen), [name for name in own if name not in chosen], unexpected, mismatched)


# ---- features ------------------------------------------------------------------------------------------------------------------


class FeatureExtractor(Module):
    """A module that returns what submodules of another put out, by name.

    The model runs as a whole, with its own weights (they are shared, not copied); `named_modules` has the names.

    Parameters
    ----------
    model : Module
    names : sequence of str

    Examples
    --------
    >>> import fastdl as fd
    >>> from fastdl import nn
    >>> net = nn.Sequential({"body": nn.Linear(4, 8), "act": nn.ReLU(), "head": nn.Linear(8, 2)})
    >>> {name: y.shape for name, y in nn.utils.FeatureExtractor(net, ["act", "head"])(fd.ones((3, 4))).items()}
    {'act': (3, 8), 'head': (3, 2)}
    """

    def __init__(self, model: Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = [names] if isinstance(names, str) else list(names)
        for name in self.names:
            model.get_submodule(name)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        handles: list[HookHandle] = []
        try:
            for name in self.names:

                def keep(module: Module, args: Any, output: Any, name: str = name) -> None:
                    found[name] = output  # the last one, should a module run twice

                handles.append(self.model.get_submodule(name).register_forward_hook(keep))
            self.model(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        unused = [name for name in self.names if name not in found]
        if unused:
            raise fd.errors.ValueError_(f"FeatureExtractor: {', '.join(unused)} did not run in the model's forward")
        return {name: found[name] for name in self.names}


# ---- vectors -------------------------------------------------------------------------------------------------------------------


def parameters_to_vector(parameters: Iterable[fd.Tensor]) -> fd.Tensor:
    """All parameters, flat, one after the other."""
    return fd.concatenate([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: fd.Tensor, parameters: Iterable[fd.Tensor]) -> None:
    """Copy a vector of :func:`parameters_to_vector` back into the parameters."""
    targets = list(parameters)
    if vec.ndim != 1 or vec.size != sum(p.size for p in targets):
        raise fd.ShapeError(f"vector_to_parameters: got shape {tuple(vec.shape)}; need ({sum(p.size for p in targets)},)")
    start = 0
    with fd.no_grad():
        for p in targets:
            p.copy_(vec[start : start + p.size].reshape(p.shape))
            start += p.size
