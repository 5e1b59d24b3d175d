"""`hyperfeast worker`."""

from functools import partial
from typing import Annotated

import typer

from hyperfeast.errors import HyperfeastError, UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


def worker(
    once: Annotated[
        bool, typer.Option("--once", help="Refresh once and stop; exit code 1 if it failed.")
    ] = False,
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=64, help="How many worker processes; one that dies is started again."
        ),
    ] = 1,
    concurrency: Annotated[
        int, typer.Option(min=1, max=32, help="How many jobs at a time in each process.")
    ] = 2,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            help="Do only the jobs that wait in this queue. Repeatable. Default everything."
        ),
    ] = None,
) -> None:
    """Keep features current: when rows are taken in and every five minutes; do the jobs that wait."""
    if once and (processes > 1 or queue):
        raise UsageError(
            "--once runs one refresh in this process: leave out --processes and --queue"
        )
    if once:
        from hyperfeast.app import App

        App().worker().work(once=True)
        return
    work = partial(_work, tuple(queue or ()), concurrency)
    if processes == 1:
        work()
        return
    from hyperfeast.jobs.processes import supervise

    supervise(partial(_in_child, work), processes)


def _work(queues: tuple[str, ...], concurrency: int) -> None:
    from hyperfeast.app import App

    App().worker().work(queues=queues, concurrency=concurrency)


def _in_child(work: "partial[None]") -> None:
    """A process of its own says what went wrong as the command would."""
    from hyperfeast.app import configure_logs
    from hyperfeast.cli import console
    from hyperfeast.settings import load

    configure_logs(load().log_level)
    try:
        work()
    except HyperfeastError as error:
        console.complain(str(error))
        raise SystemExit(1) from None
