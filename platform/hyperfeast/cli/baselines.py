"""`hyperfeast baselines show | history | extract | compare | refresh | migrate`."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperfeast import clock
from hyperfeast.cli import console
from hyperfeast.cli.options import utc
from hyperfeast.errors import DataError, NoData, UsageError

if TYPE_CHECKING:
    from hyperfeast.baselines import (
        Baseline,
        Deviation,
        MetricBaseline,
        MetricDeviations,
        SavedBaseline,
    )
    from hyperfeast.reports.baselines import MetricChart

_FLAGGED_BEYOND = 2.0
_MOST_DAYS = 14
_MOST_NAMED = 20
_BARS = "▁▂▃▄▅▆▇█"

_User = Annotated[str, typer.Argument(metavar="USER", help="The user's UUID.")]
_Metric = Annotated[str | None, typer.Option(help="One metric; all if left out.")]
_Html = Annotated[
    Path | None, typer.Option("--html", help="Write a page with charts to this file as well.")
]
_Units = Annotated[
    list[str] | None,
    typer.Option(
        "--unit",
        help="The unit that readings are in, if not the usual one: glucose=mmol/L, or of one device "
        "glucose/NAME=mmol/L. Repeatable.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Personal baselines: what is usual for a user.", no_args_is_help=True)
    group.command()(show)
    group.command()(history)
    group.command()(extract)
    group.command()(compare)
    group.command()(refresh)
    group.command()(migrate)
    app.add_typer(group, name="baselines")


def show(
    user: _User,
    metric: _Metric = None,
    at: Annotated[
        datetime | None,
        typer.Option(help="The one that was the newest then, UTC. By default the newest."),
    ] = None,
    html: _Html = None,
    as_json: console.AsJson = False,
) -> None:
    """Show the newest saved baseline of a user."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user

    user_id, store = checked_user(user), App().baselines
    saved = store.latest(user_id) if at is None else store.as_known(user_id, utc(at))
    if saved is None:
        then = f" saved by {at:%Y-%m-%d %H:%M} UTC" if at else ""
        raise NoData(
            f"user {user_id} has no baseline{then}: `hyperfeast baselines extract {user_id}` makes one"
        )
    _present(user, saved.baseline, saved.created_at, metric, html, as_json=as_json)


def history(
    user: _User,
    metric: _Metric = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most; ten are kept.")] = 10,
    as_json: console.AsJson = False,
) -> None:
    """Show the saved baselines of a user, the newest first."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user

    user_id = checked_user(user)
    saved = App().baselines.history(user_id, limit)
    if not saved:
        raise NoData(
            f"user {user_id} has no baseline: `hyperfeast baselines extract {user_id}` makes one"
        )
    if as_json:
        console.print_json([_plain(one) for one in saved])
        return
    chosen = [(one, _chosen(one.baseline, metric)) for one in saved]
    console.print_table(
        ["saved at", "as of", "metric", "mean", "std", "n", "days"],
        [
            [one.created_at, f"{one.baseline.as_of:%Y-%m-%d}", name, m.mean, m.std, m.n, m.days_present]
            for one, metrics in chosen
            for name, m in metrics.items()
        ],
    )  # fmt: skip
    for name in sorted({name for _, metrics in chosen for name in metrics}):
        means = [metrics[name].mean if name in metrics else None for _, metrics in chosen]
        console.say(f"  {name}, mean, oldest first  {sparkline(means[::-1])}")


def extract(
    user: _User,
    day: Annotated[
        datetime | None,
        typer.Option(
            "--day", formats=["%Y-%m-%d"], help="The UTC day that it is for. Default today."
        ),
    ] = None,
    known_at: Annotated[
        datetime | None,
        typer.Option("--known-at", help="Count what was known then, UTC. By default now."),
    ] = None,
    tz: Annotated[
        str, typer.Option("--tz", help="The user's clock, for hours and weekdays: Europe/Berlin.")
    ] = "UTC",
    unit: _Units = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show it, and do not save it.")
    ] = False,
    html: _Html = None,
    as_json: console.AsJson = False,
) -> None:
    """Make a user's baseline of the 30 days before a day, and save it."""
    from hyperfeast.app import App
    from hyperfeast.baselines import BaselineExtractor, checked_user

    user_id, app = checked_user(user), App()
    extractor = BaselineExtractor(app.database, time_zone=tz, units=_units(unit))
    made = extractor.extract(
        user_id, day.date() if day else None, known_at=utc(known_at) if known_at else None
    )
    saved_at = None if dry_run else app.baselines.save(user_id, made).created_at
    _present(user, made, saved_at, None, html, as_json=as_json)


