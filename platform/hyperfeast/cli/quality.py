"""`hyperfeast quality check | report | outliers` and `hyperfeast completeness`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperfeast.cli import console
from hyperfeast.cli.options import timeframe, utc
from hyperfeast.errors import DataError

if TYPE_CHECKING:
    from hyperfeast.quality import Completeness, MissingRange, QualitySummary, Result
    from hyperfeast.reports.quality import QualityReport

_MOST_ROWS, _MOST_RANGES = 40, 40

_Symbol = Annotated[str | None, typer.Option(help="One instrument; all if left out.")]
_Since = Annotated[datetime | None, typer.Option(help="UTC, inclusive; by default the first bar.")]
_Until = Annotated[datetime | None, typer.Option(help="UTC, exclusive; by default the last bar.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    quality = typer.Typer(help="What is known of the data.", no_args_is_help=True)
    quality.command()(check)
    quality.command()(report)
    quality.command()(outliers)
    app.add_typer(quality, name="quality")
    app.command()(completeness)


def check(
    sample: Annotated[
        int, typer.Option(min=1, help="How many of a table's newest rows the suites look at.")
    ] = 10_000,
    as_json: console.AsJson = False,
) -> None:
    """Check the raw tables and every feature set, and keep the results. Exit code 1 if a check fails."""
    from hyperfeast.app import App
    from hyperfeast.quality import check as run

    app = App()
    with console.progress_bar("checks") as progress:
        results = run(
            app.database, app.repo.feature_sets.values(), sample_rows=sample, progress=progress
        )
    results += app.check_features()
    if as_json:
        console.print_json([_plain(one) for one in results])
    else:
        console.print_table(
            ["scope", "check", "passed", "finding"],
            [[one.scope, one.check, one.passed, finding(one.observed)] for one in results],
        )
    failed = [f"{one.scope} {one.check}" for one in results if not one.passed]
    if failed:
        raise DataError(
            f"{len(failed)} of {len(results)} checks failed: {', '.join(failed)}. What was found is in the "
            "table data_quality_results; `hyperfeast quality report --html FILE` shows it"
        )


def report(
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page to this file as well.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Show the newest check results, completeness, outliers and refused rows."""
    from hyperfeast.app import App
    from hyperfeast.quality import summary

    with console.progress_bar("completeness") as progress:
        found = summary(App().database, progress=progress)
    if html is not None:
        from hyperfeast.reports.quality import write_quality_report

        write_quality_report(as_report(found), html)
    if as_json:
        console.print_json(_summary(found))
        return
    _print_summary(found)
    if html is not None:
        console.say(f"report: {html}")


def outliers(
    symbol: _Symbol = None,
    tf: Annotated[str, typer.Option(help="Timeframe: 1m 5m 15m 1h 4h 1d 1w.")] = "1d",
    since: Annotated[
        datetime | None, typer.Option(help="UTC; judge bars from here on. By default all.")
    ] = None,
    threshold: Annotated[float, typer.Option(help="Flag beyond so many robust deviations.")] = 8.0,
    window: Annotated[int, typer.Option(help="How many earlier returns count.")] = 60,
    as_json: console.AsJson = False,
) -> None:
    """Mark bars whose log return looks wrong; unmark what was corrected. No bar is changed."""
    from hyperfeast.app import App
    from hyperfeast.quality import OutlierRules, flag_outliers

    rules = OutlierRules(window=window, least=min(window, OutlierRules.least), threshold=threshold)
    width = timeframe(tf)
    with console.progress_bar("outliers") as progress:
        done = flag_outliers(
            App().database,
            timeframe=width,
            symbol=symbol,
            since=utc(since),
            rules=rules,
            progress=progress,
        )
    if as_json:
        console.print_json(done)
    else:
        console.say(
            f"{done.bars:,} bars of {done.timeframe} judged: {done.flagged:,} flags stand, "
            f"{done.added:,} new or changed, {done.cleared:,} taken away"
        )


