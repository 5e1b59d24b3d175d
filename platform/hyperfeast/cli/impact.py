"""`hyperfeast impact`."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.cli.options import utc

if TYPE_CHECKING:
    from hyperfeast.features.impact import Impact

_SHOWN = 20
_FEW_FEATURES = 4


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(impact)


def impact(
    since: Annotated[
        datetime | None, typer.Option(help="Only what was revised since then, UTC.")
    ] = None,
    symbol: Annotated[str | None, typer.Option(help="Only of this instrument.")] = None,
    as_json: console.AsJson = False,
) -> None:
    """List features that were revised, and the training runs and signals that had used the old values."""
    from hyperfeast.app import App
    from hyperfeast.features.impact import impact as find
    from hyperfeast.quality import check_keys

    app = App()
    if symbol is not None:
        check_keys(app.database, [symbol])
    with console.spinner("comparing revisions"):
        found = find(
            app.database,
            app.repo.feature_sets.values(),
            since=utc(since),
            symbol=symbol,
        )
    if as_json:
        console.print_json(found)
    else:
        _show(found)


def _show(found: "Impact") -> None:
    if not found.corrections:
        console.say("nothing was revised")
        return
    console.print_table(
        ["revised", "feature set", "of", "rows", "from", "to", "features"],
        [
            [
                one.recorded_at,
                one.view,
                "/".join(one.entity),
                one.revised,
                one.first_event,
                one.last_event,
                _named(one.features),
            ]
            for one in found.corrections[:_SHOWN]
        ],
        title="Revised",
    )
    if found.trainings:
        console.print_table(
            ["model", "version", "active", "read at", "feature set", "symbol", "rows", "features"],
            [
                [
                    one.model_name,
                    one.model_version,
                    one.is_active,
                    one.known_at,
                    one.view,
                    one.symbol,
                    one.rows,
                    _named(one.features),
                ]
                for one in found.trainings[:_SHOWN]
            ],
            title="Trained on what was revised",
        )
    if found.signals:
        console.print_table(
            ["answered", "symbol", "signal", "feature set", "row of", "features"],
            [
                [
                    one.ts,
                    one.symbol,
                    one.label,
                    one.view,
                    one.event_timestamp,
                    _named(one.features),
                ]
                for one in found.signals[:_SHOWN]
            ],
            title="Answered with what was revised",
        )
    runs = {one.run_id for one in found.trainings}
    console.say(
        f"{sum(one.revised for one in found.corrections):,} rows revised in {len(found.corrections):,} "
        f"corrections; {len(runs):,} training runs and {len(found.signals):,} signals had used the old values"
        + (f" ({_SHOWN} of each are shown, --json has all)" if _is_long(found) else "")
    )


def _is_long(found: "Impact") -> bool:
    return any(len(part) > _SHOWN for part in (found.corrections, found.trainings, found.signals))


def _named(features: tuple[str, ...]) -> str:
    more = len(features) - _FEW_FEATURES
    named = ", ".join(features[:_FEW_FEATURES])
    return f"{named} and {more} more" if more > 0 else named
