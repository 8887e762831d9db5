"""Files: read within limits, and replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from tale_core.errors import InvalidValueError, StoreError

_OWNER_ONLY = 0o600


def read_file(path: str | Path, what: str, *, most: int, fix: str) -> bytes:
    """Return the content of a regular file, if it is small enough.

    Args:
        path: The file.
        what: What it is, for errors.
        most: The largest size that such a file may have, in bytes.
        fix: The next step, for errors.

    Raises:
        InvalidValueError: It is missing, no regular file, too large, or cannot be read.
    """
    # A device has no end, and opening a pipe waits for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123  # Path.open takes no flags
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidValueError(f"{what} {str(path)!r} is no regular file; {fix}")
            content = file.read(most + 1)
    except (OSError, ValueError) as exc:  # ValueError: a zero byte in the path
        raise InvalidValueError(
            f"cannot read {what} {str(path)!r}: {getattr(exc, 'strerror', exc)}; {fix}"
        ) from exc
    if len(content) > most:
        raise InvalidValueError(f"{what} {str(path)!r} is larger than {most:,} bytes, which none is; {fix}")
    return content


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part.

    Only its owner can read it: reports, calibrations and estimators may hold questions and answers. Where the
    path is a symbolic link, the link is replaced, and what it points to is left alone.

    Args:
        path: The file; its folder must exist.
        content: The whole new content.

    Raises:
        StoreError: It cannot be written; what was there before still is.
    """
    path = Path(path)
    # Beside the target, because a file can only be renamed within one file system.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        # O_EXCL follows no link either.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with open(os.open(fresh, flags, _OWNER_ONLY), "wb") as file:  # noqa: PTH123  # Path.open takes no mode
            file.write(content)
        fresh.replace(path)
    except OSError as exc:
        with suppress(OSError):
            fresh.unlink()
        raise StoreError(
            f"cannot write {str(path)!r}: {exc.strerror or exc}; name another path or free some space"
        ) from exc