def compare(
    user: _User,
    metric: _Metric = None,
    days: Annotated[
        int, typer.Option(min=1, max=3660, help="How many days up to the last one.")
    ] = 60,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until",
            formats=["%Y-%m-%d"],
            help="The last UTC day. By default the last with readings.",
        ),
    ] = None,
    as_known: Annotated[
        bool,
        typer.Option("--as-known", help="Count for each day what the database knew when it ended."),
    ] = False,
    unit: _Units = None,
    html: _Html = None,
    as_json: console.AsJson = False,
) -> None:
    """Hold each day of a user against its baseline: the 30 days before it, the day itself left out."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user, last_day
    from hyperfeast.baselines import compare as run

    user_id, database = checked_user(user), App().database
    last = until.date() if until else last_day(database, user_id)
    found = run(
        database,
        user_id,
        first=last - timedelta(days=days - 1),
        last=last,
        metric=metric,
        as_known=as_known,
        units=_units(unit),
    )
    if html is not None:
        _write_page(user, html, "Days against their baselines", [_compared(one) for one in found])
    if as_json:
        console.print_json(
            [{"metric": one.metric, "unit": one.unit, "days": one.days} for one in found]
        )
        return
    for one in found:
        _print_days(one)
    if html is not None:
        console.say(f"page: {html}")


def refresh(
    metric: _Metric = None,
    user: Annotated[str | None, typer.Option(help="One user; all if left out.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Bring the current windows up to date, as a worker does each night. One statement a metric."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user, refresh_windows

    app = App()
    user_id = checked_user(user) if user else None
    app.refresh_aggregates()
    with console.progress_bar("metrics") as progress:
        done = refresh_windows(app.database, metric=metric, user_id=user_id, progress=progress)
    if as_json:
        console.print_json(done)
    else:
        console.print_table(
            ["metric", "windows", "written", "emptied"],
            [[one.metric, one.series, one.written, one.emptied] for one in done],
        )


def migrate(
    folder: Annotated[Path, typer.Option("--from", help="The folder of baselines in files.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be added, and write nothing.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare what both answer, for every user.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Copy baselines from files into the database. Again, or after a kill, it goes on where it was."""
    from hyperfeast.app import App
    from hyperfeast.baselines import FileBaselineRepository, migrate_baselines, verify_baselines

    source, target = FileBaselineRepository(folder), App().baseline_store(None)
    with console.progress_bar("users") as progress:
        done = migrate_baselines(source, target, dry_run=dry_run, progress=progress)
    differing = []
    if verify:
        with console.progress_bar("users compared") as progress:
            differing = verify_baselines(source, target, progress=progress)
    if as_json:
        console.print_json(
            {
                "users": done.users,
                "baselines": done.baselines,
                "added": done.added,
                "dry_run": dry_run,
                "unreadable": [{"path": str(one.path), "reason": one.reason} for one in done.unreadable],
                "differing": differing if verify else None,
            }
        )  # fmt: skip
    else:
        console.say(
            f"{done.users:,} users with {done.baselines:,} baselines read, {done.added:,} "
            f"{'would be' if dry_run else 'were'} added"
            + ("; both answer alike for all of them" if verify and not differing else "")
        )
        _name([f"{one.path}: {one.reason}" for one in done.unreadable], "left alone")
        _name([f"user {one.user_id}: {one.question}" for one in differing], "differs")
    _judge_migration(len(done.unreadable), len(differing))


