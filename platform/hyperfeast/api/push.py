"""`POST /v1/candles` and `POST /v1/metrics`: rows by HTTP, as JSON or as an Arrow IPC stream."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any, ClassVar

import anyio
import orjson
import polars as pl
import structlog
from anyio.to_thread import run_sync
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, WithJsonSchema
from starlette.status import HTTP_415_UNSUPPORTED_MEDIA_TYPE

from hyperfeast.api import arrow, bodies, failures, rows, wording
from hyperfeast.api.bodies import BodyLimit
from hyperfeast.api.metrics import Metrics
from hyperfeast.app import App
from hyperfeast.errors import DataError, HyperfeastError, UsageError
from hyperfeast.ingest import IngestSummary, ingest_candles, ingest_metrics
from hyperfeast.types import Timeframe

MAX_ROWS = 250_000
LIMIT = BodyLimit(
    32 << 20,
    f"at most {MAX_ROWS:,} rows and {32 << 20:,} bytes a request, after decompression: split it into several "
    "requests, or take it in as a file with `hyperfeast ingest`",
)

_JSON = "application/json"
_ARROW = "application/vnd.apache.arrow.stream"
_KEY = "Idempotency-Key"
_MAX_SHOWN_ERRORS = 20
_MAX_SHOWN_NAME = 100

# Bodies that are read at once, and those that are worked on: this bounds the memory that they take.
_READING, _WORKING = 16, 4

Word = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]


class Push(BaseModel):
    """What holds for all rows of a request: keys beside `rows` in JSON, query parameters with Arrow."""

    model_config = ConfigDict(extra="forbid")

    table: ClassVar[str]
    path: ClassVar[str]
    example_row: ClassVar[dict[str, Any]]

    source: Name
    tz: Word | None = None

    @property
    @abstractmethod
    def is_rolled_up(self) -> bool:
        """Whether aggregates are kept of such rows."""

    @abstractmethod
    def ingest(
        self, app: App, frame: pl.DataFrame, key: str | None, sha256: str | None
    ) -> IngestSummary:
        """Take the rows in as one batch, once for each key."""


class CandlesPush(Push):
    """Bars of one timeframe."""

    table: ClassVar[str] = "candles"
    path: ClassVar[str] = "/v1/candles"
    example_row: ClassVar[dict[str, Any]] = {
        "symbol": "AAPL",
        "ts": "2024-01-02",
        "open": 187.15,
        "high": 188.44,
        "low": 183.89,
        "close": 185.64,
        "volume": 82488700,
    }

    timeframe: Annotated[
        Timeframe, WithJsonSchema({"type": "string", "enum": [one.value for one in Timeframe]})
    ]
    symbol: Word | None = None
    calendar: Word | None = None

    @property
    def is_rolled_up(self) -> bool:
        """Aggregates are kept of one-minute bars."""
        return self.timeframe is Timeframe.M1

    def ingest(
        self, app: App, frame: pl.DataFrame, key: str | None, sha256: str | None
    ) -> IngestSummary:
        """Into `candles`."""
        return ingest_candles(
            app.database,
            frame,
            **dict(self),
            idempotency_key=key,
            body_sha256=sha256,
            mirror=app.mirror,
        )


class MetricsPush(Push):
    """Readings of personal metrics."""

    table: ClassVar[str] = "user_baseline_raw"
    path: ClassVar[str] = "/v1/metrics"
    example_row: ClassVar[dict[str, Any]] = {
        "user_id": "123e4567-e89b-12d3-a456-426614174000",
        "metric": "resting_heart_rate",
        "ts": "2024-01-02T07:00:00+01:00",
        "value": 52,
    }

    user_id: Word | None = None
    metric: Word | None = None
    device: Name | None = None

    @property
    def is_rolled_up(self) -> bool:
        """Aggregates are kept of every metric."""
        return True

    def ingest(
        self, app: App, frame: pl.DataFrame, key: str | None, sha256: str | None
    ) -> IngestSummary:
        """Into `user_baseline_raw`."""
        return ingest_metrics(
            app.database,
            frame,
            source=self.source,
            user=self.user_id,
            metric=self.metric,
            device=self.device,
            tz=self.tz,
            idempotency_key=key,
            body_sha256=sha256,
            mirror=app.mirror,
        )


def router(app: App, metrics: Metrics) -> APIRouter:
    """The two routes.

    Args:
        app: the platform, with a connection pool.
        metrics: where the rows are counted.
    """
    routes = APIRouter()
    receiver = _Receiver(app, metrics)

    @routes.post(CandlesPush.path, **_documented(CandlesPush, {"timeframe": "1d"}))
    async def candles(request: Request) -> Response:
        """Insert bars, or correct those that are there with other values; refused rows are quarantined."""
        return await receiver.receive(request, CandlesPush)

    @routes.post(MetricsPush.path, **_documented(MetricsPush, {}))
    async def readings(request: Request) -> Response:
        """Insert readings, or correct those that are there; refused rows are quarantined."""
        return await receiver.receive(request, MetricsPush)

    return routes


class _Receiver:
    """Reads a request without holding up others, and works on it in a thread."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._reading = anyio.CapacityLimiter(_READING)
        self._working = anyio.CapacityLimiter(_WORKING)

    async def receive(self, request: Request, kind: type[Push]) -> Response:
        content_type = _content_type(request)
        async with self._reading:
            body = await bodies.read(request, LIMIT)
            return await run_sync(
                self._work, request, kind, content_type, body, limiter=self._working
            )

    def _work(self, request: Request, kind: type[Push], content_type: str, body: bytes) -> Response:
        push, frame = _rows(request, kind, content_type, body)
        key = request.headers.get(_KEY)
        sha256 = None if key is None else _digest(content_type, push, body)
        try:
            summary = push.ingest(self._app, frame, key, sha256)
        except (DataError, UsageError) as error:
            raise wording.of_request(error) from error
        if not summary.replayed:
            self._metrics.ingested(push.table, summary)
            if summary.inserted + summary.corrected:
                self._follow(push)
        return _answer(summary)

    def _follow(self, push: Push) -> None:
        """Bring the aggregates up to date, and ask the workers for the features.

        The rows are in, whatever comes of it: it is done again later.
        """
        if push.is_rolled_up:
            with _noted("aggregates not refreshed"):
                self._app.refresh_aggregates(wait=False)
        with _noted("workers not asked for features"):
            self._app.announce()


