"""What a row leaves behind for the next one to be compared with, and what an error says of the address."""

import numpy as np
import pyarrow as pa
import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from hyperfeast.errors import ServerUnreachable
from hyperfeast.stores import FastRedisOnlineStoreConfig
from hyperfeast.stores.online.exchange import translated
from hyperfeast.stores.online.layouts import HashLayout
from hyperfeast.stores.online.rows import NEVER, UNKNOWN, Rows

_EVENT = 1_700_000_000_000_000


def test_a_row_that_does_not_say_when_it_was_recorded_keeps_no_correction_out() -> None:
    """In a batch in which others do say it, too."""
    values = {"f": pa.array([b"1", b"1"], pa.large_binary())}
    keys = pa.array([b"a", b"b"], pa.large_binary())
    rows = Rows(keys, np.array([_EVENT, _EVENT]), np.array([UNKNOWN, _EVENT + 1]), values)
    _, event, _, recorded, *_ = HashLayout("view", 0)._fields(rows)

    stored = [[event[at].as_py(), recorded[at].as_py()] for at in range(2)]

    events, known = HashLayout("view", 0).times(stored)
    assert events.tolist() == [_EVENT, _EVENT]
    assert known.tolist() == [NEVER, _EVENT + 1]


def test_a_password_before_the_address_is_in_no_message() -> None:
    config = FastRedisOnlineStoreConfig(connection_string="password=hunter2,localhost:6379")
    with (
        pytest.raises(ServerUnreachable, match="localhost:6379") as raised,
        translated(config),
    ):
        raise RedisTimeoutError("too late")
    assert "hunter2" not in str(raised.value)
