"""The routes."""

from dataclasses import asdict
from typing import Annotated, Any
from uuid import uuid4

import orjson
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hyperfeast import __version__, cache
from hyperfeast.api import failures, push
from hyperfeast.api.champion import Champion
from hyperfeast.api.metrics import Metrics
from hyperfeast.api.middleware import Observed
from hyperfeast.app import App
from hyperfeast.models import versions
from hyperfeast.serving import Prediction
from hyperfeast.sqlfiles import query

_MAX_SYMBOLS = 1_000

Symbol = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[^\x00]+$")]


class PredictRequest(BaseModel):
    """Which instruments to predict."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"symbols": ["AAPL"]}})

    symbols: list[Symbol] = Field(min_length=1, max_length=_MAX_SYMBOLS)


def create(app: App, model: str) -> FastAPI:
    """The API of one declared model, and of the tables that rows are pushed into.

    Args:
        app: the platform, with a connection pool.
        model: its name in the feature repository; it may be trained later.
    """
    api = FastAPI(title="hyperfeast", version=__version__)
    champion, metrics = Champion(app, model), Metrics()
    failures.install(api)
    limits = dict.fromkeys((push.CandlesPush.path, push.MetricsPush.path), push.LIMIT)
    api.add_middleware(Observed, metrics=metrics, limits=limits)
    api.include_router(push.router(app, metrics))

    @api.post("/v1/predict")
    def predict(request: PredictRequest) -> Response:
        """Predict every symbol from its features online. Each answer is logged before it is given."""
        request_id = uuid4()
        predictions = champion.predictor().predict(request.symbols, request_id=request_id)
        metrics.predictions(model, predictions)
        return _json(
            {
                "request_id": request_id,
                "model": model,
                "predictions": list(map(_shown, predictions)),
            }
        )

    @api.get("/v1/models")
    def models() -> Response:
        """Every registered version, the active one of each name marked."""
        return _json({"models": [asdict(one) for one in versions(app.database)]})

    @api.get("/healthz")
    async def healthy() -> Response:
        """Whether this process lives."""
        # Not in the thread pool: a process whose every thread waits for a server lives.
        return _json({"status": "ok"})

    @api.get("/readyz")
    def ready() -> Response:
        """Whether a prediction could be answered now: both servers and a model."""
        app.database.fetch(query("status", "server"))
        with cache.connect(app.endpoints.redis_url) as redis:
            redis.ping()
        return _json({"status": "ready", "model_version": champion.predictor().model.version})

    @api.get("/metrics", include_in_schema=False)
    def exposition() -> Response:
        # The process's own: the cache of online features, how far behind the views are, Python, memory.
        app.show_lags()
        both = generate_latest(metrics.registry) + generate_latest()
        return Response(both, media_type=CONTENT_TYPE_LATEST)

    return api


def _shown(prediction: Prediction) -> dict[str, Any]:
    """A prediction as it is answered; the request's id stands once, above them all."""
    return {name: value for name, value in asdict(prediction).items() if name != "request_id"}


def _json(content: dict[str, Any]) -> Response:
    body = orjson.dumps(content, option=orjson.OPT_UTC_Z)
    return Response(body, media_type="application/json")
