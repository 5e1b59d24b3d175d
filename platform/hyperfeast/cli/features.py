"""`hyperfeast features list | compute | apply` and `hyperfeast materialize`."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from hyperfeast.cli import console


def register(app: typer.Typer) -> None:
    """Add the commands."""
    features = typer.Typer(help="Feature sets.", no_args_is_help=True)
    features.command("list")(list_sets)
    features.command()(compute)
    features.command()(apply)
    app.add_typer(features, name="features")
    app.command()(materialize)


def list_sets(as_json: console.AsJson = False) -> None:
    """List the declared features: how each is computed and from how many bars on."""
    from hyperfeast.app import App

    rows = [
        {
            "feature_set": f"{one.name} v{one.version}",
            "feature": feature.name,
            "rule": feature.rule.text if feature.rule else "column of the source",
            "warmup": feature.rule.lookback if feature.rule else None,
            "description": feature.description,
        }
        for one in App().repo.feature_sets.values()
        for feature in one.features
    ]
    if as_json:
        console.print_json(rows)
        return
    for name in dict.fromkeys(row["feature_set"] for row in rows):
        console.print_table(
            ["feature", "rule", "warm-up", "description"],
            [list(row.values())[1:] for row in rows if row["feature_set"] == name],
            title=str(name),
        )


def compute(
    name: Annotated[
        str | None, typer.Argument(help="A feature set; all of them by default.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Compute features from what was ingested; write what is new or changed."""
    from hyperfeast.app import App

    with console.spinner("computing") as say:
        done = App().compute_features(name, progress=lambda one: say(f"computing {one}"))
    if as_json:
        console.print_json(done)
    else:
        console.print_table(
            ["feature set", "rows", "written"],
            [[one.feature_set, one.rows, one.written] for one in done],
        )


def apply(as_json: console.AsJson = False) -> None:
    """Register the feature repository with Feast, as `feast apply` does."""
    from hyperfeast.app import App

    with console.spinner("applying (Feast takes some seconds to load)"):
        names = App().feast.apply()
    if as_json:
        console.print_json({"applied": names})
    else:
        console.say(f"applied: {', '.join(names)}")


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
        names = App().materialize(_utc(start), _utc(end))
    if as_json:
        console.print_json({"materialized": names})
    else:
        console.say(f"online: {', '.join(names)}")


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment else None