def sparkline(values: Sequence[float | None]) -> str:
    """Values as a line of bars from the lowest to the highest; a blank where there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return ""
    low, high = min(present), max(present)
    step = (high - low) / (len(_BARS) - 1)
    return "".join(
        " " if value is None else _BARS[round((value - low) / step) if step else 0]
        for value in values
    )


def _judge_migration(unreadable: int, differing: int) -> None:
    """A migration that left something out, or whose copy answers otherwise, is a failure.

    Raises:
        DataError: it is one.
    """
    if unreadable:
        raise DataError(
            f"{unreadable:,} {'file or folder' if unreadable == 1 else 'files or folders'} cannot be read and "
            "stayed as they are; all others are done: restore or move them away, then do it again"
        )
    if differing:
        raise DataError(
            f"{differing:,} answers differ: a user whose baselines were saved in one place only since then; "
            "HYPERFEAST_BASELINES=FOLDER,timescale writes to both"
        )


def _name(lines: Sequence[str], what: str) -> None:
    for line in lines[:_MOST_NAMED]:
        console.say(f"  {what}: {line}")
    if len(lines) > _MOST_NAMED:
        console.say(f"  and {len(lines) - _MOST_NAMED:,} more: --json names all")


def _present(
    user: str,
    baseline: "Baseline",
    saved_at: datetime | None,
    metric: str | None,
    html: Path | None,
    *,
    as_json: bool,
) -> None:
    """A baseline as a table, as a page or as JSON."""
    chosen = _chosen(baseline, metric)
    if html is not None:
        charts = [_of_baseline(name, one) for name, one in chosen.items()]
        _write_page(user, html, "A baseline and its days", charts)
    if as_json:
        document = _document(baseline)
        document["metrics"] = {name: document["metrics"][name] for name in chosen}
        console.print_json({"user_id": user, "created_at": saved_at, "baseline": document})
        return
    saved = f"saved {console.text(saved_at)}" if saved_at else "not saved"
    console.say(f"\n  30 days up to {console.text(baseline.as_of)}, {saved}")
    console.print_table(
        ["metric", "mean", "std", "median", "MAD", "n", "days", "trend a day"],
        [
            [_with_unit(name, one.unit), one.mean, one.std, one.median, one.mad, one.n,
             one.days_present, one.robust_trend]
            for name, one in chosen.items()
        ],
    )  # fmt: skip
    for name, one in chosen.items():
        _print_lines(baseline, name, one)
    if html is not None:
        console.say(f"page: {html}")


def _print_lines(baseline: "Baseline", name: str, one: "MetricBaseline") -> None:
    """What a row of numbers does not show of a metric."""
    by_day = {each.day: each.mean for each in one.days}
    first = baseline.as_of.date() - timedelta(days=30)
    days = [by_day.get(first + timedelta(days=back)) for back in range(30)]
    console.say(f"  {name}")
    console.say(f"    30 days    {sparkline(days)}")
    hours = [hour.mean if hour else None for hour in one.hours]
    console.say(f"    0 to 23 h  {sparkline(hours)}  {baseline.time_zone}")
    console.say(f"    Mon-Sun    {sparkline(one.weekdays)}")
    if len(one.segments) > 1:
        devices = ", ".join(f"{each.source} {console.text(each.mean)}" for each in one.segments)
        console.say(f"    devices    {devices} (means)")
    if not one.sufficient:
        console.say("    too little to hold anything against: no z-scores")


def _print_days(found: "MetricDeviations") -> None:
    """A metric's newest days, and all of them as a line."""
    by_day = {one.day: one for one in found.days}
    first, last = found.days[0].day, found.days[-1].day
    span = [by_day.get(first + timedelta(days=one)) for one in range((last - first).days + 1)]
    flags = [one for one in found.days if _is_flagged(one)]
    shown = found.days[-_MOST_DAYS:]
    console.print_table(
        ["day", "value", "baseline", "std", "z", "harmonized", "robust", "flag"],
        [
            [f"{one.day}", one.value, one.mean, one.std, _tenths(one.z_score),
             _tenths(one.harmonized_z_score), _tenths(one.robust_z_score), "◆" if _is_flagged(one) else ""]
            for one in shown
        ],
        title=_with_unit(found.metric, found.unit),
    )  # fmt: skip
    width = 48
    console.say(
        f"  {first} to {last}" + (f", the last {width} days drawn" if len(span) > width else "")
    )
    _print_lined("value", span[-width:], lambda one: one.value)
    _print_lined("z", span[-width:], lambda one: one.z_score)
    newest = ", ".join(str(one.day) for one in flags[-3:])
    console.say(
        f"  {len(flags)} of {len(found.days)} days lie more than {_FLAGGED_BEYOND:g} deviations off"
        + (f", last {newest}" if flags else "")
    )


