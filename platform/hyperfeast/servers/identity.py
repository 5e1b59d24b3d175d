"""Whom a server runs as. PostgreSQL refuses to run as root, so root lends it another identity."""

import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hyperfeast.errors import ServerStartFailed

_LAUNCHER = Path(__file__).with_name("launcher.py")
_NOBODY = 65534


@dataclass(frozen=True)
class Identity:
    """A user as files see it, and how the launcher becomes it."""

    uid: int
    gid: int
    way: str

    def launch(self, mode: str, program: list[str]) -> list[str]:
        """The command that runs `program` under this identity, `attached` or `detached`."""
        return [sys.executable, "-I", "-S", str(_LAUNCHER), self.way, mode, *program]

    def owns(self, folder: Path) -> None:
        """Make `folder` and all in it this identity's own."""
        if self.way == "same" or folder.stat().st_uid == self.uid:
            return
        for path in (*folder.rglob("*"), folder):
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def must_enter(self, folder: Path) -> None:
        """Check that this identity can enter `folder` and every folder above it.

        Root's own rights end at the border of a user namespace, and nobody has none.

        Raises:
            ServerStartFailed: one of the folders is closed to it.
        """
        if self.way == "same":
            return
        for step in (*reversed(folder.parents), folder):
            if not self._may_enter(step):
                raise ServerStartFailed(
                    "PostgreSQL does not run as root, so it runs here as user id "
                    f"{self.uid} without root's rights, and that user cannot enter {step}, "
                    f"on the way to {folder}. Run hyperfeast as the owner of {step}, or "
                    f"open the folder with `chmod o+x {step}`, or put hyperfeast's home "
                    "(HYPERFEAST_HOME) and its Python environment into folders that every "
                    "user can enter, such as /var/lib/hyperfeast"
                )

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            bit = stat.S_IXUSR
        elif status.st_gid == self.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        return bool(status.st_mode & bit)


def own_identity() -> Identity:
    """The user of this process."""
    return Identity(os.geteuid(), os.getegid(), "same")


@cache
def unprivileged_identity() -> Identity:
    """This process's user, or for root a substitute without root's rights.

    The substitute is root seen from a user namespace, where it is an ordinary user; where the
    kernel or a container forbids namespaces, it is the user nobody.
    """
    if os.geteuid() != 0:
        return own_identity()
    within = Identity(os.geteuid(), os.getegid(), "namespace")
    probe = subprocess.run(within.launch("probe", []), capture_output=True, check=False)
    return within if probe.returncode == 0 else _nobody()


def _nobody() -> Identity:
    import pwd  # Windows has none, and must be able to import this module

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return Identity(_NOBODY, _NOBODY, f"drop:{_NOBODY}:{_NOBODY}")
    return Identity(entry.pw_uid, entry.pw_gid, f"drop:{entry.pw_uid}:{entry.pw_gid}")
