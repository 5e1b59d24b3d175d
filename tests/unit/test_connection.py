"""Addresses as Feast's configuration."""

from typing import Any

import pytest
import redis
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres import (
    PostgreSQLOfflineStoreConfig,
)
from feast.infra.online_stores.redis import RedisOnlineStore
from sqlalchemy import make_url

from hyperfeast.errors import UsageError
from hyperfeast.stores.connection import postgres_config, redis_config, registry_url


@pytest.mark.parametrize("password", ["plain", "12345", "a,b=c", "true", 'q"uote', "sp ace"])
def test_feast_reads_the_redis_password_that_was_meant(password: str) -> None:
    from urllib.parse import quote

    written = redis_config(f"redis://:{quote(password)}@127.0.0.1:7000/3")["connection_string"]
    nodes, options = RedisOnlineStore._parse_connection_string(written)
    assert nodes == [{"host": "127.0.0.1", "port": "7000"}]
    assert options == {
        "db": 3,
        "password": password,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
    }


def test_tls_is_kept() -> None:
    written = redis_config("rediss://h:1/0")["connection_string"]
    assert RedisOnlineStore._parse_connection_string(written)[1]["ssl"] is True


def test_a_database_password_survives_the_way_into_a_url() -> None:
    dsn = "postgresql://u:p%40ss%2Fword@h:5433/d?sslmode=disable"
    assert postgres_config(dsn)["password"] == "p@ss/word"
    assert registry_url(dsn) == "postgresql+psycopg://u:p%40ss%2Fword@h:5433/d?sslmode=disable"


def test_certificates_and_modes_of_a_dsn_reach_feasts_keys() -> None:
    dsn = (
        "postgresql://u:p@h/d?sslmode=verify-full&sslrootcert=/c/root.pem&sslcert=/c/own.pem&sslkey=/c/own.key"
        "&keepalives_idle=30&application_name=x"
    )
    config = PostgreSQLOfflineStoreConfig(type="postgres", **postgres_config(dsn))
    assert (config.sslmode, config.keepalives_idle) == ("verify-full", 30)
    paths = (config.sslrootcert_path, config.sslcert_path, config.sslkey_path)
    assert paths == ("/c/root.pem", "/c/own.pem", "/c/own.key")
    assert make_url(registry_url(dsn)).query == {
        "sslmode": "verify-full",
        "sslrootcert": "/c/root.pem",
        "sslcert": "/c/own.pem",
        "sslkey": "/c/own.key",
        "keepalives_idle": "30",
    }


def test_the_systems_certificates_are_for_full_verification_as_in_libpq() -> None:
    assert postgres_config("postgresql://u@h/d?sslrootcert=system")["sslmode"] == "verify-full"
    assert postgres_config("postgresql://u@h/d")["sslmode"] == "prefer"


def test_a_folder_with_a_socket_is_a_host_for_the_registry_too() -> None:
    found = make_url(registry_url("host=/run/postgresql port=5433 user=u password=p dbname=d"))
    assert (found.host, found.port, found.database) == (None, 5433, "d")
    assert found.query["host"] == "/run/postgresql"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sslcrl", "/c/x.crl"),
        ("service", "s"),
        ("require_auth", "scram-sha-256"),
        ("options", "-c%20a%3Db"),
    ],
)
def test_what_feast_has_no_key_for_is_refused(option: str, value: str) -> None:
    with pytest.raises(
        UsageError, match=rf"option '{option}' would be lost.*leave it out"
    ) as refused:
        postgres_config(f"postgresql://u:s3cret@h/d?{option}={value}")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("dsn", "named"),
    [
        ("postgresql://u:s3cret@a:1,b:2/d", "one host, found several \\(a,b\\)"),
        ("postgresql://u:s3cret@a,b/d", "one host, found several \\(a,b\\)"),
        ("host=a port=1,2 user=u password=s3cret", "one port, found several \\(1,2\\)"),
    ],
)
def test_several_hosts_are_refused_by_name(dsn: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        postgres_config(dsn)
    assert "s3cret" not in str(refused.value)


def _redis(url: str) -> tuple[Any, Any]:
    return RedisOnlineStore._parse_connection_string(redis_config(url)["connection_string"])


def test_redis_certificates_and_timeouts_are_kept() -> None:
    _, options = _redis(
        "rediss://h:1/0?ssl_ca_certs=/c/a,b.pem&ssl_cert_reqs=none&ssl_check_hostname=no&socket_timeout=1.5"
    )
    assert options == {
        "ssl": True,
        "db": 0,
        "ssl_ca_certs": "/c/a,b.pem",
        "ssl_cert_reqs": "none",
        "ssl_check_hostname": False,
        "socket_timeout": 1.5,
        "socket_connect_timeout": 5,
    }


def test_a_redis_socket_is_what_feasts_client_connects_to() -> None:
    _, options = _redis("unix://:p@/run/redis.sock?db=2")
    assert (options["unix_socket_path"], options["db"]) == ("/run/redis.sock", 2)
    client = redis.Redis(host="localhost", port=6379, **options)
    assert client.connection_pool.connection_kwargs["path"] == "/run/redis.sock"


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://:s3cret@h?retry_on_error=x", "option 'retry_on_error' would be lost"),
        ("redis://:s3cret@h?anything=1", "option 'anything' would be lost.*leave it out"),
        ("redis://:s3cret@[::1]:6379/0", "IPv4 address, found ::1"),
    ],
)
def test_what_feasts_connection_string_cannot_say_is_refused(url: str, named: str) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        redis_config(url)
    assert "s3cret" not in str(refused.value)
