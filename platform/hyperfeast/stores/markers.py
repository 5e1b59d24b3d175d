"""What Redis is known to hold of each view, kept in Redis itself: gone with the data, back with the data.

Feast's registry says up to which moment a view was brought online, and goes on saying so when Redis
comes back empty, or from an old copy. Beside the data stands a marker of our own with the same
moment: where the two disagree, what is missing is read again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from feast import FeatureView

from hyperfeast.errors import ServerUnreachable

# A run that was killed leaves its key behind; no run takes so long.
_RUN_KEPT_S = 7 * 86_400


@dataclass(frozen=True)
class Marker:
    """Up to where a view's rows are in Redis.

    Attributes:
        end: the last event time that was read for it (UTC).
        newest: the newest event time that was written (UTC); None where no row ever was.
    """

    end: datetime
    newest: datetime | None


@dataclass(frozen=True)
class Markers:
    """The markers of one project.

    Args:
        client: redis-py's, of any kind.
        project: the Feast project.
    """

    client: Any
    project: str

    def of(self, view: str) -> Marker | None:
        """The view's marker; None where Redis has never had its rows, or has lost them."""
        end, newest = self.client.hmget(self._key(view), ["end", "newest"])
        return Marker(_moment(end), _moment(newest) if newest else None) if end else None

    def forget(self, view: str) -> None:
        """Delete the marker, with the rows."""
        self.client.delete(self._key(view))

    @contextmanager
    def run(self, view: str) -> Iterator["Run"]:
        """One bringing of a view online, which notices if Redis loses what was written in the meantime."""
        run = Run(self, view, f"{self._key(view)}:run:{uuid4().hex}")
        self.client.set(run.key, 1, ex=_RUN_KEPT_S)
        yield run
        self.client.delete(run.key)

    def start_for(self, view: FeatureView, name: str, asked: datetime) -> datetime:
        """From where a view has to be read: earlier than asked where Redis lacks what the registry says it has.

        Args:
            view: with the intervals that the registry knows.
            name: the view's name in Redis.
            asked: the first event time that Feast asks for (UTC).
        """
        intervals: list[tuple[datetime, datetime]] = view.materialization_intervals
        if not intervals:
            return asked
        marker = self.of(name)
        if marker is None:
            return min(asked, *(start for start, _ in intervals))
        return min(asked, marker.end) if marker.end < max(end for _, end in intervals) else asked

    def _key(self, view: str) -> str:
        return f"hyperfeast:online:{self.project}:{view}"


@dataclass(frozen=True)
class Run:
    """A bringing online that is under way.

    Attributes:
        markers: the project's.
        view: the view's name in Redis.
        key: what is in Redis as long as Redis has lost nothing since the run began.
    """

    markers: Markers
    view: str
    key: str

    def finish(self, end: datetime, newest: datetime | None) -> Marker:
        """Say that all rows up to `end` are in.

        Args:
            end: the last event time that was read for (UTC).
            newest: the newest event time among the rows; None where there were none.

        Raises:
            ServerUnreachable: Redis was emptied, or came back empty, since the run began (retryable).
        """
        client = self.markers.client
        if not client.exists(self.key):
            raise ServerUnreachable(
                "Redis was emptied while it was written to, or came back empty: do it again, which "
                "fills it from the beginning"
            )
        known = self.markers.of(self.view)
        marker = Marker(
            max(end, known.end) if known else end,
            max([at for at in (newest, known and known.newest) if at], default=None),
        )
        written = {"end": marker.end.isoformat()}
        if marker.newest:
            written["newest"] = marker.newest.isoformat()
        client.hset(self.markers._key(self.view), mapping=written)  # noqa: SLF001 - its own
        return marker


def _moment(written: bytes | str) -> datetime:
    text = written.decode() if isinstance(written, bytes) else written
    return datetime.fromisoformat(text).astimezone(UTC)
