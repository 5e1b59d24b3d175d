"""Which servers Feast is to use when its own command line, not ours, started the process.

Feast builds its stores from `feature_store.yaml` alone, and the embedded servers have no fixed
address. So this module, and no other below the composition root, reads the settings.
"""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from psycopg import conninfo
from redis.connection import parse_url

from hyperfeast.errors import UsageError
from hyperfeast.servers import Endpoints, in_use
from hyperfeast.settings import load

_REDIS_TIMEOUT_S = 5

# libpq's name -> Feast's.
_FEASTS_KEYS = {
    "sslkey": "sslkey_path",
    "sslcert": "sslcert_path",
    "sslrootcert": "sslrootcert_path",
    "keepalives_idle": "keepalives_idle",
}
# What Feast has keys for, and what decides nothing about where and how safely one connects: the stores set
# these themselves.
_POSTGRES_KEYS = {
    *("host", "port", "user", "password", "dbname", "sslmode"),
    *_FEASTS_KEYS,
    *("application_name", "fallback_application_name", "connect_timeout", "client_encoding"),
    *("keepalives", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
}
# Of redis.Redis, to which Feast hands them on: numbers, truths and texts.
_REDIS_OPTIONS = {
    *("db", "username", "password", "client_name", "max_connections", "health_check_interval"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "retry_on_timeout"),
    *("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password"),
    *("ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"),
}


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
    """A PostgreSQL DSN as the keys of Feast's PostgreSQL config.

    Raises:
        UsageError: it says what those keys cannot: several hosts, an option that Feast has no key for.
    """
    parts = {key: str(value) for key, value in conninfo.conninfo_to_dict(dsn).items() if value}
    _refuse_inexpressible(parts)
    return {
        "host": parts.get("host", "localhost"),
        "port": int(parts.get("port", 5432)),
        "user": parts.get("user", ""),
        "password": parts.get("password", ""),
        "database": parts.get("dbname", parts.get("user", "")),
        # Feast's own default is `require`, which no embedded server can meet; libpq's is `prefer`, and
        # `verify-full` with the certificates of the system.
        "sslmode": parts.get(
            "sslmode", "verify-full" if parts.get("sslrootcert") == "system" else "prefer"
        ),
        **{key: parts[own] for own, key in _FEASTS_KEYS.items() if own in parts},
    }


def _refuse_inexpressible(parts: Mapping[str, str]) -> None:
    for key in ("host", "port"):
        if "," in parts.get(key, ""):
            raise UsageError(
                f"HYPERFEAST_POSTGRES_DSN: expected one {key}, found several ({parts[key]}), and Feast's "
                "configuration takes one: write the primary's, or the address of a proxy that knows it"
            )
    for key in parts:
        if key not in _POSTGRES_KEYS:
            raise UsageError(
                f"HYPERFEAST_POSTGRES_DSN: its option {key!r} would be lost, since Feast's configuration has no "
                "key for it: leave it out there, and set it where libpq looks besides (PG… variables of the "
                f"environment) if need be; taken are {', '.join(sorted(_POSTGRES_KEYS))}"
            )


def redis_config(url: str) -> dict[str, Any]:
    """A Redis URL as the keys of Feast's Redis config.

    The timeout is ours where the URL has none: without one Feast's read hangs when Redis stops answering.

    Raises:
        UsageError: the URL says what Feast's connection string cannot.
    """
    parts: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    parts.pop("connection_class", None)
    address = f"{_redis_host(parts.pop('host', 'localhost'))}:{parts.pop('port', 6379)}"
    options = {
        "ssl": True if url.startswith("rediss:") else None,
        # Redis's client goes by the socket where it has one, whatever the host.
        "unix_socket_path": parts.pop("path", None),
        "socket_timeout": _REDIS_TIMEOUT_S,
        "socket_connect_timeout": _REDIS_TIMEOUT_S,
        **parts,
    }
    for name in parts:
        if name not in _REDIS_OPTIONS:
            raise UsageError(
                f"HYPERFEAST_REDIS_URL: its option {name!r} would be lost, since Feast's connection string has "
                f"no place for it: leave it out; taken are {', '.join(sorted(_REDIS_OPTIONS))}"
            )
    written = [f"{key}={_escaped(value)}" for key, value in options.items() if value is not None]
    return {"connection_string": ",".join([address, *written])}


def _redis_host(host: str) -> str:
    if ":" in host:
        raise UsageError(
            f"HYPERFEAST_REDIS_URL: expected a name or an IPv4 address, found {host}, and Feast's connection "
            "string splits addresses at their colons: write a name that stands for it"
        )
    return host


def _escaped(value: str | float) -> str:
    """A value for Feast's connection string, which is split at commas and each part read as JSON."""
    return json.dumps(value).replace(",", "\\u002c")


def registry_url(dsn: str) -> str:
    """A PostgreSQL DSN as the SQLAlchemy URL of Feast's registry."""
    from sqlalchemy import URL

    parts = postgres_config(dsn)
    # A folder with a socket is no host of a URL.
    socket = parts["host"] if parts["host"].startswith("/") else None
    options = {own: parts[key] for own, key in _FEASTS_KEYS.items() if key in parts}
    return URL.create(
        "postgresql+psycopg",
        username=parts["user"],
        password=parts["password"],
        host=None if socket else parts["host"],
        port=parts["port"],
        database=parts["database"],
        query={"sslmode": parts["sslmode"], **options, **({"host": socket} if socket else {})},
    ).render_as_string(hide_password=False)
