"""Small disks, and ballast that fills them: what makes a server meet ENOSPC."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MB = 1024 * 1024

# A user and mount namespace of one's own, in which this user may mount; it lasts as long as its process.
# util-linux's programs are not asked for: they may be missing, or refuse a user who is not root.
_MOUNTER = """
import ctypes, os, sys
from pathlib import Path
NEW_NAMESPACES = 0x10000000 | 0x00020000
libc = ctypes.CDLL(None, use_errno=True)
uid, gid, place, size = os.getuid(), os.getgid(), sys.argv[1], sys.argv[2]
def must(status):
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
must(libc.unshare(NEW_NAMESPACES))
Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
Path("/proc/self/setgroups").write_text("deny")
Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
must(libc.mount(b"tmpfs", place.encode(), b"tmpfs", 0, f"size={size},mode=0700".encode()))
print("mounted", flush=True)
sys.stdin.read()
"""


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size at `place`, or a path by which it can be reached.

    Root mounts it. Anybody else mounts it in a namespace, and reaches it through that one's process.
    Skips, and says so, where the kernel or the container allows neither.
    """
    place.mkdir()
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(place)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"root may not mount here: {done.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
    else:
        with _mounter(place, megabytes) as pid:
            yield Path(f"/proc/{pid}/root/{place}")


@contextmanager
def _mounter(place: Path, megabytes: int) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _MOUNTER, str(place), f"{megabytes}m"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "mounted\n":
            said = process.stderr.read().strip().rpartition("\n")[2]
            pytest.skip(f"this user may mount nothing, not even in a namespace: {said}")
        yield process.pid
        process.stdin.close()


def ballast(disk: Path, *, leaving: int) -> Path:
    """A file that takes all room of a disk but `leaving` bytes. Deleting it gives the room back."""
    file = disk / "ballast"
    size = shutil.disk_usage(disk).free - leaving
    assert size > 0, "the disk is smaller than the room to leave"
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, size)
    return file
