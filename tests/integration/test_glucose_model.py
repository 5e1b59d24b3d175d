"""A model whose label is another day of a person's own baseline, trained on the packaged series."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from glucose_deviation import glucose_deviation
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.demo import data
from hyperfeast.errors import ModelError, TrainingError
from hyperfeast.ingest import Metrics, read_file
from hyperfeast.models import Deviation, ModelSpec
from hyperfeast.settings import Settings
from hyperfeast.training import ends_of_days, labels, of_entities
from personal_baseline import personal_baseline

USER = data.USER
START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def app(database: Database, redis_url: str, tmp_path: Path) -> Iterator[App]:
    """The packaged series, with its features."""
    platform = App(
        Settings(home=tmp_path, postgres_dsn=database.dsn, redis_url=redis_url)  # type: ignore[arg-type]
    )
    platform.ingest(
        [read_file(data.glucose())],
        Metrics(
            source=data.SOURCE,
            user=USER,
            metric=data.METRIC,
            device=data.DEVICE,
            columns={"value": "glucose", "ts": "datetime"},
        ),
    )
    platform.compute_features("personal_baseline")
    platform.feast.apply()
    yield platform
    platform.close()


@pytest.mark.slow
def test_the_declared_model_on_the_packaged_series(app: App) -> None:
    first = app.train("glucose_deviation")
    pooled = first.metrics["pooled"]
    assert list(pooled) == ["model", "base_rate", "persistence"]
    assert len(first.metrics["folds"]) == glucose_deviation.folds
    assert first.oos.height > 140
    assert set(first.importance) == set(_service_features())
    assert first.equity is None
    assert "strategy" not in first.metrics
    # Both answers are there, and the baseline is the one that anybody would name.
    share = float(first.oos["label"].cast(pl.Float64).mean() or 0)  # type: ignore[arg-type]
    assert 0.2 < share < 0.8
    _persistence_is_what_it_says(app, first.oos, pooled["persistence"]["accuracy"])
    # Walk forward: no label of a training part is known only in the test period.
    for fold in first.metrics["folds"]:
        assert fold["train_label_end"] < fold["test_first"]
    again = app.train("glucose_deviation")
    assert (again.version, again.created) == (1, False)
    assert_frame_equal(again.oos, first.oos, check_exact=True)


def _persistence_is_what_it_says(app: App, oos: pl.DataFrame, accuracy: float) -> None:
    spec = glucose_deviation
    assert isinstance(spec.label, Deviation)
    rows = ends_of_days(app.database, personal_baseline, spec.label)
    score = {row["event_timestamp"]: row["value"] for row in rows.to_dicts()}
    right = [
        (abs(score[row["event_timestamp"]] or 0) > 1) == bool(row["label"])
        for row in oos.iter_rows(named=True)
    ]
    assert sum(right) / len(right) == pytest.approx(accuracy)
    for row in oos.iter_rows(named=True):
        tomorrow = score[row["event_timestamp"] + DAY]
        assert tomorrow is not None
        assert row["label"] == (abs(tomorrow) > 1)


def _service_features() -> list[str]:
    return [
        "day_z_score", "z_score", "deviation_1d", "deviation_7d", "deviation_30d", "stability_30d",
        "day_std_30d", "std_30d", "days_present_30d", "n_day",
    ]  # fmt: skip


@given(
    values=st.lists(st.none() | st.floats(-5, 5), min_size=2, max_size=40),
    gaps=st.sets(st.integers(0, 39)),
    horizon=st.integers(1, 3),
)
def test_labels_against_a_naive_computation(
    values: list[float | None], gaps: set[int], horizon: int
) -> None:
    days = {place: value for place, value in enumerate(values) if place not in gaps}
    rows = pl.DataFrame(
        {
            "symbol": ["u/glucose"] * len(days),
            "event_timestamp": [START + place * DAY for place in days],
            "value": list(days.values()),
        },
        schema={
            "symbol": pl.String,
            "event_timestamp": pl.Datetime("us", "UTC"),
            "value": pl.Float64,
        },
    )
    found = labels.deviation(rows, horizon, 1.0).to_dicts()
    expected = [
        {
            "symbol": "u/glucose",
            "event_timestamp": START + place * DAY,
            "label_end": START + (place + horizon) * DAY,
            "label": int(abs(later) > 1),
            "persists": None if value is None else abs(value) > 1,
        }
        for place, value in days.items()
        if (later := days.get(place + horizon)) is not None
    ]
    assert found == expected


def test_the_join_gets_the_keys_apart_and_the_spine_back() -> None:
    asked: list[pl.DataFrame] = []

    def join(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        assert service == "s"
        asked.append(spine)
        return spine.with_columns(z=pl.int_range(pl.len()).cast(pl.Float64))

    spine = pl.DataFrame(
        {"symbol": ["a/glucose", "b/heart_rate"], "event_timestamp": [START, START]}
    )
    joined = of_entities(join, ["user_id", "metric"])(spine, "s")
    assert asked[0].to_dicts()[1] == {
        "user_id": "b", "metric": "heart_rate", "event_timestamp": START
    }  # fmt: skip
    assert joined.columns == ["symbol", "event_timestamp", "z"]
    assert joined["symbol"].to_list() == ["a/glucose", "b/heart_rate"]


def test_what_the_label_cannot_be_read_from_is_named(database: Database) -> None:
    with pytest.raises(TrainingError, match=r"has no person, zz, which the label is read from"):
        ends_of_days(
            database, personal_baseline, Deviation("personal_baseline", "zz", where={"person": "x"})
        )


def test_without_a_day_no_model_is_trained_and_the_run_says_why(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    app = App(
        Settings(home=tmp_path, postgres_dsn=database.dsn, redis_url=redis_url)  # type: ignore[arg-type]
    )
    with pytest.raises(TrainingError, match="no label is known"):
        app.train("glucose_deviation")
    (run,) = database.fetch("SELECT status, error_log FROM training_runs")
    assert run["status"] == "FAILED"
    assert "no label is known" in run["error_log"]
    app.close()


def test_a_declaration_says_its_label() -> None:
    assert glucose_deviation.hyperparameters["label"] == {
        "feature_set": "personal_baseline",
        "column": "day_z_score",
        "threshold": 1.0,
        "where": {"metric": "glucose"},
    }
    with pytest.raises(ModelError, match="or a Deviation"):
        ModelSpec(name="m", feature_service="s", parameters={}, label="up")
