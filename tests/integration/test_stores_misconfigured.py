"""A PostgreSQL that answers, but not to what feature_store.yaml says: what is wrong and where it is written."""

from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from hyperfeast.db import Database
from hyperfeast.errors import QueryFailed, ServerUnreachable
from hyperfeast.stores.connection import postgres_config
from hyperfeast.stores.offline.connection import connection
from hyperfeast.stores.offline.store import TimescaleOfflineStoreConfig

_WRONG = [
    ({"sslmode": "required"}, 'invalid sslmode value: "required"'),
    ({"sslmode": "require"}, "server does not support SSL, but SSL was required"),
    ({"dbname": "not_there"}, 'database "not_there" does not exist'),
]


@pytest.mark.parametrize(("wrong", "said"), _WRONG)
def test_what_is_wrong_is_said_with_where_it_is_written(
    empty_database: Database, wrong: dict[str, Any], said: str
) -> None:
    dsn = make_conninfo(empty_database.dsn, **wrong)
    with pytest.raises(
        QueryFailed, match=f"as configured: {said}: correct HYPERFEAST_POSTGRES_DSN"
    ):
        Database(dsn).fetch("SELECT")

    config = TimescaleOfflineStoreConfig(**postgres_config(dsn))
    with (
        pytest.raises(QueryFailed, match=f"{said}: correct offline_store in feature_store.yaml"),
        connection(config),
    ):
        pass


def test_a_server_that_does_not_answer_is_no_mistake_of_the_configuration() -> None:
    with pytest.raises(ServerUnreachable, match="does not answer"):
        Database("postgresql://user@127.0.0.1:1/db").fetch("SELECT")
