"""`hyperfeast features list | show | plan | apply | new | diff | compute` and `hyperfeast materialize`."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperfeast.cli import console, feature_reports
from hyperfeast.cli.options import timeframe, utc
from hyperfeast.errors import UsageError

if TYPE_CHECKING:
    from hyperfeast.app import App
    from hyperfeast.features.definitions import Definition, Record
    from hyperfeast.features.page import SetText
    from hyperfeast.features.plan import Step
    from hyperfeast.stores.registry_plan import RegistryPlan

_Name = Annotated[
    str, typer.Argument(help="A feature set: its newest version, or NAME_v2 for that one.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    features = typer.Typer(help="Feature sets.", no_args_is_help=True)
    features.command("list")(list_sets)
    features.command()(show)
    features.command()(plan)
    features.command()(apply)
    features.command()(new)
    features.command()(diff)
    features.command()(compute)
    feature_reports.register(features)
    app.add_typer(features, name="features")
    app.command()(materialize)


def list_sets(as_json: console.AsJson = False) -> None:
    """List the feature sets: what is declared, and what is on record but declared no more."""
    from hyperfeast.app import App
    from hyperfeast.features.page import source_words

    app = App()
    steps = {f"{one.feature_set}_v{one.version}": one for one in app.plan_features()}
    declared = app.repo.feature_sets
    rows = [
        {
            "feature_set": one.feature_set,
            "version": one.version,
            "state": one.state.value,
            "source": source_words(declared[view]) if view in declared else None,
            "features": declared[view].feature_names if view in declared else [],
            "table": one.table,
            "description": declared[view].description if view in declared else None,
        }
        for view, one in steps.items()
    ]
    if as_json:
        console.print_json(rows)
        return
    console.print_table(
        ["feature set", "state", "source", "features", "description"],
        [
            [
                f"{row['feature_set']} v{row['version']}",
                row["state"],
                row["source"],
                len(declared[view].features) if view in declared else None,
                row["description"],
            ]
            for view, row in zip(steps, rows, strict=True)
        ],
    )


def show(
    name: _Name,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As a page of documentation.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Show all that is declared of one feature set, and how many rows it has."""
    from hyperfeast import clock
    from hyperfeast.app import App
    from hyperfeast.features.page import describe, page

    app = App()
    feature_set = app.repo.feature_set(name)
    text = describe(feature_set, clock.now())
    if markdown and not as_json:
        console.say(page(text).rstrip())
        return
    with console.spinner("counting its rows"):
        stored = _stored(app, text)
    if as_json:
        console.print_json({**_plain(text), **stored})
    else:
        _print_set(text, stored)


def plan(as_json: console.AsJson = False) -> None:
    """Show what apply would change: sets, tables, rows to compute, Feast objects. Exit code 1 if refused."""
    from hyperfeast.app import App

    app = App()
    with console.spinner("comparing (Feast takes some seconds to load)"):
        steps, feast = app.plan_features(), app.feast.plan()
    if as_json:
        console.print_json({"feature_sets": [_plain(one) for one in steps], "feast": _plain(feast)})
    else:
        _print_plan(steps, feast)
    if feast.cut_off or any(one.problem for one in steps):
        raise typer.Exit(1)


def apply(as_json: console.AsJson = False) -> None:
    """Make tables, put sets on record, register views and services with Feast; nothing stops being served."""
    from hyperfeast.app import App

    with console.spinner("applying") as say:
        done = App().apply_features(say)
    if as_json:
        console.print_json(done)
        return
    for what, names in {
        "tables made": done.created,
        "on record": done.recorded,
        "retired (tables and rows stay)": done.retired,
        "computed and online before they are served": done.backfilled,
        "applied to Feast": done.applied,
    }.items():
        if names:
            console.say(f"{what}: {', '.join(names)}")


