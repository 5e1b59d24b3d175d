"""Baselines in files: `<folder>/<user_id>/baseline_history.json`, for hundreds of users on one machine.

A save writes a draft beside the file, brings it to the disk and puts it in the file's place in one
step: whoever reads, and whatever is killed when, the file holds the state before or after. Writers of
one user take turns by a lock that the kernel gives back when its holder dies. The locks are a fixed
number of files, shared by users, so that deleting a user deletes no lock that somebody waits for.
"""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

from pydantic import Field, ValidationError

from hyperfeast import clock
from hyperfeast.baselines.baseline import (
    SCHEMA,
    Baseline,
    Document,
    SavedBaseline,
    check_schema,
    damaged,
    read_json,
)
from hyperfeast.baselines.repository import (
    KEPT,
    check_clock,
    checked_limit,
    checked_moment,
    checked_user,
)
from hyperfeast.disk import sync
from hyperfeast.errors import DataError, HyperfeastError, SchemaError, UsageError

FILE_NAME = "baseline_history.json"
_DRAFT = f".{FILE_NAME}."
_LOCKS = ".locks"


class _History(Document):
    """What a file holds; the oldest baseline first."""

    version: Literal[1] = Field(default=SCHEMA, alias="schema")
    user_id: UUID
    baselines: tuple[SavedBaseline, ...]


@dataclass(frozen=True)
class Unreadable:
    """A file or folder that holds no history, and why."""

    path: Path
    reason: str


class FileBaselineRepository:
    """A `BaselineRepository` in a folder, which is made when it is first written to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __repr__(self) -> str:
        return f"FileBaselineRepository({self.folder})"

    def save(self, user_id: UUID, baseline: Baseline) -> SavedBaseline:
        """See `BaselineRepository`. The time is this machine's, and always after the newest one there."""
        user_id = checked_user(user_id)
        with self._locked(user_id):
            kept = self._read(user_id)
            now = clock.now()
            check_clock("the baseline", baseline.as_of, now)
            if kept:
                check_clock(f"the newest baseline of {user_id}", kept[-1].created_at, now)
                now = max(now, kept[-1].created_at + timedelta(microseconds=1))
            saved = SavedBaseline(created_at=now, baseline=baseline)
            self._write(user_id, [*kept, saved])
        return saved

    def latest(self, user_id: UUID) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        return next(iter(self.history(user_id, 1)), None)

    def history(self, user_id: UUID, limit: int = KEPT) -> list[SavedBaseline]:
        """See `BaselineRepository`."""
        return self._read(checked_user(user_id))[::-1][: checked_limit(limit)]

    def as_known(self, user_id: UUID, at: datetime) -> SavedBaseline | None:
        """See `BaselineRepository`."""
        moment = checked_moment(at)
        return next((one for one in self.history(user_id) if one.created_at <= moment), None)

    def delete(self, user_id: UUID) -> int:
        """See `BaselineRepository`. A file that cannot be read goes as well."""
        user_id = checked_user(user_id)
        place = self.place(user_id)
        with self._locked(user_id):
            if not place.parent.is_dir():
                return 0
            gone = self._count(user_id)
            self._sweep(place)
            place.unlink(missing_ok=True)
            sync(place.parent)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()
                sync(self.folder)
        return gone

    def keep(self, user_id: UUID, saved: Sequence[SavedBaseline]) -> int:
        """See `BaselineRepository`."""
        user_id = checked_user(user_id)
        with self._locked(user_id):
            there = {one.created_at: one for one in self._read(user_id)}
            given = {one.created_at: one for one in saved}
            newest = sorted({**given, **there}.items())[-KEPT:]
            new = sum(moment not in there for moment, _ in newest)
            if new:
                self._write(user_id, [one for _, one in newest])
        return new

    def users(self) -> Iterator[UUID]:
        """See `BaselineRepository`."""
        return (user_id for user_id, _ in self._histories())

    def unreadable(self) -> list[Unreadable]:
        """What lies in the folder that is no user's whole history."""
        found = [
            Unreadable(path, "expected a folder with a user's UUID as its name")
            for path in self._entries()
            if _user_of(path) is None
        ]
        for user_id, path in self._histories():
            try:
                self._read(user_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, the file is to be named
                found.append(Unreadable(path, str(error)))
        return found

    def _entries(self) -> list[Path]:
        """Everything in the folder but what begins with a dot."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))

    def _histories(self) -> Iterator[tuple[UUID, Path]]:
        for path in self._entries():
            user_id = _user_of(path)
            if user_id is not None and (place := path / FILE_NAME).exists():
                yield user_id, place

    def place(self, user_id: UUID) -> Path:
        """Where a user's file is, or would be."""
        return self.folder / str(user_id) / FILE_NAME

    def _count(self, user_id: UUID) -> int:
        try:
            return len(self._read(user_id))
        except (DataError, SchemaError):
            return 1

    def _read(self, user_id: UUID) -> list[SavedBaseline]:
        """The oldest first; nothing if there is no file."""
        place = self.place(user_id)
        try:
            content = place.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(f"{place} cannot be read: {error.strerror}") from error
        try:
            history = _History.model_validate_json(content)
        except ValidationError as error:
            raise _explained(content, error, str(place)) from None
        moments = [one.created_at for one in history.baselines]
        if history.user_id != user_id or moments != sorted(set(moments)):
            raise DataError(
                f"{place} is not the history of {user_id}, each baseline saved after the one before: nothing "
                "was changed; restore it from a backup, or move it away"
            )
        return list(history.baselines)

    def _write(self, user_id: UUID, baselines: Sequence[SavedBaseline]) -> None:
        """The newest ten, in the place of what was there; whole, whatever happens meanwhile."""
        place = self.place(user_id)
        history = _History(user_id=user_id, baselines=tuple(baselines[-KEPT:]))
        draft = place.with_name(_DRAFT + secrets.token_hex(4))
        try:
            if not place.parent.is_dir():
                place.parent.mkdir()
                sync(self.folder)
            self._sweep(place)
            with draft.open("xb") as file:
                file.write(history.model_dump_json(by_alias=True).encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(place)
            sync(place.parent)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise UsageError(
                f"{place} cannot be written: {error.strerror}. What was there is there; mend the folder, then "
                "do it again"
            ) from error

    def _sweep(self, place: Path) -> None:
        """Drafts of writers that were killed: under the lock there are no others."""
        for draft in place.parent.glob(f"{_DRAFT}*"):
            draft.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, user_id: UUID) -> Iterator[None]:
        import fcntl

        path = self.folder / _LOCKS / f"{user_id.hex[:2]}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("ab")
        except OSError as error:
            raise UsageError(
                f"{self.folder} cannot be written to: {error.strerror}. Name a folder that can"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _explained(content: bytes, error: ValidationError, where: str) -> HyperfeastError:
    """Why there is no history in a file: it is half written, a newer version's, or something else."""
    try:
        document = read_json(content, where=where)
        for one in (document, *_listed(document)):
            check_schema(one, where=where)
    except HyperfeastError as reason:
        return reason
    return damaged(error, where)


def _listed(document: object) -> list[object]:
    """The baselines of a document that may be anything."""
    found = document.get("baselines") if isinstance(document, dict) else None
    entries = found if isinstance(found, list) else []
    return [entry.get("baseline") for entry in entries if isinstance(entry, dict)]


def _user_of(path: Path) -> UUID | None:
    """Whose folder it is: its name is the UUID as it is usually written."""
    try:
        user_id = UUID(path.name)
    except ValueError:
        return None
    return user_id if path.is_dir() and str(user_id) == path.name else None
