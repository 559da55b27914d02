"""Exceptions and warnings of fastdl. Every error raised by fastdl is a `FastdlError` and also the builtin that fits it."""

from __future__ import annotations

import builtins


class FastdlError(Exception):
    """Base of all errors raised by fastdl."""

    __module__ = "fastdl"


class ShapeError(FastdlError, ValueError):
    """Shapes that do not fit the op."""

    __module__ = "fastdl"


class DTypeError(FastdlError, TypeError):
    """A dtype that the op does not take, or a cast that would lose the kind of number."""

    __module__ = "fastdl"


class IndexError_(FastdlError, builtins.IndexError):
    """An index or axis out of range."""

    __module__ = "fastdl"


class ValueError_(FastdlError, builtins.ValueError):
    """A parameter with a value outside its domain."""

    __module__ = "fastdl"


class TypeError_(FastdlError, builtins.TypeError):
    """An argument of the wrong Python type."""

    __module__ = "fastdl"


class DeviceError(FastdlError, RuntimeError):
    """A device that is not there, or tensors on different devices."""

    __module__ = "fastdl"


class OutOfMemoryError(FastdlError, MemoryError):
    """The allocator could not serve a request."""

    __module__ = "fastdl"


class FormatError(FastdlError, ValueError):
    """A file that is not what it should be."""

    __module__ = "fastdl"


class GradError(FastdlError, RuntimeError):
    """A gradient that cannot be computed, or would be wrong."""

    __module__ = "fastdl"


class CaptureError(FastdlError, RuntimeError):
    """Something that a captured step cannot contain."""

    __module__ = "fastdl"


class FastdlWarning(UserWarning):
    """Base of fastdl's warnings."""

    __module__ = "fastdl"


class FastdlDeprecationWarning(FastdlWarning, DeprecationWarning):
    """A name that will go away; the text says when and what to use."""

    __module__ = "fastdl"
