"""What is remembered of a server between processes: its port, its password, its pid."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class State:
    """Where a server was last started.

    Attributes:
        port: the TCP port on 127.0.0.1.
        password: a letter and 32 hexadecimal digits. Never all digits, and without a comma: Feast
            splits a connection string at commas and reads its values as JSON.
        pid: for people to read; nothing is decided by it.
    """

    port: int
    password: str = field(repr=False)
    pid: int | None = None

    @classmethod
    def read(cls, path: Path) -> "State | None":
        """The state in the file, or None if there is none that can be read as one."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file by this state, whole or not at all, for its owner's eyes only."""
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def new_password() -> str:
    """A fresh random password that survives Feast's connection strings."""
    return f"p{secrets.token_hex(16)}"
