"""An answer as it comes: what speaks Arrow's protocol reads it, and closing it ends what it comes from."""

import threading
from collections.abc import Generator
from contextlib import closing

import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest

from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.stores.offline.ahead import ahead, awaited
from hyperfeast.stores.offline.stream import RecordBatches

_SCHEMA = pa.schema([("a", pa.int64())])


def _batches(closed: list[bool], failure: Exception | None = None) -> RecordBatches:
    def rows() -> Generator[pa.RecordBatch, None, None]:
        try:
            yield pa.record_batch({"a": [1, 2]})
            if failure:
                raise failure
            yield pa.record_batch({"a": [3]})
        finally:
            closed.append(True)

    return RecordBatches(_SCHEMA, rows())


def test_it_is_read_as_a_reader_of_arrow_is() -> None:
    assert [batch.num_rows for batch in _batches([])] == [2, 1]
    assert _batches([]).read_all().column("a").to_pylist() == [1, 2, 3]
    assert _batches([]).read_pandas()["a"].to_list() == [1, 2, 3]
    stream = _batches([])
    assert stream.schema == _SCHEMA
    assert stream.read_next_batch().num_rows == 2
    assert stream.read_all().num_rows == 1
    with pytest.raises(StopIteration):
        stream.read_next_batch()


def test_whatever_takes_arrows_protocol_takes_it() -> None:
    assert pa.table(_batches([])).num_rows == 3
    assert pl.DataFrame(_batches([]))["a"].to_list() == [1, 2, 3]
    assert pa.RecordBatchReader.from_stream(_batches([])).read_all().num_rows == 3
    assert pa.dataset.Scanner.from_batches(_batches([])).to_table().num_rows == 3


def test_closing_it_closes_what_it_comes_from_while_it_is_still_referred_to() -> None:
    closed: list[bool] = []
    stream = _batches(closed)
    with stream:
        stream.read_next_batch()
        assert not closed
    assert closed == [True]
    with pytest.raises(UsageError, match="ask the job for them anew"):
        stream.read_all()


def test_an_error_comes_as_it_is() -> None:
    with pytest.raises(FeatureError, match="no such column"):
        _batches([], FeatureError("no such column")).read_all()


def test_what_is_left_early_is_canceled() -> None:
    """The thread waits for its second item until it is canceled, as it would for a server."""
    canceled = threading.Event()

    def items() -> Generator[int, None, None]:
        yield 1
        assert canceled.wait(30)
        raise FeatureError("canceled")

    with closing(ahead(items(), 1, canceled.set)) as found:
        assert next(found) == 1
    assert canceled.is_set()


def test_what_ends_by_itself_is_not() -> None:
    canceled = threading.Event()
    assert list(ahead((number for number in range(10)), 2, canceled.set)) == [*range(10)]
    assert awaited(lambda: 7, canceled.set) == 7
    with pytest.raises(FeatureError):
        awaited(lambda: (_ for _ in ()).throw(FeatureError("failed")), canceled.set)
    assert not canceled.is_set()
