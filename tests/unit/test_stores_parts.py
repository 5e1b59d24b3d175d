"""A merge by way of files, in parts as small as can be, against the judge's definition."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

import point_in_time as judge
from hyperfeast.stores.offline import parts
from hyperfeast.stores.offline.asof import newest
from hyperfeast.stores.offline.columns import Column
from hyperfeast.stores.offline.parts import Sizes, sizes, spilled
from hyperfeast.stores.offline.request import View
from hyperfeast.stores.offline.sides import Side, Sides, key_columns, side
from hyperfeast.stores.offline.spine import Spine

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS = st.integers(0, 12)
_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "entity": st.none() | st.integers(0, 2),
            "event": st.none() | _MOMENTS,
            "created": st.none() | _MOMENTS,
        }
    ),
    min_size=1,
    max_size=40,
)
_SPINE = st.lists(
    st.fixed_dictionaries(
        {"entity": st.none() | st.integers(0, 3), "at": st.none() | _MOMENTS},
    ),
    min_size=1,
    max_size=25,
)


def _moment(number: int | None) -> datetime | None:
    return None if number is None else _EPOCH + timedelta(microseconds=number)


def _view(*, keyed: bool, has_created: bool, ttl_us: int | None) -> View:
    return View(
        name="view",
        relation=sql.SQL("rows"),
        keys={"entity": Column("entity", "int8")} if keyed else {},
        timestamp=Column("event", "timestamptz"),
        created=Column("created", "timestamptz") if has_created else None,
        ttl_us=ttl_us,
        features=[(Column("number", "int8"), "number")],
    )


def _side(spine: list[dict[str, Any]], *, keyed: bool) -> Side:
    at = [row["at"] for row in spine]
    keys = [pa.chunked_array([pa.array([row["entity"] for row in spine], pa.int64())])]
    counts = np.array([number or 0 for number in at], np.int64)
    timeless = np.array([number is None for number in at])
    return side(Spine(pa.table({"keys": keys[0]}), "at", counts, timeless), keys if keyed else [])


def _batches(view: View, rows: list[dict[str, Any]], size: int) -> list[pa.RecordBatch]:
    zoned = pa.timestamp("us", "UTC")
    columns = {
        **({"key_0": pa.array([row["entity"] for row in rows], pa.int64())} if view.keys else {}),
        "event": pa.array([row["event"] for row in rows], pa.int64()).cast(zoned),
        **(
            {"created": pa.array([row["created"] for row in rows], pa.int64()).cast(zoned)}
            if view.created
            else {}
        ),
        "f_0": pa.array(range(len(rows)), pa.int64()),
    }
    return pa.table(columns).to_batches(max_chunksize=size)


def _read(answer: Any, rows: int, step: int) -> Iterator[Any]:
    for start in range(0, rows, step):
        (column,) = answer.take(start, min(start + step, rows))
        yield from column.to_pylist()


@settings(max_examples=400)
@given(
    spine=_SPINE,
    rows=_ROWS,
    how=st.builds(
        Sizes,
        groups=st.integers(1, 3),
        spine_rows=st.integers(1, 6),
        batch_bytes=st.sampled_from([1, 100, 10_000]),
        answer_rows=st.integers(1, 5),
    ),
    keyed=st.booleans(),
    has_created=st.booleans(),
    by_created=st.booleans(),
    ttl_us=st.none() | st.integers(1, 8),
    steps=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_parts_give_what_the_judge_gives(
    spine: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    how: Sizes,
    keyed: bool,
    has_created: bool,
    by_created: bool,
    ttl_us: int | None,
    steps: tuple[int, int],
) -> None:
    view = _view(keyed=keyed, has_created=has_created, ttl_us=ttl_us)
    judged = judge.View(
        name="view",
        rows=[
            {
                "entity": row["entity"],
                "event": _moment(row["event"]),
                "created": _moment(row["created"]),
                "number": number,
            }
            for number, row in enumerate(rows)
        ],
        keys={"entity": "entity"} if keyed else {},
        timestamp="event",
        features={"number": "number"},
        created="created" if has_created else None,
        ttl=None if ttl_us is None else timedelta(microseconds=ttl_us),
    )
    asked = judge.Asked(at="at", filter_by_created=by_created)
    with ExitStack() as files:
        first, *rest = _batches(view, rows, steps[0])
        answer = spilled(
            view,
            [first],
            iter(rest),
            _side(spine, keyed=keyed),
            by_created=by_created,
            how=how,
            files=files,
        )
        found = list(_read(answer, len(spine), steps[1]))
    for number, row in zip(found, spine, strict=True):
        moment = {"entity": row["entity"], "at": _moment(row["at"])}
        assert {"number": number} in judge.answers(moment, judged, asked)


def test_the_spine_is_cut_where_its_entities_cannot_be() -> None:
    one_entity = _side([{"entity": 7, "at": number} for number in range(1_000)], keyed=True)
    how = sizes(2**20, 1_000, 2**30, one_entity)
    assert (how.groups, how.spine_rows) == (1, 131)
    many = _side([{"entity": number, "at": 1} for number in range(1_000)], keyed=True)
    assert sizes(2**20, 1_000, 2**30, many).groups == 128
    assert 64 <= how.answer_rows <= 8_192


@pytest.mark.parametrize("keyed", [True, False])
def test_the_rows_of_one_entity_are_never_in_memory_at_once(
    keyed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100,000 rows of 24 bytes and more, 65,536 bytes of them at a time, for parts of 500 spine rows."""
    most = 0

    def noted(moments: Any, rows: Any, **how: Any) -> Any:
        nonlocal most
        most = max(most, len(rows.events))
        return newest(moments, rows, **how)

    monkeypatch.setattr(parts, "newest", noted)
    view = _view(keyed=keyed, has_created=False, ttl_us=None)
    rows = [{"entity": 1, "event": number} for number in range(100_000)]
    spine = [{"entity": 1, "at": number * 50} for number in range(2_000)]
    first, *rest = _batches(view, rows, 1_000)
    with ExitStack() as files:
        answer = spilled(
            view,
            [first],
            iter(rest),
            _side(spine, keyed=keyed),
            by_created=False,
            how=Sizes(groups=1, spine_rows=500, batch_bytes=65_536, answer_rows=64),
            files=files,
        )
        assert list(_read(answer, 2_000, 300)) == [row["at"] for row in spine]
    assert 500 < most < 10_000


