"""Atomic files: a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable


def write_atomically(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to a temporary file beside `path`, flush it to the disk, and rename it over `path`.

    Raises
    ------
    OSError
        When writing fails; the old file is untouched then and the temporary file is gone.
    """
    target = os.path.realpath(path)  # a link stays a link
    folder = os.path.dirname(target)
    temporary = f"{target}.{secrets.token_hex(6)}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Make the rename itself durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse
    finally:
        os.close(handle)
