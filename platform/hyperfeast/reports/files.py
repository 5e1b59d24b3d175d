"""Pages onto the disk."""

import os
import secrets
from pathlib import Path

from hyperfeast.errors import UsageError


def write_whole(page: str, path: Path) -> Path:
    """Write a page as one file, whole or not at all; an older one is replaced. Its folder must exist.

    Returns:
        The same path.

    Raises:
        UsageError: the file cannot be written there.
    """
    if not path.name:
        raise UsageError(f"{path} is a folder: name a file in it")
    # A lone surrogate has no UTF-8 form; a question mark in its place harms nobody.
    content = page.encode("utf-8", errors="replace")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(
            f"Expected to write the report to {path}; found: {error.strerror or error}. "
            "Name a file in a folder that exists and may be written to"
        ) from error
    return path
