"""The as-of match and the numbering of entities, against the judge's definition."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import point_in_time as judge
from hyperfeast.errors import FeatureError
from hyperfeast.stores.offline.asof import Rows, newest, sorted_moments
from hyperfeast.stores.offline.columns import Column
from hyperfeast.stores.offline.entities import Entities, key_values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIMES = st.integers(0, 12)
# So far apart that entity and time do not fit into one integer side by side.
_FAR = st.integers(0, 12).map(lambda number: number * 2**58)


def _row(times: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "entity": st.integers(-1, 4),
            "event": st.none() | times,
            "created": st.none() | times,
        }
    )


def _moment(times: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"entity": st.integers(-1, 4), "at": st.none() | times})


def _counts(values: list[int | None]) -> tuple[np.ndarray, np.ndarray]:
    absent = np.array([value is None for value in values], bool)
    return np.array([value or 0 for value in values], np.int64), absent


@pytest.mark.parametrize("times", [_TIMES, _FAR], ids=["packed", "ranked"])
@given(data=st.data())
def test_the_newest_row_is_the_judges(times: st.SearchStrategy[int], data: st.DataObject) -> None:
    spine = data.draw(st.lists(_moment(times), max_size=12))
    rows = data.draw(st.lists(_row(times), max_size=20))
    has_created, by_created = data.draw(st.booleans()), data.draw(st.booleans())
    ttl = data.draw(st.none() | st.sampled_from([1, 3, 2**58]))

    events, eventless = _counts([row["event"] for row in rows])
    created, unrecorded = _counts([row["created"] for row in rows])
    at, timeless = _counts([row["at"] for row in spine])
    moments = sorted_moments(np.array([row["entity"] for row in spine], np.int64), 5, at, timeless)
    entities = np.array([row["entity"] for row in rows], np.int64)
    found = newest(
        moments,
        Rows(
            entities,
            events,
            eventless,
            created if has_created else None,
            unrecorded if has_created else None,
        ),
        ttl_us=ttl,
        by_created=by_created,
    )
    for position, asked in zip(found, spine, strict=True):
        right = _right(asked, rows, ttl, has_created=has_created, by_created=by_created)
        assert (int(position) in right) if right else position == -1


def _right(
    asked: dict[str, Any],
    rows: list[dict[str, Any]],
    ttl: int | None,
    *,
    has_created: bool,
    by_created: bool,
) -> list[int]:
    """All positions that are equally right; plain integers, since Python's times end before these."""

    def order(number: int) -> tuple[int, float]:
        created = rows[number]["created"] if has_created else None
        return rows[number]["event"], -np.inf if created is None else created

    def matches(row: dict[str, Any]) -> bool:
        at, event = asked["at"], row["event"]
        if at is None or event is None or event > at or (ttl is not None and event < at - ttl):
            return False
        if row["entity"] != asked["entity"] or row["entity"] < 0:
            return False
        known = row["created"] is not None and row["created"] <= at
        return known or not (has_created and by_created)

    able = [number for number, row in enumerate(rows) if matches(row)]
    best = max(map(order, able), default=None)
    return [number for number in able if order(number) == best]


def test_a_backfill_recorded_later_hides_no_older_row_that_was_known() -> None:
    """The case that a running maximum is for: event times and recorded times in opposite orders."""
    day = timedelta(days=1) // timedelta(microseconds=1)
    events = np.array([1, 2, 3], np.int64) * day
    created = np.array([9, 5, 7], np.int64) * day
    rows = Rows(None, events, None, created, None)
    moments = sorted_moments(
        np.zeros(5, np.int64), 1, np.array([4, 5, 7, 9, 10], np.int64) * day, None
    )
    assert newest(moments, rows, ttl_us=None, by_created=True).tolist() == [-1, 1, 2, 2, 2]
    view = judge.View(
        name="view",
        rows=[
            {
                "event": _EPOCH + timedelta(days=event),
                "created": _EPOCH + timedelta(days=recorded),
                "n": number,
            }
            for number, (event, recorded) in enumerate([(1, 9), (2, 5), (3, 7)])
        ],
        keys={},
        timestamp="event",
        created="created",
        features={"n": "n"},
    )
    answers = [
        judge.answers(
            {"at": _EPOCH + timedelta(days=number)},
            view,
            judge.Asked(at="at", filter_by_created=True),
        )
        for number in (4, 5, 7, 9, 10)
    ]
    assert [answer[0]["n"] for answer in answers] == [None, 1, 2, 2, 2]


