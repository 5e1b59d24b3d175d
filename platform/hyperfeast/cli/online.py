"""`hyperfeast online convert`."""

from enum import StrEnum
from typing import Annotated

import typer

from hyperfeast.cli import console


class Layout(StrEnum):
    """How a view's values are laid out in Redis."""

    FEAST = "feast"
    PACKED = "packed"


_To = Annotated[Layout, typer.Option("--to", help="The layout that the values are to have.")]
_Views = Annotated[
    list[str] | None,
    typer.Option("--view", help="A feature view; may be given again. All of them by default."),
]
_RemoveSource = Annotated[
    bool,
    typer.Option(
        "--remove-source",
        help="Delete the values in the other layout once they are copied. Stop what writes there before.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    online = typer.Typer(help="The online store: values in Redis.", no_args_is_help=True)
    online.command("convert")(convert)
    # A group of one command, or Typer would make that command the group.
    online.callback()(_group)
    app.add_typer(online, name="online")


def _group() -> None:
    """The online store: values in Redis."""


def convert(
    to: _To,
    views: _Views = None,
    remove_source: _RemoveSource = False,
    as_json: console.AsJson = False,
) -> None:
    """Copy what is online into another layout. Run again, it goes on where it stopped."""
    from hyperfeast.app import App

    app = App()
    with console.progress_bar("converting") as progress:
        done = app.feast.convert_online(
            to.value, views=views or (), remove_source=remove_source, progress=progress
        )
    if as_json:
        console.print_json(done)
        return
    console.say(f"repository: {app.settings.feature_repo}")
    console.print_table(
        ["feature view", "rows", "copied", "there already", "source"],
        [
            [one.view, one.rows, one.written, one.already_there, _source(removed=one.removed)]
            for one in done
        ],
    )
    console.say(f"they are read with `layout: {to}` under `online_store` in feature_store.yaml")


def _source(*, removed: bool) -> str:
    return "removed" if removed else "kept"
