"""A reading that is pushed is online at once: its user's features and no other's, as training will see them."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from hyperfeast.api.application import create
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.ingest import Metrics
from hyperfeast.settings import Settings

USER = "6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b"
OTHER = "0a4be2f7-58d5-45d4-a6c7-55d33a1de6f5"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
SERVICE = "baseline_v1"
STAMP = timedelta(microseconds=1)


@pytest.fixture
def app(database: Database, redis_url: str, tmp_path: Path) -> Iterator[App]:
    """Two users with forty days behind them, online."""
    settings = Settings(home=tmp_path, postgres_dsn=database.dsn, redis_url=redis_url)  # type: ignore[arg-type]
    platform = App(settings)  # without a pool, and so without a cache in front of Redis
    moments = [TODAY - timedelta(hours=5 * step) for step in range(1, 200)]
    values = [60.0 + step % 17 for step in range(1, 200)]
    for user in (USER, OTHER):
        rows = pl.DataFrame({"ts": moments, "value": values})
        platform.ingest([rows], Metrics(source="t", user=user, metric="heart_rate"))
    platform.compute_features("personal_baseline")
    platform.feast.apply()
    platform.materialize()
    yield platform
    platform.close()


def served(app: App, user: str) -> dict[str, Any]:
    """What is online of a user, and from when it was knowable."""
    found = app.feast.online(SERVICE, [{"user_id": user, "metric": "heart_rate"}])
    moment = found.event_timestamps[0, 0].astype("datetime64[us]").astype(datetime)
    return {
        "at": moment.replace(tzinfo=UTC),
        **dict(zip(found.features, found.values[0].tolist(), strict=True)),
    }


def push(app: App, *rows: dict[str, Any]) -> dict[str, Any]:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=create(app, "market_direction"))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/v1/metrics", json=body)

    body = {"source": "t", "user_id": USER, "metric": "heart_rate", "rows": rows}
    answer = asyncio.run(post())
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bring(app: App) -> None:
    """What a worker does when a push asks for it."""
    app.refresh_aggregates()
    app.compute_features(online=True)


@pytest.mark.slow
def test_a_pushed_reading_is_online_and_what_training_sees(app: App) -> None:
    before, others = served(app, USER), served(app, OTHER)
    assert before["at"] == TODAY
    assert before["day_hours"] == 24
    now = datetime.now(UTC)
    early, late = (TODAY + (now - TODAY) * share for share in (0.3, 0.7))
    push(app, {"ts": early.isoformat(), "value": 90.0})
    bring(app)
    first = served(app, USER)
    assert first["at"] == early + STAMP
    assert (first["day_mean"], first["n_day"]) == (90.0, 1)
    # The day itself is left out: one reading more does not move what it is held against.
    push(app, {"ts": late.isoformat(), "value": 110.0})
    bring(app)
    second = served(app, USER)
    assert second["at"] == late + STAMP
    assert (second["day_mean"], second["n_day"]) == (100.0, 2)
    baseline = ("mean_30d", "std_30d", "n_30d", "days_present_30d", "stability_30d")
    assert [first[name] for name in baseline] == [second[name] for name in baseline]
    assert second["z_score"] == pytest.approx((100.0 - second["mean_30d"]) / second["std_30d"])
    assert served(app, OTHER) == others
    # At each moment training sees what was served then.
    spine = pl.DataFrame(
        {
            "user_id": USER,
            "metric": "heart_rate",
            "event_timestamp": [early - STAMP, early + STAMP, late, late + STAMP],
        }
    )
    seen = app.feast.historical(spine, SERVICE)
    assert seen["n_day"].to_list() == [before["n_day"], 1, 1, 2]
    assert seen["day_mean"].to_list() == [before["day_mean"], 90.0, 90.0, 100.0]
    # A reading that comes late changes what is usual, and what is served now with it.
    push(app, {"ts": (TODAY - timedelta(days=9, minutes=7)).isoformat(), "value": 200.0})
    bring(app)
    third = served(app, USER)
    assert third["at"] == late + STAMP
    assert third["n_30d"] == second["n_30d"] + 1
    assert third["mean_30d"] > second["mean_30d"]
    assert third["day_mean"] == 100.0
    app.materialize()
    assert served(app, USER) == third
    assert np.isfinite(third["z_score"])