_KEYS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=8)


@given(spine=st.lists(st.tuples(*[st.none() | st.integers(0, 3)] * 2), max_size=8), rows=st.data())
def test_composite_keys_are_compared_column_by_column(
    spine: list[tuple[int | None, int | None]], rows: st.DataObject
) -> None:
    other = rows.draw(st.lists(st.tuples(*[st.none() | st.integers(0, 4)] * 2), max_size=8))
    _same_entities(spine, other, pa.int64())
    texts = [tuple(None if own is None else "1" * own for own in row) for row in spine]
    other_texts = [tuple(None if own is None else "1" * own for own in row) for row in other]
    _same_entities(texts, other_texts, pa.string())


@given(spine=_KEYS, other=_KEYS)
def test_integers_of_any_size_are_keys(spine: list[int | None], other: list[int | None]) -> None:
    _same_entities([(own,) for own in spine], [(own,) for own in other], pa.int64())


def _same_entities(spine: list[Any], rows: list[Any], kind: pa.DataType) -> None:
    width = len(spine[0]) if spine else 1

    def columns(table: list[Any]) -> list[Any]:
        return [pa.chunked_array([pa.array([row[k] for row in table], kind)]) for k in range(width)]

    entities = Entities(columns(spine), len(spine))
    found = entities.of(columns(rows))
    assert found is not None
    for code, key in zip(found, rows, strict=True):
        same = [number for number, own in enumerate(spine) if own == key and None not in own]
        assert [
            number for number, own in enumerate(entities.codes) if own == code and own >= 0
        ] == same
        assert (code >= 0) == bool(same)


def test_a_view_without_entities_has_one() -> None:
    entities = Entities([], 3)
    assert entities.codes.tolist() == [0, 0, 0]
    assert entities.of([]) is None


def test_what_a_key_cannot_hold_equals_nothing() -> None:
    floats = pa.chunked_array([pa.array([1.0, 1.5, None, 2.0**63, -(2.0**63)])])
    whole = key_values(floats, "id", "view", Column("id", "int4"))
    assert whole.to_pylist() == [1, None, None, None, -(2**63)]
    texts = pa.chunked_array([pa.array(["{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}", "no", None])])
    assert key_values(texts, "id", "view", Column("id", "uuid")).to_pylist() == [
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        None,
        None,
    ]


_UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (_UUID, _UUID),
        (_UUID.upper(), _UUID),
        (_UUID.replace("-", ""), _UUID),
        ("{a0eebc999c0b-4ef8-bb6d-6bb9bd380a11}", _UUID),
        ("a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", _UUID),
        ("x" * 36, None),
        (_UUID[:-1] + "g", None),
        ("{" + _UUID, None),
        (_UUID + "-", None),
        ("a0e-ebc999c0b4ef8bb6d6bb9bd380a11", None),
        # What Python's int() takes for digits.
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a_1", None),
        ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1\u0661", None),
        ("", None),
        (None, None),
    ],
)
def test_a_text_is_a_uuid_where_postgresql_takes_it_for_one(
    text: str | None, found: str | None
) -> None:
    texts = pa.chunked_array([pa.array([text, _UUID], pa.string())])
    assert key_values(texts, "id", "view", Column("id", "uuid")).to_pylist() == [found, _UUID]


def test_keys_that_cannot_be_compared_are_named() -> None:
    texts = pa.chunked_array([pa.array(["1"])])
    with pytest.raises(
        FeatureError, match=r"'stats'.*'driver' is int8.*'driver_id' is string.*convert the spine's"
    ):
        key_values(texts, "driver_id", "stats", Column("driver", "int8"))
