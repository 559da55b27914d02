"""From a name such as "glorot_uniform" or "Adam" to an object."""

from __future__ import annotations

from typing import Any

from fastdl.errors import TypeError_, ValueError_


def getter(what: str, names: dict[str, Any]) -> Any:
    """A function like `keras.losses.get`: names in any case, with or without underscores; objects and functions stay, None stays."""
    plain = {key.lower().replace("_", ""): value for key, value in names.items()}

    def get(identifier: Any) -> Any:
        if identifier is None:
            return None
        if isinstance(identifier, str):
            found = plain.get(identifier.lower().replace("_", ""))
            if found is None:
                raise ValueError_(f"{what} {identifier!r} is unknown; there are {', '.join(sorted(names))}")
            return found() if isinstance(found, type) else found
        if isinstance(identifier, type):
            return identifier()
        if callable(identifier) or hasattr(identifier, "get_config"):
            return identifier
        raise TypeError_(f"{what}: need a name, an object or a function, not {type(identifier).__name__}")

    get.__doc__ = f"The {what} of a name (in any case); objects and functions stay as they are, None is None."
    return get
