"""Files that are replaced as a whole, or not at all."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from tale_core.errors import StoreError


def replace_file(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part.

    Raises:
        StoreError: It cannot be written; what was there before still is.
    """
    path = Path(path)
    # Beside the target, because a file can only be renamed within one file system.
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with fresh.open("xb") as file:
            file.write(content)
        fresh.replace(path)
    except OSError as exc:
        with suppress(OSError):
            fresh.unlink()
        raise StoreError(
            f"cannot write {str(path)!r}: {exc.strerror or exc}; name another path or free some space"
        ) from exc
