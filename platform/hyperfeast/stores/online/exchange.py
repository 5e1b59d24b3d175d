"""Commands to Redis and replies back, over whichever client the store has, in one round trip.

A connection is taken from the client's pool once and kept for the next exchange: taking and returning one
costs as much as reading an entity. An exchange that fails closes its connection, so that no reply is left
in it for the next one.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from feast.infra.online_stores.redis import RedisOnlineStoreConfig, RedisType
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hyperfeast import cache
from hyperfeast.stores.online.resp import Channel
from hyperfeast.stores.online.views import Commands


class Exchange(Protocol):
    """Where commands go."""

    def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands.

        Raises:
            RedisError: Redis does not answer in time, or answers one of them with an error.
        """


class AsyncExchange(Protocol):
    """The same without blocking the event loop."""

    async def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""


class OverConnections:
    """One Redis, or the one that a sentinel names: the bytes as they are, over connections of the client."""

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._idle: deque[Channel] = deque()
        # Half of what the pool may have: writers take theirs from it, too.
        self._most = client.connection_pool.max_connections // 2
        self._process = os.getpid()

    def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""
        if not commands.replies:
            return []
        channel, is_kept = self._take()
        try:
            replies = _exchanged(channel, commands, may_be_closed=is_kept)
        except BaseException:
            self._pool.release(channel.connection)
            raise
        if len(self._idle) < self._most:
            self._idle.append(channel)
        else:
            self._pool.release(channel.connection)
        return replies

    def _take(self) -> tuple[Channel, bool]:
        """A channel, and whether it is one that was kept."""
        if self._process != os.getpid():
            # A forked child would read its parent's replies.
            self._idle, self._process = deque(), os.getpid()
        try:
            return self._idle.pop(), True
        except IndexError:
            return Channel(self._pool.get_connection()), False


class OverAsyncConnections:
    """The same over a client of redis.asyncio."""

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool

    async def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""
        if not commands.replies:
            return []
        connection = await self._pool.get_connection()
        try:
            await connection.send_packed_command([commands.payload])
            replies = [
                await connection.read_response(disable_decoding=True)
                for _ in range(commands.replies)
            ]
        except BaseException:
            await connection.disconnect()
            raise
        finally:
            await self._pool.release(connection)
        return replies


class OverPipeline:
    """A cluster: its client knows which node has which key."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""
        with self._client.pipeline(transaction=False) as pipe:
            for name, *arguments in commands.each():
                # The client looks for the key by the command's name, as text.
                pipe.execute_command(name.decode(), *arguments)
            return list(pipe.execute())


class OverAsyncPipeline:
    """The same over a client of redis.asyncio."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""
        async with self._client.pipeline(transaction=False) as pipe:
            for name, *arguments in commands.each():
                # The client looks for the key by the command's name, as text.
                pipe.execute_command(name.decode(), *arguments)
            return list(await pipe.execute())


class OverGlide:
    """Valkey GLIDE, Feast's other client: its batch runs outside of Python's lock."""

    def __init__(self, glide: Any, client: Any) -> None:
        self._glide = glide
        self._client = client

    def send(self, commands: Commands) -> list[Any]:
        """The replies, in the order of the commands."""
        is_cluster = isinstance(self._client, self._glide.GlideClusterClient)
        batch = (self._glide.ClusterBatch if is_cluster else self._glide.Batch)(is_atomic=False)
        for command in commands.each():
            batch.custom_command(list(command))
        try:
            return list(self._client.exec(batch, raise_on_error=True) or [])
        except self._glide.GlideError as error:
            raise RedisError(str(error)) from error


def exchange_of(config: RedisOnlineStoreConfig, client: Any, glide: Any = None) -> Exchange:
    """How to talk through a client of the store's configuration.

    Args:
        config: the store's.
        client: of redis-py, or of GLIDE.
        glide: GLIDE's module, if the client is one of its.
    """
    if glide is not None:
        return OverGlide(glide, client)
    if config.redis_type == RedisType.redis_cluster:
        return OverPipeline(client)
    return OverConnections(client)


def async_exchange_of(config: RedisOnlineStoreConfig, client: Any) -> AsyncExchange:
    """How to talk through a client of redis.asyncio."""
    if config.redis_type == RedisType.redis_cluster:
        return OverAsyncPipeline(client)
    return OverAsyncConnections(client)


@contextmanager
def translated(config: RedisOnlineStoreConfig) -> Iterator[None]:
    """Redis's errors in our words, with its address and without its password.

    Raises:
        ServerUnreachable: it does not answer in time.
        AccessDenied: it refuses the password.
        QueryFailed: it refuses a command.
    """
    # The address may stand anywhere between the options, of which one is the password.
    parts = config.connection_string.split(",")
    address = next((part for part in parts if "=" not in part), "unknown")
    written = "connection_string under online_store in feature_store.yaml"
    setting = getattr(config, "connection_setting", written)
    with cache.translated(f"redis://{address}", setting=setting, remedy=f"See {setting}"):
        yield


def raise_translated(config: RedisOnlineStoreConfig, error: RedisError) -> NoReturn:
    """The same for an error that is there already: what costs nothing where there is none."""
    with translated(config):
        raise error


def _exchanged(channel: Channel, commands: Commands, *, may_be_closed: bool) -> list[Any]:
    try:
        return channel.exchange(commands.payload, commands.replies)
    except RedisConnectionError:
        # Redis closes what was idle too long, and everything when it is restarted.
        if not may_be_closed:
            raise
        channel.connect_again()
        return channel.exchange(commands.payload, commands.replies)