def test_views_that_spill_have_one_file_open_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three views of 40 parts each: what is written is closed before it is read."""
    most = 0

    def noted(moments: Any, rows: Any, **how: Any) -> Any:
        nonlocal most
        most = max(most, _open_files())
        return newest(moments, rows, **how)

    monkeypatch.setattr(parts, "newest", noted)
    view = _view(keyed=True, has_created=False, ttl_us=None)
    rows = [{"entity": number % 40, "event": number} for number in range(400)]
    spine = [{"entity": number % 40, "at": number} for number in range(400)]
    before = _open_files()
    with ExitStack() as files:
        answers = [
            spilled(
                view,
                _batches(view, rows, 400),
                iter(()),
                _side(spine, keyed=True),
                by_created=False,
                how=Sizes(groups=40, spine_rows=1_000, batch_bytes=65_536, answer_rows=64),
                files=files,
            )
            for _ in range(3)
        ]
        for answer in answers:
            assert list(_read(answer, 400, 90)) == list(range(400))
        assert _open_files() - before == 3
        # Those of the views before, the rows' and the answer's.
        assert most - before <= 4
    assert _open_files() == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_spine_that_was_read_is_let_go() -> None:
    keys = pa.chunked_array([pa.array([1, 2], pa.int64())])
    spine = Spine(pa.table({"entity": keys}), "at", np.array([1, 2]), None)
    view = _view(keyed=True, has_created=False, ttl_us=None)
    sides = Sides(spine, key_columns(spine, [view]))
    assert sides.only(view, 10) is not None
    kept = weakref.ref(sides)
    del sides
    gc.collect()
    assert kept() is None