def completeness(
    symbol: _Symbol = None,
    tf: Annotated[
        str | None, typer.Option(help="Timeframe; every one that has bars if left out.")
    ] = None,
    since: _Since = None,
    until: _Until = None,
    heal: Annotated[
        bool, typer.Option("--heal", help="Ask the workers to fetch what is missing.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(help="Where to heal from. Default: where a series' newest bars came from."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """List missing bars by each instrument's trading calendar. Holidays and lunch breaks are no gaps."""
    from hyperfeast.app import App
    from hyperfeast.quality import completeness as measure
    from hyperfeast.quality import heal as hand_over

    app, width = App(), timeframe(tf) if tf else None
    with console.progress_bar("completeness") as progress:
        found = measure(
            app.database,
            symbol=symbol,
            timeframe=width,
            since=utc(since),
            until=utc(until),
            progress=progress,
        )
    healing = hand_over(found, lambda ranges: app.enqueue_backfill(ranges, source)) if heal else []
    if as_json:
        console.print_json(
            {"series": [_series(one) for one in found], "enqueued_ranges": len(healing)}
        )
        return
    _print_series(found)
    _print_ranges([missing for one in found for missing in one.missing])
    if heal:
        console.say(
            f"missing ranges handed to the workers: {len(healing):,}"
            + ("; a running `hyperfeast worker` (without --once) fetches them" if healing else "")
        )


def finding(observed: Mapping[str, Any]) -> str:
    """What a check found, in a few words; empty where nothing is wrong."""
    if refused := observed.get("refused"):
        return "refused: " + ", ".join(f"{rule} {count:,}" for rule, count in refused.items())
    if not observed.get("broken"):
        return ""
    of = f" of {observed['rows']:,}" if "rows" in observed else ""
    examples = [
        example
        for failure in observed.get("failures", [observed])
        for example in _listed(failure.get("examples"))
    ]
    such_as = f", such as {'; '.join(map(str, examples[:3]))}" if examples else ""
    return f"{observed['broken']:,}{of} broken{such_as}"


def as_report(found: "QualitySummary") -> "QualityReport":
    """A summary as the page takes it."""
    from hyperfeast.reports import quality as page

    return page.QualityReport(
        created_at=found.created_at,
        checks=[
            page.CheckRow(one.check, one.scope, one.passed, one.ts, finding(one.observed))
            for one in found.results
        ],
        pass_rates=[(one.day.date(), one.passed, one.checks) for one in found.pass_rates],
        completeness=[
            page.CompletenessRow(one.key, one.tf, one.expected, one.present, len(one.missing))
            for one in found.completeness
        ],
        months=[
            page.MonthCell(one.key, one.tf, one.month, one.expected, one.present)
            for one in found.months
        ],
        outliers=[
            page.OutlierRow(one.key, one.tf, one.ts, one.method, one.score)
            for one in found.outliers
        ],
        outliers_in_all=sum(found.outlier_counts.values()),
        quarantine=[(one.target, one.rule, one.rows) for one in found.quarantine],
    )


def _listed(examples: Any) -> list[Any]:
    if isinstance(examples, Mapping):
        return [f"{name}: {value or 'absent'}" for name, value in examples.items()]
    return list(examples or ())


def _plain(one: "Result") -> dict[str, Any]:
    return {
        "check": one.check,
        "scope": one.scope,
        "passed": one.passed,
        "observed": one.observed,
        "expectation": one.expectation,
    }


def _series(one: "Completeness") -> dict[str, Any]:
    return {
        "relation": one.relation,
        "key": one.key,
        "tf": one.tf,
        "expected": one.expected,
        "present": one.present,
        "share": one.share,
        "missing": [{"since": missing.since, "until": missing.until} for missing in one.missing],
    }


def _summary(found: "QualitySummary") -> dict[str, Any]:
    return {
        "created_at": found.created_at,
        "checks": found.results,
        "pass_rates": found.pass_rates,
        "completeness": [_series(one) for one in found.completeness],
        "months": found.months,
        "outliers": {"counts": found.outlier_counts, "newest": found.outliers},
        "quarantine": found.quarantine,
    }


def _print_summary(found: "QualitySummary") -> None:
    console.print_table(
        ["scope", "check", "passed", "finding", "checked at"],
        [
            [one.scope, one.check, one.passed, finding(one.observed), one.ts]
            for one in found.results
        ],
        title="Checks",
    )
    console.print_table(
        ["day", "passed", "checks"],
        [[f"{one.day:%Y-%m-%d}", one.passed, one.checks] for one in found.pass_rates[-10:]],
        title="Pass rate",
    )
    _print_series(found.completeness)
    console.print_table(
        ["series", "tf", "bar", "method", "score"],
        [[one.key, one.tf, one.ts, one.method, one.score] for one in found.outliers[:_MOST_ROWS]],
        title=f"Outliers: {sum(found.outlier_counts.values()):,}",
    )
    console.print_table(
        ["table", "rule", "rows", "newest"],
        [[one.target, one.rule, one.rows, one.newest] for one in found.quarantine],
        title="Refused rows",
    )


def _print_series(found: Sequence["Completeness"]) -> None:
    worst = sorted(found, key=lambda one: (one.share, one.key))[:_MOST_ROWS]
    shown = f" (the {_MOST_ROWS} least complete)" if len(found) > _MOST_ROWS else ""
    console.print_table(
        ["series", "tf", "expected", "missing", "ranges", "complete"],
        [
            [one.key, one.tf, one.expected, one.absent, len(one.missing), f"{one.share:.2%}"]
            for one in worst
        ],
        title=f"Completeness: {len(found):,} series{shown}",
    )


def _print_ranges(ranges: "Sequence[MissingRange]") -> None:
    if not ranges:
        return
    shown = f" (the first {_MOST_RANGES})" if len(ranges) > _MOST_RANGES else ""
    console.print_table(
        ["series", "tf", "from", "until"],
        [[one.key, one.tf, one.since, one.until] for one in ranges[:_MOST_RANGES]],
        title=f"Missing: {len(ranges):,} ranges{shown}; --json lists all",
    )
