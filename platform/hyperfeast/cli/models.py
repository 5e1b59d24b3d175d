"""`hyperfeast train | predict | serve`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hyperfeast.cli import console

if TYPE_CHECKING:
    from hyperfeast.serving import Prediction
    from hyperfeast.training import TrainingResult

DEFAULT_MODEL = "market_direction"
_Model = Annotated[str, typer.Option(help="A model declared in the feature repository.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(train)
    app.command()(predict)
    app.command()(serve)


def train(
    model: Annotated[str, typer.Argument(help="A model declared in the feature repository.")],
    as_json: console.AsJson = False,
) -> None:
    """Train a model: walk forward, score it beside naive baselines, register it."""
    from hyperfeast.app import App

    with console.spinner(f"training {model}"):
        result = App().train(model)
    if as_json:
        console.print_json(
            {
                "run_id": result.run_id,
                "model_id": result.model_id,
                "version": result.version,
                "created": result.created,
                "metrics": result.metrics,
            }
        )
    else:
        print_scores(result)
        note = "" if result.created else ", unchanged since it was registered"
        console.say(f"{model} v{result.version} is active{note} (run {result.run_id})")


def predict(
    symbols: Annotated[list[str], typer.Argument(help="Instruments.")],
    model: _Model = DEFAULT_MODEL,
    as_json: console.AsJson = False,
) -> None:
    """Predict from the features online, and log every answer."""
    from hyperfeast.app import App

    with console.spinner("predicting (Feast takes some seconds to load)"):
        predictions = App().predictor(model).predict(symbols)
    if as_json:
        console.print_json([asdict(one) for one in predictions])
    else:
        print_predictions(predictions)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; HYPERFEAST_API_HOST, 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; HYPERFEAST_API_PORT, 8000.", min=0, max=65535)
    ] = None,
    model: _Model = DEFAULT_MODEL,
) -> None:
    """Answer predictions over HTTP: POST /v1/predict."""
    from hyperfeast.api import run

    run(model, host=host, port=port)


def print_scores(result: "TrainingResult") -> None:
    """The model's out-of-sample scores beside the baselines'."""
    names = ("accuracy", "auc", "log_loss", "brier")
    console.print_table(
        ["out of sample", "accuracy", "AUC", "log loss", "Brier"],
        [
            [who.replace("_", " "), *(scores.get(name) for name in names)]
            for who, scores in result.metrics["pooled"].items()
        ],
    )


def print_predictions(predictions: "list[Prediction]") -> None:
    """One line a prediction, with the age of what it rests on."""
    console.print_table(
        ["symbol", "signal", "P(up)", "features known at", "stale", "model"],
        [
            [
                one.symbol,
                one.label,
                one.proba,
                one.known_at,
                one.stale,
                f"v{one.model_version}",
            ]
            for one in predictions
        ],
    )
