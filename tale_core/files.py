"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from tale_core.errors import StoreError


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part.

    A new file can be read by its owner alone: what is written here often holds questions and answers.

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
        private = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(private, "wb") as file:
            file.write(content)
        if path.exists():
            fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)
    except OSError as exc:
        with suppress(OSError):
            fresh.unlink()
        raise StoreError(
            f"cannot write {str(path)!r}: {exc.strerror or exc}; name another path or free some space"
        ) from exc