def _print_lined(
    name: str, span: "Sequence[Deviation | None]", of: "Callable[[Deviation], float | None]"
) -> None:
    values = [of(one) if one else None for one in span]
    present = [value for value in values if value is not None]
    if present:
        console.say(
            f"  {name:6}{sparkline(values)}  {console.text(min(present))} to {console.text(max(present))}"
        )


def _tenths(score: float | None) -> float | None:
    # Adding 0 makes a negative zero a plain one.
    return None if score is None else round(score, 1) + 0.0


def _is_flagged(one: "Deviation") -> bool:
    return one.z_score is not None and abs(one.z_score) > _FLAGGED_BEYOND


def _with_unit(name: str, unit: str | None) -> str:
    return f"{name}, {unit}" if unit else name


def _chosen(baseline: "Baseline", metric: str | None) -> "dict[str, MetricBaseline]":
    """The metrics that are asked for, by name.

    Raises:
        UsageError: the baseline has no such metric.
    """
    if metric is None:
        return dict(sorted(baseline.metrics.items()))
    if metric not in baseline.metrics:
        raise UsageError(
            f"the baseline has no metric {metric!r}: it has {', '.join(sorted(baseline.metrics))}"
        )
    return {metric: baseline.metrics[metric]}


def _write_page(user: str, path: Path, title: str, charts: "list[MetricChart]") -> None:
    from hyperfeast.reports.baselines import BaselinePage, write_baseline_page

    notes = [
        "A day's value is the mean of its readings.",
        "The band is the mean of its baseline's readings, plus and minus two of their sample deviations.",
        "A flag says that a day is unusual for this user. It is no finding of anything, and no diagnosis.",
    ]
    write_baseline_page(BaselinePage(title, clock.now(), user, charts, notes), path)


def _compared(found: "MetricDeviations") -> "MetricChart":
    from hyperfeast.reports import ZScoreSeries
    from hyperfeast.reports.baselines import MetricChart

    days = found.days
    return MetricChart(
        found.metric,
        ZScoreSeries(
            dates=[one.day for one in days],
            day_mean=[one.value for one in days],
            mean_30d=[one.mean for one in days],
            std_30d=[one.std for one in days],
            z_score=[one.z_score for one in days],
            unit=found.unit or "",
        ),
    )


def _of_baseline(name: str, one: "MetricBaseline") -> "MetricChart":
    """The days that a baseline is made of, against that baseline."""
    from hyperfeast.reports import ZScoreSeries
    from hyperfeast.reports.baselines import MetricChart

    return MetricChart(
        name,
        ZScoreSeries(
            dates=[each.day for each in one.days],
            day_mean=[each.mean for each in one.days],
            mean_30d=[one.mean] * len(one.days),
            std_30d=[one.std] * len(one.days),
            z_score=[one.z_score(each.mean) for each in one.days],
            unit=one.unit or "",
        ),
    )


def _document(baseline: "Baseline") -> dict[str, Any]:
    return baseline.model_dump(mode="json", by_alias=True)


def _plain(saved: "SavedBaseline") -> dict[str, Any]:
    return {"created_at": saved.created_at, "baseline": _document(saved.baseline)}


def _units(pairs: list[str] | None) -> dict[str, str]:
    """`glucose=mmol/L` as {"glucose": "mmol/L"}."""
    split = [pair.partition("=") for pair in pairs or ()]
    for key, equals, unit in split:
        if not (key and equals and unit):
            raise UsageError(
                f"--unit takes METRIC=UNIT, as in glucose=mmol/L; found {key + equals + unit!r}"
            )
    return {key: unit for key, _, unit in split}