@contextmanager
def _noted(event: str) -> Iterator[None]:
    """An error of the block is put in the log, and fails nothing."""
    try:
        yield
    except HyperfeastError as error:
        structlog.get_logger().warning(event, error=type(error).__name__, message=str(error))


def _content_type(request: Request) -> str:
    given = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if given not in (_JSON, _ARROW):
        raise HTTPException(
            HTTP_415_UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type {given[:100]!r} is not read: expected {_JSON} or {_ARROW}",
        )
    return given


def _rows(
    request: Request, kind: type[Push], content_type: str, body: bytes
) -> tuple[Push, pl.DataFrame]:
    """What holds for all rows, checked first, and the rows."""
    parameters = request.query_params.multi_items()
    if content_type == _JSON:
        if parameters:
            raise DataError(
                f"{parameters[0][0][:_MAX_SHOWN_NAME]!r} is a query parameter: with JSON, options stand in "
                "the body, beside rows"
            )
        options, frame = rows.read(body, MAX_ROWS, LIMIT)
        return _checked(kind, options, "body"), frame
    options = dict(parameters)
    if len(options) < len(parameters):
        raise DataError("a query parameter comes twice: give each option once")
    return _checked(kind, options, "query"), arrow.read(body, MAX_ROWS, LIMIT)


def _checked(kind: type[Push], options: dict[str, Any], place: str) -> Push:
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [
                {**one, "loc": (place, *(str(part)[:_MAX_SHOWN_NAME] for part in one["loc"]))}
                for one in found[:_MAX_SHOWN_ERRORS]
            ]
        ) from None


def _digest(content_type: str, push: Push, body: bytes) -> str:
    """SHA-256 of what was asked for: compressed or not makes no difference, other options do."""
    asked = [push.path, content_type, push.model_dump(mode="json")]
    sha256 = hashlib.sha256(orjson.dumps(asked))
    sha256.update(body)
    return sha256.hexdigest()


def _answer(summary: IngestSummary) -> Response:
    """The summary: 200, or 422 if no row was good."""
    shown = asdict(summary)
    if summary.quarantined < summary.rows_in:
        return Response(orjson.dumps(shown), media_type=_JSON)
    rules = ", ".join(f"{rule}: {count:,}" for rule, count in summary.refused.items())
    return failures.answer(
        422,
        "RowsRefused",
        f"every row was refused ({rules}): they are in quarantine as they came, as batch {summary.batch_id}",
        batch={**shown, "batch_id": str(summary.batch_id)},
    )


def _documented(kind: type[Push], options: dict[str, Any]) -> dict[str, Any]:
    """What the documentation says of a route whose body FastAPI does not read."""
    schema = kind.model_json_schema()
    row = {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}}
    many = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS, "items": row}
    body = {
        **schema,
        "properties": {**schema["properties"], "rows": many},
        "required": [*schema["required"], "rows"],
        "example": {"source": "feed-a", **options, "rows": [kind.example_row]},
    }
    parameters = [
        {"name": name, "in": "query", "schema": value, "description": "With an Arrow body."}
        for name, value in schema["properties"].items()
    ]
    key = {
        "name": _KEY,
        "in": "header",
        "schema": {"type": "string", "maxLength": 255},
        "description": "The same key and body again has no second effect, and the same answer.",
    }
    columns = ", ".join(kind.example_row)
    stream = {
        "type": "string",
        "format": "binary",
        "description": f"An uncompressed Arrow IPC stream with the columns {columns}.",
    }
    content = {_JSON: {"schema": body}, _ARROW: {"schema": stream}}
    return {
        "openapi_extra": {
            "parameters": [key, *parameters],
            "requestBody": {"required": True, "content": content},
        },
        "responses": {
            200: {
                "description": "What came of the rows",
                "content": {_JSON: {"example": _EXAMPLE}},
            },
            409: {"description": "The idempotency key was used for other content"},
            413: {"description": "Too many bytes or rows: split it"},
            415: {
                "description": "Neither JSON nor an Arrow stream, or compressed by other than gzip"
            },
            422: {"description": "It cannot be read, or every row was refused; nothing is stored"},
            503: {"description": "The database does not answer: send it again"},
        },
    }


_EXAMPLE = {
    "batch_id": "0d9c3b6e-7c39-4d6c-9f0e-6a1c3f9f6f3a",
    "rows_in": 1,
    "inserted": 1,
    "corrected": 0,
    "unchanged": 0,
    "quarantined": 0,
    "refused": {},
    "seconds": 0.021,
    "replayed": False,
}
