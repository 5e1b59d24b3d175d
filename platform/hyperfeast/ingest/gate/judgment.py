"""Every row judged by itself, then the keys of those that passed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from hyperfeast.ingest.gate import expectations, screen
from hyperfeast.ingest.gate.rules import Rule, unique

Progress = Callable[[int, int], None]

_SLICE_ROWS = 50_000


@dataclass(frozen=True)
class Judgment:
    """What the gate said of a batch.

    Attributes:
        accepted: the rows that may go in, identical and superseded ones merged.
        merged: how many identical or superseded rows were merged away.
        refused: columns row (UInt32) and rule (str): each refused row with the first rule it broke.
    """

    accepted: pl.DataFrame
    merged: int
    refused: pl.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """Rule -> refused rows, the most frequent first."""
        counted = (
            self.refused["rule"].value_counts().sort(["count", "rule"], descending=[True, False])
        )
        return dict(counted.iter_rows())


def judge(
    rows: pl.DataFrame,
    rules: Sequence[Rule],
    *,
    key: Sequence[str],
    values: Sequence[str],
    newest_by: str | None = None,
    progress: Progress | None = None,
) -> Judgment:
    """Judge every row by itself, then the keys of those that passed.

    A key that comes twice with different values is refused in all its rows (rule `duplicate_key`):
    nobody knows which is right. Rows that another rule refuses do not count for that, so that it
    makes no difference whether they come in this batch or in another.

    Args:
        rows: a column `row` (UInt32, unique) and what the rules, `key`, `values` and `newest_by` name.
        rules: in the order in which they are tried.
        key: the columns that tell rows apart, two at least.
        values: the columns that make two rows of one key identical or contradictory.
        newest_by: a column of times, or null where it is unknown, by which a row supersedes those of its key
            that are known to be older: they are merged away. Rows of equal or unknown time contradict each
            other as ever, and then the older ones are refused with them. Of identical rows the newest stays.
        progress: told (rows judged, rows in all) at the start, and before each slice of suspects.

    Raises:
        RuntimeError: a rule cannot be judged: nothing gets through.
    """
    if progress:
        progress(0, rows.height)
    broken = _broken(rows, rules, progress)
    passed = _without(rows, broken)
    again = screen.repeated(passed, key)
    dropped, contradictory = _settle(again, key, values, newest_by)
    return Judgment(
        accepted=_without(passed, dropped, contradictory),
        merged=dropped.height,
        refused=pl.concat([broken, contradictory]).sort("row"),
    )


def _broken(rows: pl.DataFrame, rules: Sequence[Rule], progress: Progress | None) -> pl.DataFrame:
    suspects = screen.suspects(screen.comparable(rows, rules), rules)
    clean = rows.height - suspects.height
    broken = [expectations.no_refusals()]
    for start in range(0, suspects.height, _SLICE_ROWS):
        if progress:
            progress(clean + start, rows.height)
        broken.append(expectations.first_broken(suspects.slice(start, _SLICE_ROWS), rules))
    return pl.concat(broken)


def _settle(
    again: pl.DataFrame, key: Sequence[str], values: Sequence[str], newest_by: str | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of the rows whose key comes again: those to merge away, and the contradictory ones with their rule."""
    if again.is_empty():
        return again, expectations.no_refusals()
    current = again if newest_by is None else _newest(again, key, newest_by)
    told_apart_by = [*key, *(name for name in values if name != newest_by)]
    distinct = current.unique(told_apart_by, keep="first", maintain_order=True)
    rule = unique("duplicate_key", key)
    suspects = screen.repeated(distinct, key)
    found = expectations.first_broken(screen.comparable(suspects, [rule]), [rule])
    keys = distinct.join(found, on="row", how="semi").select(key)
    every = again.join(keys, on=key, how="semi", nulls_equal=True, maintain_order="left")
    dropped = _without(again, every, distinct)
    return dropped, every.select("row", rule=pl.lit(rule.name))


def _newest(again: pl.DataFrame, key: Sequence[str], newest_by: str) -> pl.DataFrame:
    """Without the rows that are known to be older than another of their key; the known ones first."""
    older = pl.col(newest_by) < pl.col(newest_by).max().over(key)
    return again.filter(~older.fill_null(value=False)).sort(newest_by, "row", nulls_last=True)


def _without(rows: pl.DataFrame, *others: pl.DataFrame) -> pl.DataFrame:
    for other in others:
        if not other.is_empty():
            rows = rows.join(other, on="row", how="anti", maintain_order="left")
    return rows