def new(
    name: Annotated[str, typer.Argument(help="What to call the set, its module and its table.")],
    tf: Annotated[str, typer.Option(help="Of the bars: 1m 5m 15m 1h 4h 1d 1w.")] = "1d",
    as_json: console.AsJson = False,
) -> None:
    """Write a declaration that works as it stands into the feature repository, to be changed."""
    from hyperfeast.app import App
    from hyperfeast.features.template import feast_lines, module

    repo = App().repo
    path = repo.folder / f"{name}.py"
    declared = sorted(view for view, one in repo.feature_sets.items() if one.name == name)
    if path.exists() or declared:
        raise UsageError(
            f"{path if path.exists() else declared[0]} is there already: change it, or choose another name"
        )
    text = module(name, timeframe(tf))
    _write(path, text)
    if as_json:
        console.print_json({"path": path, "feast_lines": feast_lines(name).splitlines()})
        return
    console.say(f"written: {path}")
    console.say(
        "next: change its rules, look at `hyperfeast features plan`, then `hyperfeast features apply` and "
        f"`hyperfeast features compute {name}`"
    )
    console.say(f"to serve it, add to {repo.folder / 'definitions.py'}:\n")
    console.say(feast_lines(name).rstrip())


def diff(
    name: Annotated[str, typer.Argument(help="A feature set.")],
    v1: Annotated[int, typer.Argument(help="One version: 1.")],
    v2: Annotated[int, typer.Argument(help="Another one: 2.")],
    as_json: console.AsJson = False,
) -> None:
    """Compare the rules of two versions, declared or on record."""
    from hyperfeast.app import App

    before, after = _versions(App(), name, v1, v2)
    rows = _differences(before, after)
    if as_json:
        console.print_json(rows)
        return
    if not rows:
        console.say(f"{name} v{v1} and v{v2} compute the same")
        return
    console.print_table(
        ["what", f"v{v1}", f"v{v2}"], [[row["what"], row["before"], row["after"]] for row in rows]
    )


