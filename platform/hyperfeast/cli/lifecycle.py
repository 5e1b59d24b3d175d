"""`hyperfeast lifecycle show | plan | apply | enforce`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.errors import UsageError

if TYPE_CHECKING:
    from hyperfeast.lifecycle import Kept, Plan, TableState

_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask, though rows would then expire.")]
_CompressNow = Annotated[
    bool,
    typer.Option("--compress-now", help="Also compress what is old enough, ahead of the schedule."),
]
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_UNIT = 1024


def register(app: typer.Typer) -> None:
    """Add the commands."""
    lifecycle = typer.Typer(
        help="How long rows are kept, and how: sql/lifecycle.toml.", no_args_is_help=True
    )
    lifecycle.command()(show)
    lifecycle.command("plan")(plan_)
    lifecycle.command("apply")(apply_)
    lifecycle.command("enforce")(enforce_)
    app.add_typer(lifecycle, name="lifecycle")


def show(as_json: console.AsJson = False) -> None:
    """Show every table: kept for how long, chunks, sizes, ages, the next run of its policies."""
    from hyperfeast.app import App
    from hyperfeast.lifecycle import show

    with console.spinner("reading the catalog"):
        states = show(App().database)
    if as_json:
        console.print_json(states)
    else:
        _print_states(states)


def plan_(as_json: console.AsJson = False) -> None:
    """Show what apply would change, and what enforcing would drop and compress. Changes nothing."""
    from hyperfeast.app import App
    from hyperfeast.lifecycle import plan

    with console.spinner("counting what has expired"):
        found = plan(App().database)
    if as_json:
        console.print_json(_as_dict(found))
    else:
        _print_plan(found)


def apply_(yes: _Yes = False, as_json: console.AsJson = False) -> None:
    """Put what is declared in force. Asks first if rows would be dropped."""
    from hyperfeast.app import App
    from hyperfeast.lifecycle import apply, plan

    database = App().database
    with console.spinner("counting what has expired"):
        found = plan(database)
    if not as_json:
        _print_plan(found)
    changed = apply(database, found, confirmed=yes or _confirmed(found, as_json=as_json))
    if as_json:
        console.print_json({"changed": changed, "drops": found.drops})
    else:
        console.say(f"settings changed: {len(changed)}")
        if found.drops:
            console.say(
                "what has expired goes with `hyperfeast lifecycle enforce`, or with the worker at night"
            )


def enforce_(compress_now: _CompressNow = False, as_json: console.AsJson = False) -> None:
    """Drop what has expired under what is in force; aggregates are brought up to date before."""
    from hyperfeast.app import App

    with console.progress_bar("enforcing") as progress:
        done = App().enforce_lifecycle(compress_now=compress_now, progress=progress)
    if as_json:
        console.print_json(done)
        return
    if not done:
        console.say(
            "nothing is in force: `hyperfeast lifecycle apply` puts the declaration in force"
        )
        return
    console.print_table(
        ["table", "older than", "rows dropped", "chunks dropped", "chunks compressed"],
        [
            [
                one.relation,
                max(one.dropped_before.values(), default=None),
                one.rows_dropped,
                one.chunks_dropped,
                one.chunks_compressed,
            ]
            for one in done
        ],
    )


def human_bytes(count: int) -> str:
    """A number of bytes as a person reads it: 1.5 MiB."""
    size, unit = float(count), 0
    while size >= _UNIT and unit < len(_UNITS) - 1:
        size, unit = size / _UNIT, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def _confirmed(plan: "Plan", *, as_json: bool) -> bool:
    """What the person at the terminal says.

    Raises:
        UsageError: no, or nobody is there to ask.
    """
    if not plan.drops:
        return True
    about = f"{sum(one.rows for one in plan.drops):,} rows, about {human_bytes(plan.dropped_bytes)}"
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"this would drop {about}: `hyperfeast lifecycle plan` shows them; --yes drops them"
        )
    if not typer.confirm(f"This drops {about}, and cannot be undone. Go on?"):
        raise UsageError("not confirmed: nothing was changed")
    return True


def _print_states(states: "list[TableState]") -> None:
    console.print_table(
        ["table", "kept", "rows, about", "size", "span"],
        [
            [
                one.relation,
                _by_value([(kept.tf, _kept(kept)) for kept in one.kept]),
                one.rows,
                human_bytes(one.bytes),
                _span(one),
            ]
            for one in states
        ],
    )
    stored = [
        [
            one.relation,
            _chunks(one),
            human_bytes(one.bytes_uncompressed) if one.compressed_chunks else None,
            max((kept.dropped_before for kept in one.kept if kept.dropped_before), default=None),
            min((run for run in one.next_runs.values() if run), default=None),
        ]
        for one in states
    ]
    if known := [row for row in stored if any(row[1:])]:
        console.print_table(
            ["table", "chunks", "unpacked", "dropped before", "next run"],
            known,
            title="Chunks, retention, policies",
        )


def _span(state: "TableState") -> str | None:
    if state.oldest is None or state.newest is None:
        return None
    return f"{state.oldest:%Y-%m-%d} to {state.newest:%Y-%m-%d}"


def _kept(kept: "Kept") -> str:
    """What is in force, and what is declared where that is something else."""
    if kept.in_force == kept.declared:
        return kept.declared
    return f"{kept.in_force or 'nothing in force'} (declared: {kept.declared})"


def _chunks(state: "TableState") -> str | None:
    if state.chunks is None:
        return None
    return f"{state.chunks:,}, {state.compressed_chunks:,} compressed"


def _by_value(kept: list[tuple[str, str]]) -> str:
    """`1m 5m: 6 months, 1d: forever`; the value alone where there are no timeframes."""
    values: dict[str, list[str]] = {}
    for tf, value in kept:
        values.setdefault(value, []).append(tf)
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{' '.join(tfs)}: {value}" for value, tfs in values.items())


def _print_plan(plan: "Plan") -> None:
    for note in plan.notes:
        console.say(f"note: {note}")
    if plan.changes:
        console.print_table(
            ["table", "tf", "setting", "in force", "declared"],
            [[one.relation, one.tf, one.setting, one.found, one.declared] for one in plan.changes],
            title="would change",
        )
    else:
        console.say("what is declared is in force")
    if plan.drops:
        console.print_table(
            ["table", "tf", "older than", "chunks", "rows", "size, about"],
            [
                [one.relation, one.tf, one.before, one.chunks, one.rows, human_bytes(one.bytes)]
                for one in plan.drops
            ],
            title="would be dropped",
        )
    else:
        console.say("nothing would be dropped")
    if plan.compress:
        console.print_table(
            ["table", "chunks", "size"],
            [[one.relation, one.chunks, human_bytes(one.bytes)] for one in plan.compress],
            title="would be compressed",
        )


def _as_dict(plan: "Plan") -> dict[str, object]:
    """The plan without the declaration that it was made from."""
    return {
        "edition": plan.edition,
        "changes": [asdict(one) for one in plan.changes],
        "drops": [asdict(one) for one in plan.drops],
        "dropped_bytes": plan.dropped_bytes,
        "compress": "unavailable"
        if plan.compress is None
        else [asdict(one) for one in plan.compress],
        "notes": plan.notes,
    }
