"""A password that Redis refuses is asked once: it would be refused again."""

import time

import numpy as np
import pyarrow as pa
import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError
from redis.retry import Retry

from hyperfeast.stores.online import write
from hyperfeast.stores.online.layouts import HashLayout
from hyperfeast.stores.online.rows import Rows


def test_a_refused_password_is_not_tried_again(redis_url: str) -> None:
    parts = redis.connection.parse_url(redis_url)  # type: ignore[no-untyped-call]
    address = {"host": parts["host"], "port": parts["port"]}
    values = {"f": pa.array([b"value"], pa.large_binary())}
    rows = Rows(pa.array([b"key"], pa.large_binary()), np.array([0]), np.array([0]), values)
    with redis.Redis(**address, password="wrong", retry=Retry(NoBackoff(), 0)) as client:
        destination = write.Destination(client, HashLayout("view", 0), 0.0, retries=10)
        started = time.monotonic()
        with pytest.raises(AuthenticationError):
            write.write(destination, [rows])
    # Ten pauses of up to half a second each.
    assert time.monotonic() - started < 1
