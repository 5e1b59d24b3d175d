"""Which servers Feast is to use when its own command line, not ours, started the process.

Feast builds its stores from `feature_store.yaml` alone, and the embedded servers have no fixed
address. So this module, and no other below the composition root, reads the settings.
"""

import json
from functools import cache
from typing import Any

from psycopg import conninfo
from redis.connection import parse_url

from hyperfeast.servers import Endpoints, in_use
from hyperfeast.settings import load

_REDIS_TIMEOUT_S = 5


@cache
def servers_in_use() -> Endpoints:
    """The servers that the environment names, else the embedded ones, started if need be."""
    settings = load()
    dsn, url = settings.postgres_dsn, settings.redis_url
    return in_use(
        settings.home,
        postgres_dsn=dsn.get_secret_value() if dsn else None,
        redis_url=url.get_secret_value() if url else None,
    )


def postgres_config(dsn: str) -> dict[str, Any]:
    """A PostgreSQL DSN as the keys of Feast's PostgreSQL config."""
    parts = conninfo.conninfo_to_dict(dsn)
    return {
        "host": str(parts.get("host", "localhost")),
        "port": int(parts.get("port") or 5432),
        "user": str(parts.get("user", "")),
        "password": str(parts.get("password", "")),
        "database": str(parts.get("dbname", parts.get("user", ""))),
        # Feast's own default is `require`, which no embedded server can meet; libpq's is `prefer`.
        "sslmode": str(parts.get("sslmode", "prefer")),
    }


def redis_config(url: str) -> dict[str, Any]:
    """A Redis URL as the keys of Feast's Redis config.

    The timeout is ours: without one Feast's read hangs when Redis stops answering.
    """
    parts: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    options = {
        "db": parts.get("db"),
        "username": parts.get("username"),
        "password": parts.get("password"),
        "ssl": True if url.startswith("rediss:") else None,
        "socket_timeout": _REDIS_TIMEOUT_S,
        "socket_connect_timeout": _REDIS_TIMEOUT_S,
    }
    address = f"{parts.get('host', 'localhost')}:{parts.get('port', 6379)}"
    written = [f"{key}={_escaped(value)}" for key, value in options.items() if value is not None]
    return {"connection_string": ",".join([address, *written])}


def _escaped(value: str | int) -> str:
    """A value for Feast's connection string, which is split at commas and each part read as JSON."""
    return json.dumps(value).replace(",", "\\u002c")


def registry_url(dsn: str) -> str:
    """A PostgreSQL DSN as the SQLAlchemy URL of Feast's registry."""
    from sqlalchemy import URL

    parts = postgres_config(dsn)
    return URL.create(
        "postgresql+psycopg",
        username=parts["user"],
        password=parts["password"],
        host=parts["host"],
        port=parts["port"],
        database=parts["database"],
        query={"sslmode": parts["sslmode"]},
    ).render_as_string(hide_password=False)
