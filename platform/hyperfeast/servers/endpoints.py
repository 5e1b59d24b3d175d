"""Which servers are in use: those that are named, else the embedded ones."""

from dataclasses import dataclass, field
from pathlib import Path

from hyperfeast.servers.postgres import PostgresServer
from hyperfeast.servers.redis import RedisServer


@dataclass(frozen=True)
class Endpoints:
    """Where PostgreSQL and Redis are. The addresses hold passwords and are in no repr."""

    postgres_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)


class EmbeddedServers:
    """Both embedded servers of one home."""

    def __init__(self, home: Path) -> None:
        self.postgres = PostgresServer(home / "postgres")
        self.redis = RedisServer(home / "redis")

    def down(self) -> list[str]:
        """Stop what is running; the names of what was stopped."""
        stopped: list[str] = []
        try:
            if self.postgres.down():
                stopped.append("PostgreSQL")
        finally:
            if self.redis.down():
                stopped.append("Redis")
        return stopped


def in_use(home: Path, *, postgres_dsn: str | None, redis_url: str | None) -> Endpoints:
    """The named servers; for each that is not named, the embedded one, started if need be.

    Args:
        home: where the embedded servers keep their data.
        postgres_dsn: a PostgreSQL that somebody runs.
        redis_url: a Redis that somebody runs.

    Raises:
        ServerStartFailed: an embedded server does not come up.
    """
    embedded = EmbeddedServers(home)
    return Endpoints(
        postgres_dsn or embedded.postgres.up(),
        redis_url or embedded.redis.up(),
    )


def found(
    home: Path, *, postgres_dsn: str | None, redis_url: str | None
) -> tuple[str | None, str | None]:
    """The same two addresses, None for an embedded server that does not run; starts nothing."""
    embedded = EmbeddedServers(home)
    return (
        postgres_dsn or embedded.postgres.running(),
        redis_url or embedded.redis.running(),
    )
