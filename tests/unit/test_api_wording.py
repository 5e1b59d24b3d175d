"""An answer names what can be changed in a request: its fields and its rows, not a command's options."""

import ast
import asyncio
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

import hyperfeast
from hyperfeast.api import create
from hyperfeast.api.push import CandlesPush, MetricsPush
from hyperfeast.api.wording import OPTIONS, of_request
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.errors import DataError
from hyperfeast.settings import Settings

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
BATCH = re.compile(r"batch [0-9a-f-]{36}")
PRICES = {"open": 2, "high": 3, "low": 1, "close": 2, "volume": 1}
BAR = {"symbol": "AAPL", "ts": "2024-01-02", **PRICES}


def push(app: App, options: dict[str, Any], *rows: dict[str, Any]) -> dict[str, Any]:
    """Bars, as JSON and as an Arrow stream; the error of both, which is the same."""

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=create(app, "trend_5d"), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            stream = io.BytesIO()
            pl.DataFrame(rows).write_ipc_stream(stream, compat_level=pl.CompatLevel.oldest())
            return [
                await client.post("/v1/candles", json={"source": "feed", **options, "rows": rows}),
                await client.post(
                    "/v1/candles",
                    params={"source": "feed", **options},
                    content=stream.getvalue(),
                    headers={"Content-Type": "application/vnd.apache.arrow.stream"},
                ),
            ]

    answers = asyncio.run(ask())
    assert [one.status_code for one in answers] == [422, 422]
    by_json, by_arrow = (one.json()["error"] for one in answers)
    assert BATCH.sub("", by_json["message"]) == BATCH.sub("", by_arrow["message"])
    return dict(by_json)


@pytest.fixture
def app(database: Database, tmp_path: Path) -> Iterator[App]:
    settings = Settings(home=tmp_path, postgres_dsn=database.dsn, redis_url="redis://unused")  # type: ignore[arg-type]
    app = App(settings)
    yield app
    app.close()


MISTAKES: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
    (
        {"timeframe": "1d"},
        [BAR | {"Open ": 2}],
        "'open' and 'Open ' could each be the column open: send one of them",
    ),
    (
        {"timeframe": "1d"},
        [{"ts": "2024-01-02", **PRICES}],
        "the rows have ts, open, high, low, close, volume. Call the column symbol, or give symbol once",
    ),
    (
        {"timeframe": "1d", "symbol": "AAPL"},
        [BAR],
        "symbol is given, and the rows have it, too, in its column 'symbol': leave one out",
    ),
    (
        {"timeframe": "1m"},
        [BAR, BAR | {"ts": "2024-01-03"}],
        "timeframe 1m says that they are shorter than a day: nothing was taken in; timeframe 1d fits",
    ),
    (
        {"timeframe": "1d"},
        [BAR | {"ts": "2024-01-02T05:00:00Z"}],
        "name their market's calendar (calendar XNYS)",
    ),
    (
        {"timeframe": "1d"},
        [BAR | {"ts": f"2024-01-02T05:{minute}:00Z"} for minute in (30, 31)],
        "timeframe 1m fits these times",
    ),
    (
        {"timeframe": "1d"},
        [BAR | {"ts": f"2024-01-02T05:30:0{second}Z"} for second in (1, 2)],
        "no timeframe fits these times",
    ),
]


def test_an_answer_speaks_of_fields(app: App) -> None:
    for options, rows, says in MISTAKES:
        message = push(app, options, *rows)["message"]
        assert says in message
        assert not FLAG.search(message)
        assert "the file" not in message


def test_the_documented_error_comes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    (documented,) = (
        json.loads(block)
        for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)
        if "fields" in block
    )

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=create(App(), "trend_5d"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            body = {"timframe": "1d", "timeframe": "1d", "rows": [BAR]}
            return await client.post("/v1/candles", json=body)

    answer = asyncio.run(ask())
    assert answer.status_code == 422
    assert answer.json() == documented


def test_rows_that_are_all_refused_are_named_without_a_command(app: App) -> None:
    error = push(app, {"timeframe": "1d"}, BAR | {"high": 0.5})
    assert not FLAG.search(error["message"])
    assert error["batch"]["refused"] == {"high_is_highest": 1}


def test_every_option_that_ingestion_names_has_a_field() -> None:
    """Of both kinds of push: a name that no request takes would be no help."""
    named = {
        flag
        for path in (Path(hyperfeast.__file__).parent / "ingest").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for flag in FLAG.findall(node.value)
    }
    assert named
    assert named <= OPTIONS.keys()
    fields = {*CandlesPush.model_fields, *MetricsPush.model_fields, "column"}
    assert set(OPTIONS.values()) <= fields


def test_the_kind_of_error_stays() -> None:
    said = of_request(DataError("--tf 1d fits, and --tfs is no option"))
    assert type(said) is DataError
    assert str(said) == "timeframe 1d fits, and --tfs is no option"
