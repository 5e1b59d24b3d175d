"""The command line: parse, call, print. Slow libraries load only when a command needs them."""

import sys
import textwrap
from typing import Annotated

import typer
from typer.exceptions import TyperException

from hyperfeast import __version__
from hyperfeast.cli import (
    aggregates,
    backfill,
    baselines,
    console,
    data,
    demo,
    features,
    impact,
    jobs,
    lifecycle,
    mirror,
    models,
    online,
    quality,
    servers,
    users,
    verify,
    worker,
)
from hyperfeast.errors import HyperfeastError, UsageError

_LONGEST_MESSAGE = 300
_USAGE, _FAILURE, _INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="hyperfeast",
    help="A feature platform for time-series machine learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
servers.register(app)
data.register(app)
backfill.register(app)
aggregates.register(app)
lifecycle.register(app)
quality.register(app)
verify.register(app)
baselines.register(app)
users.register(app)
features.register(app)
impact.register(app)
online.register(app)
mirror.register(app)
models.register(app)
worker.register(app)
jobs.register(app)
demo.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.say(f"hyperfeast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", help="Print the version.", callback=_print_version)
    ] = False,
    debug: Annotated[  # noqa: ARG001
        bool, typer.Option("--debug", help="Show tracebacks. May stand anywhere.")
    ] = False,
) -> None:
    """A feature platform for time-series machine learning."""
    if "--help" not in sys.argv:
        _configure_logs()


def _configure_logs() -> None:
    """What a library says on the way must not get into what a command prints."""
    from hyperfeast.app import configure_logs
    from hyperfeast.settings import load

    configure_logs(load().log_level)


def main() -> None:
    """The entry point `hyperfeast`: exit code 0, 2 for a mistaken call, 1 for anything else."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        raise SystemExit(_report(error)) from None
    except KeyboardInterrupt:
        console.complain(
            "interrupted; what was finished stays, and the same command goes on from there"
        )
        raise SystemExit(_INTERRUPTED) from None
    raise SystemExit(code)


def _report(error: Exception) -> int:
    """One line that says what is wrong; the exit code."""
    if isinstance(error, TyperException):
        return _report_usage(error)
    if isinstance(error, HyperfeastError):
        console.complain(str(error))
        return _USAGE if isinstance(error, UsageError) else _FAILURE
    console.complain(
        f"{type(error).__name__}: {_flat(error)}. This is a fault of hyperfeast: --debug shows where"
    )
    return _FAILURE


def _report_usage(error: TyperException) -> int:
    """A mistake in the call itself, in one line; nothing to say if its help has just been printed."""
    # Typer lists choices on lines of their own.
    if message := " ".join(error.format_message().split()):
        console.complain(message)
    return error.exit_code


def _flat(error: Exception) -> str:
    return textwrap.shorten(str(error), _LONGEST_MESSAGE, placeholder=" ...")
