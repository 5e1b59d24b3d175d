"""The judge is judged by hand: each rule of it once, kept and broken."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from point_in_time import Asked, View, answers, differences, latest, of_range, unmatched

_PLAIN = Asked()
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)
_DAY, _MICRO = timedelta(days=1), timedelta(microseconds=1)


def at(days: float) -> datetime:
    return _FIRST + days * _DAY


def view(*rows: tuple[Any, ...], created: bool = True, ttl: timedelta | None = None) -> View:
    """Rows of key, event, created, feature."""
    return View(
        name="v",
        rows=[dict(zip(("k", "ts", "created", "f"), row, strict=True)) for row in rows],
        keys={"key": "k"},
        timestamp="ts",
        created="created" if created else None,
        ttl=ttl,
        features={"f": "f"},
    )


def asked(joined: View, moment: datetime | None, how: Asked = _PLAIN, *, key: Any = 1) -> list[Any]:
    return [row["f"] for row in answers({"key": key, "event_timestamp": moment}, joined, how)]


ROWS = view((1, at(0), at(0), "old"), (1, at(2), at(2), "new"), (1, at(2), at(4), "corrected"))


@pytest.mark.parametrize(
    ("moment", "right"),
    [
        (at(0) - _MICRO, None),
        (at(0), "old"),
        (at(2) - _MICRO, "old"),
        (at(2), "corrected"),
        (at(9), "corrected"),
        (None, None),
    ],
)
def test_the_newest_row_that_is_not_after_the_moment(moment: datetime | None, right: str) -> None:
    assert asked(ROWS, moment) == [right]


def test_an_unknown_key_and_none_match_nothing() -> None:
    with_none = view((None, at(0), at(0), "nobody's"))
    assert asked(with_none, at(1), key=None) == asked(ROWS, at(1), key=2) == [None]


def test_a_ttl_counts_its_end() -> None:
    aging = view((1, at(0), at(0), "old"), ttl=_DAY)
    assert asked(aging, at(1)) == ["old"]
    assert asked(aging, at(1) + _MICRO) == [None]


def test_what_was_not_created_yet_does_not_count_where_it_is_asked() -> None:
    assert asked(ROWS, at(3), Asked(filter_by_created=True)) == ["new"]
    assert asked(ROWS, at(3), Asked(known_at=at(1))) == ["old"]
    assert asked(ROWS, at(9), Asked(filter_by_created=True, known_at=at(3))) == ["new"]


def test_a_created_time_that_is_not_known_is_the_first() -> None:
    unknown = view((1, at(0), None, "unknown"), (1, at(0), at(0), "known"))
    assert asked(unknown, at(1)) == ["known"]
    only = view((1, at(0), None, "unknown"))
    assert asked(only, at(1)) == ["unknown"]
    assert asked(only, at(1), Asked(filter_by_created=True)) == [None]


def test_all_that_tie_are_right() -> None:
    assert asked(view((1, at(0), at(0), "a"), (1, at(0), at(0), "b")), at(1)) == ["a", "b"]
    assert asked(view((1, at(0), at(0), "a"), (1, at(0), at(1), "b"), created=False), at(1)) == [
        "a",
        "b",
    ]


def test_a_training_set_is_compared_row_by_row() -> None:
    spine = [{"key": 1, "event_timestamp": at(2)}, {"key": 1, "event_timestamp": at(0)}]
    right = [{**spine[0], "f": "corrected"}, {**spine[1], "f": "old"}]
    assert list(differences(right, spine, [ROWS])) == []
    assert "expected 2 rows" in next(differences(right[:1], spine, [ROWS]))
    assert "the spine has" in next(differences(right[::-1], spine, [ROWS]))
    assert "v gives" in next(differences([right[0], {**spine[1], "f": "new"}], spine, [ROWS]))
    turned = [{"event_timestamp": row["event_timestamp"], "key": 1, "f": row["f"]} for row in right]
    assert "the spine's columns" in next(differences(turned, spine, [ROWS]))


def test_nan_is_itself_and_no_null() -> None:
    nan = [{"f": math.nan}]
    assert list(unmatched(nan, [nan])) == []
    assert list(unmatched(nan, [[{"f": None}]]))


def test_each_answer_is_used_once() -> None:
    right: list[list[dict[str, Any]]] = [[{"f": 1}, {"f": 2}], [{"f": 3}]]
    assert list(unmatched([{"f": 3}, {"f": 2}], right)) == []
    assert list(unmatched([{"f": 1}, {"f": 2}], right))
    assert list(unmatched([{"f": 1}], right))


def test_a_range_has_each_event_once() -> None:
    values = [[row["f"] for row in rows] for rows in of_range(ROWS, at(0), at(2))]
    assert values == [["old"], ["corrected"]]
    known = of_range(ROWS, at(1), at(2), Asked(filter_by_created=True))
    assert [[row["f"] for row in rows] for rows in known] == [["new"]]


def test_the_latest_may_come_late() -> None:
    late = view(
        (1, at(5), at(5), "seen"), (2, at(1), at(6), "late"), (None, at(6), at(6), "nobody's")
    )

    def found(late_from: datetime | None) -> list[Any]:
        return [rows[0]["f"] for rows in latest(late, at(5), at(7), late_from=late_from)]

    assert found(None) == ["seen"]
    assert found(at(5)) == ["seen", "late"]
