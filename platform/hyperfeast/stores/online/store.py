"""Feast's Redis online store, written and read in bulk: same keys, same fields, same bytes."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from inspect import signature
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    StrictStr,
    model_validator,
)
from redis import Connection, Redis, RedisCluster, Sentinel, SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError
from redis.retry import Retry

from hyperfeast.errors import DataError, ServerError, UsageError
from hyperfeast.stores.configuration import PluginConfig
from hyperfeast.stores.online import removal, wire
from hyperfeast.stores.online.exchange import translated
from hyperfeast.stores.online.incoming import FeastRow, Reader, rows_of_feast
from hyperfeast.stores.online.layouts import HashLayout, Layout, PackedLayout
from hyperfeast.stores.online.packed import Schema
from hyperfeast.stores.online.read import OnlineReads
from hyperfeast.stores.online.read_async import AsyncOnlineReads
from hyperfeast.stores.online.reading import CLIENT_LOCK
from hyperfeast.stores.online.rows import Rows
from hyperfeast.stores.online.write import Destination, Written, write

# What Redis's clients take, and an option of Feast's documentation that they overlook.
_OPTIONS = {
    name
    for client in (Redis, RedisCluster, Sentinel, Connection, SSLConnection)
    for name in signature(client).parameters
} - {"host", "port", "kwargs", "sentinels", "startup_nodes"} | {"skip_full_coverage_check"}
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5


class FastRedisOnlineStoreConfig(PluginConfig, RedisOnlineStoreConfig):
    """Feast's keys for Redis, and ours.

    `skip_dedup` is accepted and changes nothing: an older row never overwrites a newer one.
    """

    section: ClassVar[str] = "online_store"

    # Feast passes the dotted path on: the inherited literal would refuse it.
    type: StrictStr = "hyperfeast.stores.FastRedisOnlineStore"
    connection_string: StrictStr = Field("localhost:6379", repr=False)
    layout: Literal["feast", "packed"] = "feast"
    """`feast`: a field a feature, which Feast's own store reads; `packed`: one value a view and entity."""
    future_tolerance_seconds: NonNegativeFloat = 300
    """How far ahead of Redis's clock an event time may lie; rows beyond are refused."""
    socket_timeout: PositiveFloat = 5
    """Seconds to wait for Redis to connect and to answer, unless the connection string says otherwise."""
    retries: NonNegativeInt = 2
    """How often a lost connection is tried again. A timeout is not: the error comes when it says."""

    @model_validator(mode="after")
    def _with_timeouts(self) -> "FastRedisOnlineStoreConfig":
        """All of Feast's clients are made from the connection string, so the timeouts go there."""
        _refuse_unreadable(self.connection_string)
        written = [part.partition("=")[0] for part in self.connection_string.split(",")]
        for name in ("socket_timeout", "socket_connect_timeout"):
            if name not in written:
                self.connection_string += f",{name}={self.socket_timeout}"
        return self


