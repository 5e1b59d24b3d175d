"""Tables on a narrow terminal: lines break between words, and what does not fit stands as a list."""

import operator
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperfeast.cli import console

COLUMNS = ["table", "kept for", "rows", "newest"]
ROWS = [
    ["user_baseline_revisions", "1m 5m: 6 months, 1d: forever", 1_234_567_890, None],
    ["candles", "forever", 7, "2024-01-02 21:00 UTC"],
]


def printed(
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: list[str],
    rows: list[list[object]],
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    console.print_table(columns, rows, title="a title")
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [66, 80, 100, 200])
def test_no_word_is_split(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(width, monkeypatch, capsys, COLUMNS, ROWS)
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert {"user_baseline_revisions", "months,", "1,234,567,890", "2024-01-02"} <= words
    assert {"table", "kept", "for", "rows", "newest"} <= words
    assert sum("user_baseline_revisions" in line for line in lines) == 1


def test_a_row_that_is_too_wide_is_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(40, monkeypatch, capsys, COLUMNS, ROWS)
    assert max(map(len, lines)) <= 40
    assert [line.split() for line in lines[:5]] == [
        ["a", "title"],
        ["table", "user_baseline_revisions"],
        ["kept", "for", "1m", "5m:", "6", "months,", "1d:", "forever"],
        ["rows", "1,234,567,890"],
        ["newest", "-"],
    ]
    assert any(line.split() == ["newest", "2024-01-02", "21:00", "UTC"] for line in lines)


def test_what_stands_in_a_cell_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in (80, 10):
        lines = printed(width, monkeypatch, capsys, ["a", "b"], [["[red]", "[/x]"]])
        assert {"[red]", "[/x]"} <= {word for line in lines for word in line.split()}


def test_a_table_without_rows_has_its_head(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "newest" in "".join(printed(80, monkeypatch, capsys, COLUMNS, []))


def lines_of(cell: str, width: int) -> int:
    return max(1, len(textwrap.wrap(cell, width, break_on_hyphens=False)))


cells = st.lists(st.sampled_from(["a", "bcd", "efghi", "jklmnopq"]), max_size=4).map(" ".join)


@settings(max_examples=40)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4), st.integers(2, 60))
def test_widths_hold_every_word_in_as_few_lines_as_can_be(
    lines: list[tuple[str, str]], room: int
) -> None:
    widths = console.column_widths(lines, room)
    columns = list(zip(*lines, strict=True))
    least = [
        max((len(word) for cell in column for word in cell.split()), default=1)
        for column in columns
    ]
    assert (widths is None) == (sum(least) > room)
    if widths is None:
        return
    assert sum(widths) <= room
    assert all(map(operator.ge, widths, least))

    def height(column: int, width: int) -> int:
        return sum(lines_of(cell, width) for cell in columns[column])

    fewest = min(
        height(0, width) + height(1, room - width) for width in range(least[0], room - least[1] + 1)
    )
    assert height(0, widths[0]) + height(1, widths[1]) == fewest


def test_a_word_that_is_too_long_is_broken() -> None:
    assert console.column_widths([["a" * 40, "b"]], 31) == [30, 1]
    assert console.column_widths([["a" * 40, "b"]], 50) == [40, 1]


def test_what_comes_in_every_row_is_on_one_line() -> None:
    head, row = ["the longest name of a column", "other"], ["two words", "2024-01-02 21:00 UTC"]
    assert console.column_widths([head, *[row] * 9], 9 + 20) == [9, 20]
    assert console.column_widths([head, row], 60) == [28, 20]
