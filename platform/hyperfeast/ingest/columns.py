"""Which column of a file is which: by the names that the field uses, or as the caller says."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hyperfeast.cells import SYMBOL_NAMES, TIME_NAMES
from hyperfeast.errors import DataError, UsageError

# It is a close divided by splits that came after the bar: a look into the future.
_LATER_REVISED = frozenset({"adjclose", "adjustedclose", "closeadj", "closeadjusted"})


@dataclass(frozen=True)
class Column:
    """One column that a table wants, and the names under which files carry it, in lower case."""

    name: str
    aliases: tuple[str, ...]
    required: bool = True


TIME = Column("ts", TIME_NAMES)
SYMBOL = Column("symbol", SYMBOL_NAMES)


def locate(
    found: Sequence[str],
    wanted: Sequence[Column],
    mapping: Mapping[str, str] | None = None,
    given: Collection[str] = (),
) -> dict[str, str]:
    """The file's column for each wanted column that it has.

    Args:
        found: the file's columns.
        wanted: what the table wants.
        mapping: wanted name -> the file's name; it wins over what would be recognized.
        given: wanted names whose value the caller gives for all rows: the file must not have them.

    Returns:
        Wanted name -> the file's name, without those that are `given` or optional and absent.

    Raises:
        UsageError: a mapping for a column that nobody wants, from an adjusted close, or for one that is given.
        DataError: columns are missing, or two could be the same one.
    """
    mapping = mapping or {}
    _check_mapping(found, wanted, mapping)
    places = {}
    for column in wanted:
        place = mapping.get(column.name) or _recognized(found, column)
        if place is not None:
            places[column.name] = place
    _check_given(places, given)
    missing = [
        column
        for column in wanted
        if column.required and column.name not in places and column.name not in given
    ]
    if missing:
        raise DataError(_describe(missing, found))
    return places


def _recognized(found: Sequence[str], column: Column) -> str | None:
    candidates = [name for name in found if name.strip().lower() in column.aliases]
    if len(candidates) > 1:
        raise DataError(
            f"{' and '.join(map(repr, candidates))} could each be the column {column.name}: "
            f"say which with --column {column.name}={candidates[0]}"
        )
    return candidates[0] if candidates else None


def _check_mapping(
    found: Sequence[str], wanted: Sequence[Column], mapping: Mapping[str, str]
) -> None:
    names = [column.name for column in wanted]
    for name, place in mapping.items():
        if name not in names:
            raise UsageError(f"there is no column {name!r} to map to: expected {', '.join(names)}")
        if "".join(filter(str.isalpha, place.lower())) in _LATER_REVISED:
            raise UsageError(
                f"{place!r} holds splits and dividends from after the bar and is never taken: "
                "map the unadjusted close, and give splits as corporate actions"
            )
        if place not in found:
            raise DataError(
                f"there is no column {place!r} for {name}: the file has {', '.join(found)}"
            )


def _check_given(places: Mapping[str, str], given: Collection[str]) -> None:
    both = [name for name in places if name in given]
    if both:
        raise UsageError(
            f"{both[0]} is given, and the file has it too, in its column {places[both[0]]!r}: leave one out"
        )


def _describe(missing: Sequence[Column], found: Sequence[str]) -> str:
    names = ", ".join(column.name for column in missing)
    first = missing[0].name
    return (
        f"no column is recognized as {names}; the file has {', '.join(found)}. "
        f"Map what it calls otherwise: --column {first}=NAME"
        + (f", or give --{first}" if first == "symbol" else "")
    )