def compute(
    name: Annotated[
        str | None,
        typer.Argument(help="A feature set, or NAME_v2 for one version; all by default."),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="All rows again, not only those whose source changed.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Compute features from what was ingested; write what is new or changed."""
    from hyperfeast.app import App

    app = App()
    with console.spinner("computing") as say:
        done = app.compute_features(name, full=full, progress=lambda one: say(f"computing {one}"))
    rows = [
        {
            "feature_set": one.name,
            "version": one.version,
            "rows": computed.rows,
            "written": computed.written,
        }
        for one, computed in zip(app.repo.chosen(name), done, strict=True)
    ]
    if as_json:
        console.print_json(rows)
    else:
        console.print_table(
            ["feature set", "rows", "written"],
            [
                [f"{row['feature_set']} v{row['version']}", row["rows"], row["written"]]
                for row in rows
            ],
        )


def materialize(
    start: Annotated[
        datetime | None, typer.Option(help="UTC; by default where the last run ended.")
    ] = None,
    end: Annotated[datetime | None, typer.Option(help="UTC; by default now.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """Bring the newest features of every entity to Redis."""
    from hyperfeast.app import App

    with console.spinner("materializing (Feast takes some seconds to load)"):
        names = App().materialize(utc(start), utc(end))
    if as_json:
        console.print_json({"materialized": names})
    else:
        console.say(f"online: {', '.join(names)}")


def _stored(app: "App", text: "SetText") -> dict[str, Any]:
    """What the database has of a set."""
    from hyperfeast.features.definitions import extent, recorded

    found = extent(app.database, text.table)
    return {
        "on_record": text.view in recorded(app.database),
        "rows": found.rows if found else None,
        "newest": found.newest if found else None,
        "recorded": found.recorded if found else None,
    }


def _print_set(text: "SetText", stored: dict[str, Any]) -> None:
    facts = {
        "description": text.description,
        "source": text.source,
        **{f"key {column}": words for column, words in text.keys.items()},
        "Feast view": text.view,
        "table": text.table if stored["rows"] is not None else f"{text.table} (not made yet)",
        "rows, revisions included": stored["rows"],
        "newest row is of": stored["newest"],
        "last written": stored["recorded"],
        "on record": stored["on_record"],
        "fresh for": text.freshness,
        "schedule (UTC)": text.cron,
        "tags": ", ".join(text.tags) or None,
        "warm-up, bars": text.warm_up if text.block_since else None,
        "block of bars since": text.block_since,
        "compares symbols": text.compares_symbols,
        "definition": text.definition_hash,
    }
    console.print_table(
        [f"{text.name} v{text.version}", ""],
        [[name, console.text(fact)] for name, fact in facts.items() if fact is not None],
    )
    console.print_table(
        ["feature", "rule", "type", "unit", "bounds", "lookback", "warm-up", "description"],
        [
            [
                *(one.name, one.rule, one.dtype, one.unit, one.bounds or None),
                *(one.lookback, one.warm_up, one.description),
            ]
            for one in text.features
        ],
        title="Features",
    )


def _print_plan(steps: "list[Step]", feast: "RegistryPlan") -> None:
    console.print_table(
        ["feature set", "state", "table", "rows to compute"],
        [
            [
                f"{one.feature_set} v{one.version}",
                one.state.value,
                f"{one.table} (to be made)" if one.creates_table else one.table,
                "as its query says"
                if one.rows_to_backfill is None
                else f"{one.rows_to_backfill:,}",
            ]
            for one in steps
        ],
        title="Feature sets",
    )
    if feast.changes:
        console.print_table(
            ["Feast object", "name", "change"],
            [[one.kind, one.name, one.action] for one in feast.changes],
            title="Feast",
        )
    else:
        console.say("Feast: nothing changes")
    for view in feast.awaited:
        console.say(f"{view} is computed and brought online before a service is switched to it")
    for one in steps:
        if one.problem:
            console.say(f"refused: feature set {one.feature_set} v{one.version}: {one.problem}")
        elif (
            f"{one.feature_set}_v{one.version}" not in feast.views and one.state.value != "retired"
        ):
            console.say(
                f"{one.feature_set} v{one.version} is computed, but not served: definitions.py has no view of it"
            )
    for service, view in feast.cut_off.items():
        console.say(
            f"refused: service {service} would be cut off from {view}: keep its declaration for now"
        )


def _write(path: Path, text: str) -> None:
    """Write a file that is not there yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def _versions(app: "App", name: str, *versions: int) -> "list[Record]":
    """What is declared of each version, else what is on record."""
    from hyperfeast.features import definitions

    known = definitions.recorded(app.database)
    known |= {view: definitions.declared(one) for view, one in app.repo.feature_sets.items()}
    of_set = {one.version: one for one in known.values() if one.name == name}
    for version in versions:
        if version not in of_set:
            there = ", ".join(f"v{one}" for one in sorted(of_set)) or "no version of it"
            raise UsageError(
                f"no feature set {name} v{version}, declared or on record: there is {there}"
            )
    return [of_set[version] for version in versions]


def _differences(before: "Record", after: "Record") -> list[dict[str, str | None]]:
    """What two versions have or compute otherwise; None for what one of them lacks."""
    pairs: dict[str, tuple[str | None, str | None]] = {
        "source": (before.source, after.source),
        "keys": (", ".join(before.keys), ", ".join(after.keys)),
    }
    old = {one.name: one for one in before.features}
    new = {one.name: one for one in after.features}
    for name in dict.fromkeys([*old, *new]):
        pairs[name] = _rule(old.get(name)), _rule(new.get(name))
    return [
        {"what": what, "before": one, "after": other}
        for what, (one, other) in pairs.items()
        if one != other
    ]


def _rule(definition: "Definition | None") -> str | None:
    return f"{definition.rule}, {definition.dtype}" if definition else None


def _plain(value: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(value)
