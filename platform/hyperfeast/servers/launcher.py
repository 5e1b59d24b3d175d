"""Gives a program another identity or a life of its own, then becomes it.

Run as a script, `python -I -S launcher.py IDENTITY MODE [PROGRAM ARGUMENT...]`, never imported by
the package: what it does between fork and exec is not safe in a process that has threads.

IDENTITY is `same`, `namespace` (a user namespace in which root is an ordinary user) or
`drop:UID:GID`. MODE is `attached` (become the program), `detached` (become it in a child that
nobody waits for, and print the child's pid) or `probe` (only take the identity). A detached
program writes its output to what was standard error.
"""

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_ORDINARY_USER = 65534


def _enter_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"user namespaces are forbidden here: {os.strerror(number)}")
    Path("/proc/self/uid_map").write_text(f"{_ORDINARY_USER} {uid} 1", encoding="ascii")
    # Without this the kernel lets only a privileged parent write the group map.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{_ORDINARY_USER} {gid} 1", encoding="ascii")


def _take(identity: str) -> None:
    if identity == "namespace":
        _enter_namespace()
    elif identity.startswith("drop:"):
        uid, gid = map(int, identity.split(":")[1:])
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _detach() -> None:
    """Go on in a child whose parent is gone; its pid goes to standard output."""
    pid = os.fork()
    if pid:
        os.write(1, str(pid).encode("ascii"))
        os._exit(0)
    os.dup2(2, 1)


def main(identity: str, mode: str, program: list[str]) -> None:
    """Take the identity, and become the program."""
    os.umask(0o077)
    _take(identity)
    if mode == "probe":
        return
    if mode == "detached":
        _detach()
    os.execv(program[0], program)  # noqa: S606 - becoming the program is the purpose


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3:])
    except OSError as error:
        sys.exit(f"launcher: {error}")
