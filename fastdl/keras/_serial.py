"""Objects as JSON and back: {"class": registered name, "config": {...}}. Only registered names are built; nothing is imported by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from fastdl.errors import TypeError_, ValueError_

_REGISTRY: dict[str, Any] = {}


def _name(item: Any) -> str:
    """What a class or function is called in files: "losses.Huber" for those of this package, the plain or registered name for others."""
    parts = item.__module__.split(".")
    own = f"{parts[2]}.{item.__name__}" if parts[:2] == ["fastdl", "keras"] else item.__name__
    return vars(item).get("_registered_name", own)


def register(item: Any) -> Any:
    """Make a class or function of this package known."""
    _REGISTRY[_name(item)] = item
    return item


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[Any], Any]:
    """Decorator: lets `load_model` build this class or function.

    Examples
    --------
    >>> from fastdl import keras
    >>> @keras.saving.register_keras_serializable()
    ... class Twice(keras.layers.Layer):
    ...     def call(self, x):
    ...         return 2 * x
    >>> keras.layers.deserialize(keras.layers.serialize(Twice(name="t"))).name
    't'
    """

    def mark(item: Any) -> Any:
        item._registered_name = f"{package}>{name or item.__name__}"
        _REGISTRY[item._registered_name] = item
        return item

    return mark


def lookup(name: str, custom_objects: dict[str, Any] | None = None) -> Any:
    for known in (custom_objects or {}, _REGISTRY):
        if name in known:
            return known[name]
    raise ValueError_(f"keras: {name!r} is unknown; give it in custom_objects, or mark it with keras.saving.register_keras_serializable()")


def capture_config(init: Callable[..., None]) -> Callable[..., None]:
    """Wraps `__init__` of a class: the outermost call's arguments are kept, so that `get_config` needs no code per class."""
    signature = inspect.signature(init)

    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        if "_arguments" not in self.__dict__:
            bound = signature.bind(self, *args, **kwargs)
            given: dict[str, Any] = {}
            for key, value in list(bound.arguments.items())[1:]:
                kind = signature.parameters[key].kind
                if kind is inspect.Parameter.VAR_KEYWORD:
                    given.update(value)
                elif kind is not inspect.Parameter.VAR_POSITIONAL:
                    given[key] = value
            object.__setattr__(self, "_arguments", given)
        init(self, *args, **kwargs)

    wrapped.__wrapped__ = init  # type: ignore[attr-defined]
    wrapped.__doc__ = init.__doc__
    return wrapped


class Configurable:
    """Base of everything with `get_config` and `from_config`; subclasses are registered by name as they are defined."""

    _arguments: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = capture_config(cls.__init__)  # type: ignore[method-assign]
        if cls.__module__.startswith("fastdl.keras."):
            register(cls)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal object."""
        return {key: pack(value) for key, value in self.__dict__.get("_arguments", {}).items()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """An object made from what :meth:`get_config` returned."""
        return cls(**{key: unpack(value, custom_objects) for key, value in config.items()})


def pack(value: Any) -> Any:
    """`value` as JSON can hold it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.name}
    if isinstance(value, tuple):
        return {"tuple": [pack(v) for v in value]}
    if isinstance(value, list):
        return [pack(v) for v in value]
    if isinstance(value, dict):
        return {"dict": [[k, pack(v)] for k, v in value.items()]}
    if hasattr(value, "get_config") and not isinstance(value, type):
        config = value.get_config()
        return {"class": _name(type(value)), "config": {k: pack_again(v) for k, v in config.items()}}
    if callable(value) and getattr(value, "__name__", "<lambda>") != "<lambda>":
        return {"function": _name(value)}
    raise TypeError_(f"keras: cannot save {value!r} in a configuration; name it (a class with get_config, or a registered function)")


def pack_again(value: Any) -> Any:
    """User-written `get_config` may return objects; what is packed already stays."""
    if isinstance(value, dict) and {"class", "function", "tuple", "dict", "array"} & set(value):
        return value
    return [pack_again(v) for v in value] if isinstance(value, list) else pack(value)


def unpack(value: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """What :func:`pack` packed."""
    if isinstance(value, list):
        return [unpack(v, custom_objects) for v in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(unpack(v, custom_objects) for v in value["tuple"])
    if "dict" in value:
        return {k: unpack(v, custom_objects) for k, v in value["dict"]}
    if "array" in value:
        return np.array(value["array"], value["dtype"])
    if "function" in value:
        return lookup(value["function"], custom_objects)
    if "class" in value:
        cls = lookup(value["class"], custom_objects)
        config = value["config"]
        if "custom_objects" in inspect.signature(cls.from_config).parameters:
            return cls.from_config(config, custom_objects=custom_objects)
        return cls.from_config({k: unpack(v, custom_objects) for k, v in config.items()})
    raise ValueError_(f"keras: not a configuration: {value!r}")
