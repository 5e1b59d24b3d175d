"""Model files under one root: a local folder, or any place that fsspec reaches (s3://bucket/prefix).

A path is relative to the root and made of harmless components only, both when it is written and when
it is read back from the registry. A file is written whole or not at all, and before the row
that names it: a file without a row is harmless, a row without a file is not.
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperfeast.disk import sync
from hyperfeast.errors import ArtifactDamaged, ModelError

_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LONGEST = 128
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True)
class Artifact:
    """A saved file.

    Attributes:
        path: relative to the root, with forward slashes.
        sha256: of the content, hexadecimal.
    """

    path: str
    sha256: str


def checksum(data: bytes) -> str:
    """SHA-256 of the bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def save(root: Path | str, name: str, version: int, data: bytes, suffix: str) -> Artifact:
    """Write an artifact, whole or not at all. Writing the same bytes again changes nothing.

    The file's name holds a part of the checksum, so that databases that share a root cannot
    overwrite each other's version of the same number.

    Args:
        root: a folder, or a URL that fsspec knows. Made if absent.
        name: the model's name: a folder under the root.
        version: the model's version.
        data: the content.
        suffix: the format, with its dot: `.ubj`.

    Raises:
        ModelError: a name that is no plain path component, or a place that cannot be written.
    """
    sha256 = checksum(data)
    path = _checked(f"{name}/v{version}-{sha256[:12]}{suffix}")
    with _translated(root, path, "written"):
        place, target = _located(root, path)
        if _is_local(place):
            _write_local(Path(target), data)
        else:
            place.pipe_file(target, data)
    return Artifact(path, sha256)


def load(root: Path | str, path: str, sha256: str) -> bytes:
    """The bytes of an artifact, if they are the ones that were registered.

    Args:
        root: as for `save`.
        path: relative to the root, as registered.
        sha256: as registered.

    Raises:
        ModelError: a path that could leave the root, or a place that cannot be read.
        ArtifactDamaged: nothing is there, or its checksum is another.
    """
    with _translated(root, _checked(path), "read"):
        place, target = _located(root, path)
        try:
            data = bytes(place.cat_file(target))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ArtifactDamaged(
                f"the artifact {path} is not under {_shown(root)}: put the file back, or train again"
            ) from error
    if (found := checksum(data)) != sha256:
        raise ArtifactDamaged(
            f"the artifact {path} under {_shown(root)} has SHA-256 {found}, registered is {sha256}: "
            "put the file back, or train again"
        )
    return data


def _checked(path: str) -> str:
    for component in path.split("/"):
        if len(component) > _LONGEST or not _COMPONENT.fullmatch(component):
            raise ModelError(
                f"{path!r} is no artifact path: expected letters, digits, dots, dashes and "
                f"underscores between single slashes, found {component!r}"
            )
    return path


def _located(root: Path | str, path: str) -> tuple[Any, str]:
    """The file system of the root, and the full path in it."""
    from fsspec.core import url_to_fs

    try:
        place, base = url_to_fs(str(root))
    except ImportError as error:
        raise ModelError(
            f"the artifacts' root {_shown(root)} needs a package that is not installed ({error}): "
            "for s3:// install hyperfeast[s3]"
        ) from error
    except ValueError as error:
        raise ModelError(
            f"the artifacts' root {_shown(root)} is no place known: {error}"
        ) from error
    target = f"{base.rstrip('/')}/{path}"
    if _is_local(place) and not Path(target).resolve().is_relative_to(Path(base).resolve()):
        raise ModelError(
            f"the artifact {path} leads out of {_shown(root)} by a link: remove the link"
        )
    return place, target


@contextmanager
def _translated(root: Path | str, path: str, done: str) -> Iterator[None]:
    """Every failure of the root's file system as a ModelError."""
    try:
        yield
    except _failures() as error:
        raise ModelError(
            f"the artifact {path} under {_shown(root)} cannot be {done}: {_shown(error)}. "
            "Check that the place is there, and that this process may use it"
        ) from error


def _failures() -> tuple[type[Exception], ...]:
    """What a file system raises. That of S3 lets through what botocore raises, which is no OSError."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
    except ImportError:
        return (OSError, ValueError)
    return (OSError, ValueError, BotoCoreError, ClientError)


def _shown(written: object) -> str:
    """A root or a message without the user and the password of a URL in it."""
    return _CREDENTIALS.sub("", str(written))


def _is_local(place: Any) -> bool:
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(place, LocalFileSystem)


def _write_local(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # The new name survives a power cut, not only the content.
    sync(target.parent)