class FastRedisOnlineStore(OnlineReads, AsyncOnlineReads):
    """Feast's wire format on Redis, on a cluster, or behind a sentinel.

    Of the rows of an entity the newest (event, recorded) wins, whoever writes and in whatever order;
    a correction at an equal event time is applied.
    """

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows as Feast passes them.

        Raises:
            DataError: event times lie in the future; the other rows were written.
            ServerError: Redis does not answer, or refuses. Each entity's row is whole, new or old.
        """
        self._write(config, table, rows_of_feast(config, data), progress)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Sequence[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The same, off the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def write_arrow(
        self,
        config: RepoConfig,
        view: FeatureView,
        batches: Iterable[pa.RecordBatch],
        *,
        timestamp_field: str,
        created_field: str | None = None,
        progress: Callable[[int], Any] | None = None,
    ) -> Written:
        """Write Arrow batches, without a Python object a value.

        Args:
            config: of the repository.
            view: whose rows they are.
            batches: columns named by join key and by feature; any number of rows an entity, in any order.
            timestamp_field: the column of event times; naive ones are UTC.
            created_field: the column of the times of recording, if there is one.
            progress: called with a number of rows as soon as they are dealt with.

        Raises:
            DataError: a column or a value is missing, or is not of its declared type; nothing of that batch
                was written. Or event times lie in the future; the other rows were written.
            ServerError: Redis does not answer, or refuses. Each entity's row is whole, new or old.
        """
        reader = Reader.of(config, view, timestamp_field, created_field)
        return self._write(config, view, map(reader.rows, batches), progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        """Delete what is no longer in use.

        Raises:
            FeatureError: two features of a view that is kept would be one field in Redis.
        """
        for view in tables_to_keep:
            name = wire.versioned_name(view, config)
            wire.refuse_collisions(name, [feature.name for feature in view.features])
        with translated(config.online_store):
            super().update(
                config,
                tables_to_delete,
                tables_to_keep,
                entities_to_delete,
                entities_to_keep,
                partial,
            )

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete a view's rows, in both layouts."""
        client = self._get_client(config.online_store)
        name = wire.versioned_name(table, config)
        features = [feature.name for feature in table.features]
        removal.delete_view(client, name, features, table.join_keys, config.project)
        removal.delete_packed_view(client, name, table.join_keys, config.project)

    def delete_entity_values(self, config: RepoConfig, join_keys: list[str]) -> None:
        """Delete the rows of all views of the entities with these join keys."""
        client = self._get_client(config.online_store)
        removal.delete(client, removal.entity_keys(client, join_keys, config.project))

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Delete the rows of these views, and of all others of their entities."""
        with translated(config.online_store):
            client = self._get_client(config.online_store)
            for table in tables:
                name = wire.versioned_name(table, config)
                removal.delete_packed_view(client, name, table.join_keys, config.project)
            super().teardown(config, tables, entities)

    def _write(
        self,
        config: RepoConfig,
        view: FeatureView,
        batches: Iterable[Rows],
        progress: Callable[[int], Any] | None,
    ) -> Written:
        options = config.online_store
        with _errors(options, view):
            written = write(self._destination(config, view), batches, progress)
        if written.refused:
            latest = np.datetime64(written.latest_refused, "us")
            raise DataError(
                f"feature view {view.name!r}: {written.refused:,} rows were not written, because their "
                f"event time is more than {options.future_tolerance_seconds:g} s ahead of Redis's clock "
                f"(the latest: {latest} UTC): correct the times, or their time zone, in the source, or "
                f"raise `future_tolerance_seconds`; the other {written.rows + written.kept:,} are done"
            )
        return written

    def _destination(self, config: RepoConfig, view: FeatureView) -> Destination:
        options = config.online_store
        return Destination(
            self._get_client(options),
            _layout(config, view),
            options.future_tolerance_seconds,
            options.retries,
        )

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        """Feast's client, whose own retries would take half a minute.

        A second one, made by another thread meanwhile, would close the first one's connections in mid-read
        when it replaces it.
        """
        with CLIENT_LOCK:
            if not self._client:
                client = super()._get_client(online_store_config)
                client.set_retry(Retry(**_retry(online_store_config)))
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if not self._client_async:
            client = await super()._get_client_async(online_store_config)
            client.set_retry(AsyncRetry(**_retry(online_store_config)))
        return self._client_async


def _refuse_unreadable(connection_string: str) -> None:
    """What Feast would make a client of that does not work. A part behind an option may be a password's rest."""
    options = False
    addresses = 0
    for number, part in enumerate(connection_string.split(","), 1):
        name, is_option, _ = part.partition("=")
        if is_option and "://" not in name:
            options = True
            _refuse_unknown_option(name.strip(), number)
            continue
        host, _, port = part.partition(":")
        addresses += 1
        if host.strip() and port.strip().isdecimal() and 0 < int(port) < 2**16:
            continue
        if "://" in part:
            raise _unreadable(
                f"a URL as its part {number}",
                "leave the scheme out, and write a password as password=…",
            )
        if options:
            raise _unreadable(
                f"something else as its part {number}",
                "correct it; write a comma within a value as \\u002c, and that value in double quotes",
            )
        raise _unreadable(
            f"{part!r} as its part {number}", "write an address such as localhost:6379"
        )
    if not addresses:
        raise _unreadable("no address", "add one, such as localhost:6379")


def _refuse_unknown_option(name: str, number: int) -> None:
    if name in _OPTIONS:
        return
    close = get_close_matches(name.lower(), sorted(_OPTIONS), n=1, cutoff=0.5)
    if close:
        raise _unreadable(f"the unknown option {name!r}", f"did you mean {close[0]!r}?")
    raise _unreadable(
        f"an unknown option as its part {number}",
        "remove it; the usual ones are db, username, password, ssl, ssl_ca_certs, socket_timeout",
    )


def _unreadable(found: str, remedy: str) -> UsageError:
    return UsageError(
        "online_store of feature_store.yaml: connection_string: expected host:port,option=value,…, found "
        f"{found}: {remedy}"
    )


def _layout(config: RepoConfig, view: FeatureView) -> Layout:
    options, name = config.online_store, wire.versioned_name(view, config)
    ttl_s = options.key_ttl_seconds or 0
    if options.layout == "packed":
        return PackedLayout(name, Schema.of(view), ttl_s)
    return HashLayout(name, ttl_s)


@contextmanager
def _errors(options: RedisOnlineStoreConfig, view: FeatureView) -> Iterator[None]:
    """Redis's errors in our words."""
    with translated(options):
        try:
            yield
        except OutOfMemoryError as error:
            raise ServerError(
                f"feature view {view.name!r}: Redis is full ({error}): the rows up to here are written, "
                "the others are as they were. Raise `maxmemory`, or set `key_ttl_seconds` to let entities "
                "expire, and run it again"
            ) from error


def _retry(options: RedisOnlineStoreConfig) -> dict[str, Any]:
    """A connection that breaks is tried again, within half a second; a timeout has waited enough."""
    return {
        "backoff": ExponentialBackoff(cap=_LONGEST_PAUSE_S, base=_FIRST_PAUSE_S),
        "retries": options.retries,
        "supported_errors": (RedisConnectionError,),
    }
