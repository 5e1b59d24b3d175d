"""What the commands print: tables and progress for people, one JSON document for machines."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

# A longer one, a path or two names in one, may be broken anywhere.
_LONGEST_WORD = 30
# The lines by which widths are chosen.
_MOST_WEIGHED = 100

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]


def print_json(value: Any) -> None:
    """One JSON document on standard output; dataclasses become objects, times ISO 8601."""
    import orjson

    plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    sys.stdout.write(orjson.dumps(plain, default=str, option=options).decode() + "\n")


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None
) -> None:
    """A table on standard output. Numbers stand to the right; None is a dash.

    Lines break between words. Where the terminal has no room even so, every row is a list of its own.
    """
    from rich.console import Console

    cells = [list(map(text, row)) for row in rows]
    numeric = [any(isinstance(one, int | float) for one in column) for column in _turned(rows)]
    console = Console(highlight=False)
    widths = column_widths([columns, *cells], console.width - _frame_width(len(columns)))
    if widths is None:
        console.print(_as_lists(columns, cells, title))
    else:
        console.print(
            _as_table(columns, cells, title, widths, numeric or [False] * len(columns)),
        )


def column_widths(lines: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """How wide each column is to be, in cells of the terminal; None if the longest words do not fit.

    What is left beyond the words is given to columns so that the cells take as few lines as they can.

    Args:
        lines: the head and the rows, as many cells each.
        room: for all columns together.
    """
    columns = list(zip(*lines[:_MOST_WEIGHED], strict=True))
    least = [
        min(max(map(_widest_word, column)), _LONGEST_WORD) for column in zip(*lines, strict=True)
    ]
    spare = room - sum(least)
    if spare < 0:
        return None
    # Of the columns so far: room beyond the words that they use -> fewest lines, and their widths then.
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for column, width in zip(columns, least, strict=True):
        most = min(spare, max(0, max(map(_widest_line, column)) - width))
        wider = [
            (more, sum(_lines(cell, width + more) for cell in column)) for more in range(most + 1)
        ]
        found: dict[int, tuple[int, list[int]]] = {}
        for used, (count, widths) in best.items():
            for more, needed in wider:
                total = used + more
                if total <= spare and count + needed < found.get(total, (math.inf,))[0]:
                    found[total] = count + needed, [*widths, width + more]
        best = found
    return min(best.values())[1]


def _lines(cell: str, width: int) -> int:
    """How many lines the words take."""
    from rich.cells import cell_len

    lines, room = 1, width
    for size in map(cell_len, cell.split()):
        if size > room and room < width:
            lines, room = lines + 1, width
        # A word that is wider than the column goes on on the next lines.
        further = max(0, -(-size // width) - 1)
        lines += further
        room = (room if not further else width) - (size - further * width) - 1
    return lines


def _widest_word(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.split()), default=1)


def _widest_line(cell: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.split("\n")))


def _turned(lines: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    return list(zip(*lines, strict=True))


def _frame_width(columns: int) -> int:
    """What the box and the padding take."""
    return 3 * columns + 1


def _as_table(
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    title: str | None,
    widths: Sequence[int],
    numeric: Sequence[bool],
) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for name, width, is_number in zip(columns, widths, numeric, strict=True):
        table.add_column(
            name, justify="right" if is_number else "left", width=width, overflow="fold"
        )
    for row in cells:
        table.add_row(*map(Text, row))
    return table


def _as_lists(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str | None) -> "Table":
    """Names on the left, values on the right, an empty line between rows."""
    from rich.table import Table
    from rich.text import Text

    lists = Table.grid(padding=(0, 1), pad_edge=True)
    lists.title, lists.title_justify, lists.title_style = title, "left", "bold"
    lists.add_column(style="dim", overflow="fold")
    lists.add_column(overflow="fold")
    for row in cells:
        for name, value in zip(columns, row, strict=True):
            lists.add_row(name, Text(value))
        lists.add_row()
    return lists


def say(message: str) -> None:
    """One line on standard output."""
    sys.stdout.write(message + "\n")


def complain(message: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"error: {message}\n")


def text(value: Any) -> str:
    """A value as a person reads it."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"  # noqa: PLR2004
        case datetime():
            return f"{value:%Y-%m-%d %H:%M} UTC"
        case _:
            return str(value)


@contextmanager
def spinner(message: str) -> Iterator[Callable[[str], None]]:
    """Something that turns while one waits, on standard error; the yielded function changes its text."""
    from rich.console import Console

    with Console(stderr=True).status(message) as status:
        yield status.update


@contextmanager
def progress_bar(message: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error; the yielded function takes (done, total)."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    with Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task(message, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
