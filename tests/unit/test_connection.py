"""Addresses as Feast's configuration."""

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

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
