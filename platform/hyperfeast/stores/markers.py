"""What Redis is known to hold of each view, kept in Redis itself: gone with the data, back with the data.

Feast's registry says up to which moment a view was brought online, and goes on saying so when Redis
comes back empty, or from an old copy. Beside the data stands a marker of our own with the same
moment: where the two disagree, what is missing is read again.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from feast import FeatureView
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hyperfeast.errors import ServerUnreachable

# Each step of a run renews its key, so that this is what a run that was killed leaves it for. A query may
# take long before its first row comes, and the first step.
_RUN_KEPT_S = 6 * 3600
_NO_ANSWER = (RedisConnectionError, RedisTimeoutError)
# A run's last step and its marker at once: else Redis could be emptied between them, and have a marker
# without rows. Keys: the run's count, the marker. Values: the count before, the count, for how long it is
# kept, the marker's fields and values. A client that lost the connection before the answer came does it twice.
_FINISH = """
local count = redis.call('GET', KEYS[1])
if count ~= ARGV[1] and count ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
return 1
"""


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
        # In braces the marker's key: both are in the same slot of a cluster, as a script needs them.
        run = Run(self, view, f"hyperfeast:online:run:{{{self._key(view)}}}:{uuid4().hex}")
        self.client.set(run.key, 0, ex=_RUN_KEPT_S)
        try:
            yield run
        except BaseException as error:
            # A Redis that does not answer would keep the error waiting once more: then the key goes by itself.
            if not isinstance(error.__cause__ or error, _NO_ANSWER):
                with suppress(RedisError):
                    self.client.delete(run.key)
            raise
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


@dataclass
class Run:
    """A bringing online that is under way.

    Its key counts its steps. Redis keeps writes in their order, whichever of the last it loses: as long as the
    count is that of the run, all rows of the steps are there.

    Attributes:
        markers: the project's.
        view: the view's name in Redis.
        key: the count's, in Redis.
        steps: how many there were.
    """

    markers: Markers
    view: str
    key: str
    steps: int = 0

    def step(self) -> None:
        """Say that rows were written since the last step.

        Raises:
            ServerUnreachable: Redis was emptied, or came back empty or older, since the run began (retryable).
        """
        client, before = self.markers.client, self.steps
        self.steps += 1
        found = client.set(self.key, self.steps, xx=True, get=True, ex=_RUN_KEPT_S)
        # A client that lost the connection before the answer came has done it twice.
        if found is None or int(found) not in (before, self.steps):
            raise _lost()

    def finish(self, end: datetime, newest: datetime | None) -> Marker:
        """Say that all rows up to `end` are in.

        Args:
            end: the last event time that was read for (UTC).
            newest: the newest event time among the rows; None where there were none.

        Raises:
            ServerUnreachable: Redis was emptied, or came back empty or older, since the run began (retryable).
        """
        known = self.markers.of(self.view)
        marker = Marker(
            max(end, known.end) if known else end,
            max([at for at in (newest, known and known.newest) if at], default=None),
        )
        written = {"end": marker.end.isoformat()}
        if marker.newest:
            written["newest"] = marker.newest.isoformat()
        fields = [text for pair in written.items() for text in pair]
        before, self.steps = self.steps, self.steps + 1
        counts = (before, self.steps, _RUN_KEPT_S)
        keys = (self.key, self.markers._key(self.view))  # noqa: SLF001 - its own
        if not self.markers.client.eval(_FINISH, len(keys), *keys, *counts, *fields):
            raise _lost()
        return marker


def _lost() -> ServerUnreachable:
    return ServerUnreachable(
        "Redis was emptied while it was written to, or came back empty or with older rows: do it "
        "again, which fills it from the beginning"
    )


def _moment(written: bytes | str) -> datetime:
    text = written.decode() if isinstance(written, bytes) else written
    return datetime.fromisoformat(text).astimezone(UTC)
