"""`hyperfeast users export | forget`."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.errors import UsageError

_User = Annotated[str, typer.Argument(metavar="USER", help="The user's UUID.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="What belongs to one user: take it out, or forget it.", no_args_is_help=True
    )
    group.command()(export)
    group.command()(forget)
    app.add_typer(group, name="users")


def export(
    user: _User,
    to: Annotated[
        Path | None, typer.Option("--to", help="The file; by default USER.zip in this folder.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Write everything of a user into a ZIP of JSON lines: readings, features, baselines, predictions."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user

    user_id = checked_user(user)
    path = to or Path(f"{user_id}.zip")
    with closing(App()) as app, console.progress_bar("tables") as progress:
        done = app.export_user(user_id, path, progress=progress)
    if as_json:
        console.print_json({"user_id": user_id, "path": str(done.path), "rows": done.rows})
        return
    if not done.rows:
        console.say(f"nothing of user {user_id} is here")
    else:
        console.print_table(["part", "rows"], [[name, count] for name, count in done.rows.items()])
    console.say(f"written: {done.path}")


def forget(
    user: _User,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: console.AsJson = False,
) -> None:
    """Delete everything of a user for good: database, Redis and files. A receipt stays in audit_log."""
    from hyperfeast.app import App
    from hyperfeast.baselines import checked_user

    user_id = checked_user(user)
    if not yes:
        _ask(str(user_id))
    with closing(App()) as app, console.progress_bar("steps") as progress:
        done = app.forget_user(user_id, progress=progress)
    if as_json:
        console.print_json({"user_id": user_id, "deleted": done.deleted, "redacted": done.redacted})
        return
    if not done.found:
        console.say(f"nothing of user {user_id} was here")
        return
    counts = [(name, count, "deleted") for name, count in done.deleted.items()]
    counts += [(name, count, "redacted") for name, count in done.redacted.items()]
    console.print_table(["part", "rows", ""], [list(one) for one in counts])
    console.say(f"{user_id} is forgotten; audit_log has the receipt")


def _ask(user_id: str) -> None:
    """Let a person say it once more.

    Raises:
        UsageError: they do not, or nobody is there to ask.
    """
    if not _is_asked():
        raise UsageError(
            f"user {user_id} would be forgotten for good, and nobody is here to ask: say --yes"
        )
    typed = typer.prompt(
        f"Everything of user {user_id} is deleted for good. Type the id to go on", err=True
    )
    if typed.strip().lower() != user_id:
        raise UsageError("that is another id: nothing was deleted")


def _is_asked() -> bool:
    """Whether there is somebody who can answer."""
    return sys.stdin.isatty()
