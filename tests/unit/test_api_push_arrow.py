"""An Arrow IPC stream from anybody: read, or refused, and the process lives."""

import io
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from hyperfeast.api import arrow
from hyperfeast.api.bodies import BodyLimit, BodyTooLarge
from hyperfeast.errors import DataError

_MAX_ROWS = 1_000
_LIMIT = BodyLimit(1 << 20, "split it")


def stream(table: Any, **options: Any) -> bytes:
    """The table as an IPC stream."""
    body = io.BytesIO()
    with pa.ipc.new_stream(body, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return body.getvalue()


def bars(rows: int = 20) -> Any:
    """A table with a column of each kind that is read."""
    return pa.table(
        {
            "symbol": pa.array([f"S{n % 3}" for n in range(rows)]).dictionary_encode(),
            "name": pa.array([None if n == 1 else "é" * n for n in range(rows)]),
            "ts": pa.array(range(rows), pa.timestamp("us", "America/New_York")),
            "seconds": pa.array(range(rows), pa.timestamp("s")),
            "day": pa.array(range(rows), pa.date32()),
            "millis": pa.array([n * 86_400_000 for n in range(rows)], pa.date64()),
            "close": pa.array([n / 7 for n in range(rows)]),
            "half": pa.array([float(n) for n in range(rows)], pa.float16()),
            "volume": pa.array(range(rows), pa.uint64()),
            "tick": pa.array([Decimal(n) / 100 for n in range(rows)], pa.decimal128(12, 2)),
            "flag": pa.array([n % 2 == 0 for n in range(rows)]),
            "nothing": pa.nulls(rows),
        }
    )


def read(body: bytes) -> pl.DataFrame:
    return arrow.read(body, _MAX_ROWS, _LIMIT)


def test_every_plain_type_is_read() -> None:
    frame = read(stream(bars()))
    assert frame.row(3, named=True) == {
        "symbol": "S0",
        "name": "ééé",
        "ts": datetime(1970, 1, 1, 0, 0, 0, 3, tzinfo=UTC),
        "seconds": datetime(1970, 1, 1, 0, 0, 3),  # noqa: DTZ001 - without a zone, as it was sent
        "day": date(1970, 1, 4),
        "millis": datetime(1970, 1, 4),  # noqa: DTZ001
        "close": 3 / 7,
        "half": 3.0,
        "volume": 3,
        "tick": Decimal("0.03"),
        "flag": False,
        "nothing": None,
    }
    assert frame["name"].null_count() == 1
    assert frame.schema["ts"] == pl.Datetime("us", "America/New_York")


def test_batches_and_dictionaries_that_grow_are_one_frame() -> None:
    parts = [
        pa.table({"a": pa.array([name, None, name]).dictionary_encode()}) for name in ("x", "y")
    ]
    body = io.BytesIO()
    with pa.ipc.new_stream(body, parts[0].schema) as writer:
        for part in parts:
            writer.write_table(part)
    assert read(body.getvalue())["a"].to_list() == ["x", None, "x", "y", None, "y"]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Pacific/Apia"])
def test_times_that_no_calendar_holds_can_still_be_shown(unit: str, zone: str | None) -> None:
    counts = [-(2**63), -(2**55), 0, None, 2**55, 2**63 - 1]
    frame = read(stream(pa.table({"ts": pa.array(counts, pa.timestamp(unit, zone))})))
    shown = frame.rows()
    assert [row[0] is None for row in shown] == [count is None for count in counts]
    assert frame["ts"].drop_nulls().is_sorted()


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_dates_that_no_calendar_holds_can_still_be_shown(kind: Any) -> None:
    widest = 2**31 - 1 if kind == pa.date32() else (2**62 // 86_400_000) * 86_400_000
    frame = read(stream(pa.table({"ts": pa.array([-widest, 0, None, widest], kind)})))
    assert [str(row[0])[:4] for row in frame.rows()] == ["0001", "1970", "None", "9999"]


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_unopened(codec: str) -> None:
    with pytest.raises(DataError, match="Content-Encoding: gzip"):
        read(stream(bars(), compression=codec))


def _claiming(rows: int, claimed: int) -> bytes:
    """A stream of nulls whose metadata claim another number of them."""
    body = stream(pa.table({"a": pa.nulls(rows)}))
    # The batch's length, its column's, and how many of those are null.
    assert body.count(rows.to_bytes(8, "little")) == 3
    return body.replace(rows.to_bytes(8, "little"), claimed.to_bytes(8, "little", signed=True))


def test_the_rows_that_a_batch_claims_are_counted_before_they_are_made() -> None:
    assert read(_claiming(777, 778)).height == 778
    for claimed in (_MAX_ROWS + 1, 2**60, 2**63 - 1):
        with pytest.raises(BodyTooLarge):
            read(_claiming(777, claimed))
    with pytest.raises(DataError):
        read(_claiming(777, -5))


def test_rows_of_all_batches_count_together() -> None:
    assert read(stream(bars(_MAX_ROWS))).height == _MAX_ROWS
    table = pa.concat_tables([bars(600), bars(600)]).select(["close"])
    with pytest.raises(BodyTooLarge):
        read(stream(table))


def test_what_unpacks_to_more_than_it_says_is_too_large() -> None:
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000, pa.int8()), ["x" * 10_000])
    body = stream(pa.table({"a": long}))
    assert len(body) < 20_000
    with pytest.raises(BodyTooLarge):
        read(body)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "no Arrow IPC stream"),
        (lambda: b"\0" * 100, "expected 1 to 64 columns|no Arrow IPC stream"),
        (lambda: b"ARROW1\0\0" + stream(bars()), "no Arrow IPC stream"),
        (lambda: b'{"rows": []}', "no Arrow IPC stream"),
        (lambda: stream(bars())[:-200], "no Arrow IPC stream"),
        (lambda: stream(bars(1).slice(0, 0)), "no rows"),
        (lambda: stream(pa.table({})), "expected 1 to 64 columns"),
        (lambda: stream(pa.table({f"c{n}": [1] for n in range(65)})), "found 65"),
        (lambda: stream(pa.table({"c" * 101: [1]})), "longer than 100"),
        (lambda: stream(pa.table([[1], [2]], names=["a", "a"])), "more than one column 'a'"),
        (lambda: stream(pa.table({"a": [[1]]})), "holds list"),
        (lambda: stream(pa.table({"a": [{"b": 1}]})), "holds struct"),
        (lambda: stream(pa.table({"a": [b"x"]})), "holds binary"),
        (lambda: stream(pa.table({"a": pa.array([1], pa.duration("s"))})), "holds duration"),
        (lambda: stream(pa.table({"a": pa.array([1], pa.time64("us"))})), "holds time64"),
        (
            lambda: stream(pa.table({"a": pa.array([1], pa.timestamp("s", "Mars/Base"))})),
            "Mars/Base",
        ),
        (lambda: stream(pa.table({"a": pa.array([1]).dictionary_encode()})), "holds dictionary"),
        (
            lambda: stream(pa.table({"a": pa.array([None], pa.decimal128(30, -2))})),
            "holds decimal",
        ),
        (lambda: stream(pa.table({"a": pa.array(["x"], pa.string_view())})), "holds string_view"),
        (
            lambda: stream(pa.table({"a": [1]}).replace_schema_metadata({"x": "y" * (2 << 20)})),
            "bytes of metadata",
        ),
        (lambda: stream(pa.table({"a": [1.0] * 3}))[:8] + b"\xff" * 400, "no Arrow IPC stream"),
    ],
    ids=range(21),
)
def test_what_is_not_read_is_refused(make: Callable[[], bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(make())


def test_a_stream_of_endless_empty_batches_is_refused() -> None:
    body = io.BytesIO()
    batch = pa.record_batch({"a": pa.array([], pa.int64())})
    with pa.ipc.new_stream(body, batch.schema) as writer:
        for _ in range(10_001):
            writer.write_batch(batch)
    with pytest.raises(DataError, match=r"over 10,000 batches"):
        read(body.getvalue())


def test_text_that_is_no_utf8_is_refused() -> None:
    body = stream(pa.table({"a": ["abcdefgh"]}))
    assert body.count(b"abcdefgh") == 1
    with pytest.raises(DataError):
        read(body.replace(b"abcdefgh", b"\xff\xfeabcdef"))


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_streams_are_refused_and_the_process_lives(seed: int) -> None:
    ran = subprocess.run(
        [sys.executable, str(Path(__file__)), str(seed), "1500"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    read_ones, refused, too_large = map(int, ran.stdout.split())
    assert read_ones + refused + too_large == 1500
    assert min(read_ones, refused, too_large) > 0


def _damaged(body: bytes, chance: random.Random) -> bytes:
    match chance.randrange(4):
        case 0:
            return body[: chance.randrange(len(body))]
        case 1:
            return chance.randbytes(chance.randrange(400))
        case 2:
            changed = bytearray(body)
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            return bytes(changed)
        case _:
            # Where the lengths and offsets stand: numbers that are too large, or negative.
            changed = bytearray(body)
            place = 4 * chance.randrange(len(body) // 4)
            number = chance.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16, chance.getrandbits(32)])
            changed[place : place + 4] = number.to_bytes(4, "little")
            return bytes(changed)


def _fuzz(seed: int, times: int) -> None:
    """Read damaged streams, look at every cell of what is read, and print what came of them."""
    chance = random.Random(seed)
    bodies = [
        stream(bars(5)),
        stream(bars(300).select(["symbol", "name", "close"])),
        stream(bars(1)),
    ]
    counts = {"read": 0, "refused": 0, "too large": 0}
    for _ in range(times):
        try:
            read(_damaged(chance.choice(bodies), chance)).rows()
            counts["read"] += 1
        except DataError:
            counts["refused"] += 1
        except BodyTooLarge:
            counts["too large"] += 1
    print(*counts.values())  # noqa: T201


if __name__ == "__main__":
    _fuzz(int(sys.argv[1]), int(sys.argv[2]))
