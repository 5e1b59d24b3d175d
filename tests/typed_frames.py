"""Made-up frames with a column of each type that COPY takes: awkward values, nulls, extremes."""

import json
from typing import Any, NamedTuple

import polars as pl
from hypothesis import strategies as st


class Kind(NamedTuple):
    """A column's type in PostgreSQL, its declaration there, its type in Polars, and its values.

    Values of Date and Datetime are counts of days and units since 1970.
    """

    type_name: str
    declared: str
    dtype: pl.DataType
    values: st.SearchStrategy[Any]


def _integers(bits: int) -> st.SearchStrategy[int]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return st.integers(low, high) | st.sampled_from([low, high])


_AWKWARD = [
    "",
    "\\N",
    "\\.",
    "NULL",
    '"',
    "'",
    "a,b",
    "a\nb\r\n",
    "\t",
    "\\",
    "é",
    "漢",
    "𝄞🦉",
    "x" * 300,
]
_text = st.sampled_from(_AWKWARD) | st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=40
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
).map(lambda value: json.dumps(value, ensure_ascii=False))
_uuid = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper())

# From year 1 to the end of year 9999, in microseconds and in days.
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
_FIRST_DAY, _LAST_DAY = -719_162, 2_932_896

KINDS = {
    "flag": Kind("bool", "boolean", pl.Boolean(), st.booleans()),
    "small": Kind("int2", "smallint", pl.Int16(), _integers(16)),
    "medium": Kind("int4", "integer", pl.Int32(), _integers(32)),
    "large": Kind("int8", "bigint", pl.Int64(), _integers(64)),
    "single": Kind("float4", "real", pl.Float32(), st.floats(width=32)),
    "double": Kind("float8", "double precision", pl.Float64(), st.floats()),
    "word": Kind("text", "text", pl.String(), _text),
    "limited": Kind("varchar", "varchar(300)", pl.String(), _text),
    "raw": Kind("json", "json", pl.String(), _json),
    "parsed": Kind("jsonb", "jsonb", pl.String(), _json),
    "who": Kind("uuid", "uuid", pl.String(), _uuid),
    "words": Kind("_text", "text[]", pl.List(pl.String()), st.lists(st.none() | _text, max_size=4)),
    "numbers": Kind(
        "_float8",
        "double precision[]",
        pl.List(pl.Float64()),
        st.lists(st.none() | st.floats(), max_size=4),
    ),
    "day": Kind("date", "date", pl.Date(), st.integers(_FIRST_DAY, _LAST_DAY)),
    "at_us": Kind(
        "timestamptz", "timestamptz", pl.Datetime("us", "UTC"), st.integers(_FIRST_US, _LAST_US)
    ),
    "at_ms": Kind(
        "timestamptz",
        "timestamptz",
        pl.Datetime("ms", "America/New_York"),
        st.integers(_FIRST_US // 1_000, _LAST_US // 1_000),
    ),
    "at_ns": Kind("timestamptz", "timestamptz", pl.Datetime("ns", "UTC"), _integers(64)),
}
TYPES = {name: kind.type_name for name, kind in KINDS.items()}


@st.composite
def frames(draw: st.DrawFn, *, max_rows: int = 12) -> pl.DataFrame:
    """Any number of rows, some columns of them with nulls."""
    nullable = draw(st.sets(st.sampled_from(list(KINDS))))
    row = st.tuples(
        *(
            st.none() | kind.values if name in nullable else kind.values
            for name, kind in KINDS.items()
        )
    )
    rows = draw(st.lists(row, max_size=max_rows))
    return frame_of(rows)


def frame_of(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """A frame with the columns of `KINDS`."""
    return pl.DataFrame(
        [
            pl.Series(name, [row[place] for row in rows], _counted(kind.dtype)).cast(kind.dtype)
            for place, (name, kind) in enumerate(KINDS.items())
        ]
    )


def _counted(dtype: pl.DataType) -> pl.DataType:
    if dtype == pl.Date:
        return pl.Int32()
    return pl.Int64() if isinstance(dtype, pl.Datetime) else dtype
