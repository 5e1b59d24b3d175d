"""`hyperfeast demo`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console
from hyperfeast.cli.models import print_predictions, print_scores

if TYPE_CHECKING:
    from rich.table import Table

    from hyperfeast.demo import DemoResult, Stage

_NEXT = """What to type next, after `source .venv/bin/activate`
  hyperfeast status                     servers, schema, row counts
  hyperfeast predict AAPL MSFT          once more, from the shell
  hyperfeast serve                      and over HTTP: POST /v1/predict
  hyperfeast ingest candles FILE --tf 1d     your own bars
  cd feature_repo && feast ui --host 127.0.0.1    what Feast knows
  hyperfeast down                       stop the servers; the data stay"""


_MANY = 1_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.html"),
    as_json: console.AsJson = False,
) -> None:
    """Run real market and glucose data through the whole platform, to a logged prediction."""
    from hyperfeast.app import App
    from hyperfeast.demo import run

    if as_json:
        console.print_json(_plain(run(App(), report, on_stage=lambda _, __: None)))
        return
    with _stage_table() as on_stage:
        result = run(App(), report, on_stage=on_stage)
    _print(result)


def _print(result: "DemoResult") -> None:
    if result.training is not None:
        print_scores(result.training)
    print_predictions(result.predictions)
    console.print_table(
        ["glucose, known at", "day mean", "30-day mean", "30-day std", "z-score"],
        [list(row.values()) for row in result.last_z_scores],
    )
    console.say(f"Charts: {result.report}\n")
    console.say(_NEXT)


def _plain(result: "DemoResult") -> dict[str, object]:
    training = result.training
    return {
        "stages": [asdict(stage) for stage in result.stages],
        "model_version": training.version if training else None,
        "metrics": training.metrics if training else None,
        "predictions": [asdict(one) for one in result.predictions],
        "z_scores": result.last_z_scores,
        "report": result.report,
    }


@contextmanager
def _stage_table() -> Iterator[Callable[[str, "Stage | None"], None]]:
    """A table that grows by a line a stage and turns while one runs."""
    from rich.console import Console
    from rich.live import Live

    done: list[Stage] = []
    with Live(_table(done), console=Console(), refresh_per_second=8) as live:

        def on_stage(title: str, stage: "Stage | None") -> None:
            if stage is not None:
                done.append(stage)
            live.update(_table(done, running=title if stage is None else None))

        yield on_stage


def _table(done: "list[Stage]", running: str | None = None) -> "Table":
    from rich import box
    from rich.spinner import Spinner
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name, justify in (
        ("stage", "left"), ("rows", "right"), ("seconds", "right"), ("rows/s", "right"), ("", "left"),
    ):  # fmt: skip
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for stage in done:
        # A speed says something of many rows only.
        speed = f"{stage.rows / stage.seconds:,.0f}" if stage.rows >= _MANY else ""
        table.add_row(stage.title, f"{stage.rows:,}", f"{stage.seconds:.1f}", speed, stage.note)
    if running:
        table.add_row(running, "", "", "", Spinner("dots"))
    return table
