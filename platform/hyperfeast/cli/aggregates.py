"""`hyperfeast aggregates list | refresh | verify`."""

from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console

if TYPE_CHECKING:
    from hyperfeast.aggregates import Difference
    from hyperfeast.db import Database

_Relation = Annotated[
    str | None,
    typer.Option(help="One of them: candles_5m .. candles_1w, user_baseline_daily. Default all."),
]
_Since = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The first day, UTC.")]
_Until = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The day after the last one, UTC.")
]
_Symbols = Annotated[
    list[str] | None, typer.Option("--symbol", help="Only this one (a user by UUID). Repeatable.")
]
_SHOWN = 50


def register(app: typer.Typer) -> None:
    """Add the commands."""
    aggregates = typer.Typer(help="Bars and sums made from raw rows.", no_args_is_help=True)
    aggregates.command("list")(list_aggregates)
    aggregates.command()(refresh)
    aggregates.command()(verify)
    app.add_typer(aggregates, name="aggregates")


def list_aggregates(as_json: console.AsJson = False) -> None:
    """List the aggregates: what keeps them, and how many days wait for a refresh."""
    from hyperfeast.aggregates import aggregates
    from hyperfeast.app import App

    found = aggregates(App().database)
    if as_json:
        console.print_json(found)
        return
    console.print_table(
        ["aggregate", "rows, about", "newest", "dirty days", "oldest mark"],
        [[one.relation, one.rows, one.newest, one.dirty_days, one.oldest_mark] for one in found],
        title="How current they are",
    )
    console.print_table(
        ["aggregate", "made from", "kept by", "policy"],
        [[one.relation, one.built_on, one.kept_by, one.policy] for one in found],
        title="What keeps them",
    )


def refresh(
    relation: _Relation = None,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbols = None,
    as_json: console.AsJson = False,
) -> None:
    """Bring up to date what changed since the last time; with a range, all of that range."""
    from hyperfeast.aggregates import refresh as refresh_aggregates

    database = _database_with(symbol)
    with console.progress_bar("days") as progress:
        report = refresh_aggregates(
            database,
            relation=relation,
            since=_day(since),
            until=_day(until),
            symbols=symbol,
            progress=progress,
        )
    if as_json:
        console.print_json(report)
        return
    console.say(
        f"{report.days:,} dirty days refreshed in {report.seconds:.1f} s: "
        f"{', '.join(report.relations)}"
    )
    if report.out_of_reach:
        console.say(
            f"{report.out_of_reach:,} marks dropped: retention has dropped the raw rows of their days"
        )


def verify(
    relation: _Relation = None,
    since: _Since = None,
    until: _Until = None,
    symbol: _Symbols = None,
    limit: Annotated[int, typer.Option(min=1, help="Stop after so many differences.")] = 1000,
    as_json: console.AsJson = False,
) -> None:
    """Compare with a recomputation from raw rows, and name the buckets that differ (exit code 1)."""
    from hyperfeast.aggregates import verify as verify_aggregates

    database = _database_with(symbol)
    with console.progress_bar("slices") as progress:
        found = verify_aggregates(
            database,
            relation=relation,
            since=_day(since),
            until=_day(until),
            symbols=symbol,
            limit=limit,
            progress=progress,
        )
    if as_json:
        console.print_json(found)
    else:
        _show(found)
    if found:
        raise typer.Exit(1)


def _database_with(symbols: list[str] | None) -> "Database":
    """The database in use, if it knows the symbols and users that are named.

    Raises:
        UsageError: it does not: no bucket of theirs differs, and none could.
    """
    from hyperfeast.app import App
    from hyperfeast.quality import check_keys

    database = App().database
    if symbols:
        check_keys(database, symbols)
    return database


def _show(found: "list[Difference]") -> None:
    if not found:
        console.say("every bucket equals its recomputation from raw rows")
        return
    console.print_table(
        ["aggregate", "key", "bucket", "column", "kept", "recomputed", "state"],
        [
            [
                one.relation,
                one.key,
                one.bucket,
                one.column,
                _exact(one.kept),
                _exact(one.recomputed),
                "stale" if one.stale else "wrong",
            ]
            for one in found[:_SHOWN]
        ],
    )
    wrong = sum(not one.stale for one in found)
    console.say(
        f"{len(found):,} differences ({_SHOWN} at most are shown, --json has all): {len(found) - wrong:,} stale: "
        f"`hyperfeast aggregates refresh` puts them right; {wrong:,} wrong: refresh their days "
        "with --since and --until"
    )


def _exact(value: float | None) -> str | None:
    """Every digit: a difference may be in the last one."""
    return None if value is None else repr(value)


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
