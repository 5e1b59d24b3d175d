"""Trainings on real stocks and in a real database: their results, their record, and how they fail."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from psycopg.rows import DictRow

import market
from hyperfeast import stats
from hyperfeast.adjustment import forward_adjust
from hyperfeast.db import Database
from hyperfeast.errors import ModelError, NoModel, TrainingError
from hyperfeast.models import Booster, ModelSpec, active, load_artifact, versions
from hyperfeast.training import HistoricalFeatures, TrainingResult, train
from market_direction import market_direction

SPEC = replace(market_direction, rounds=40)
SMALL = replace(market_direction, rounds=5, folds=2)
HASHES = {"quick": "0" * 64}
MARGIN = 0.08

Train = Callable[..., TrainingResult]


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    """Five stocks, 2000 to 2013, adjusted forward for their splits."""
    package = find_spec("bokeh_sampledata")
    assert package is not None
    assert package.origin is not None
    raw = pl.read_csv(Path(package.origin).parent / "_data" / "stocks.csv.gz", try_parse_dates=True)
    session = pl.col("Date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    unadjusted = raw.select(
        pl.col("Ticker").alias("symbol"),
        session.alias("ts"),
        (session + pl.duration(hours=21)).alias("event_timestamp"),
        pl.col("Open", "High", "Low", "Close", "Volume").cast(pl.Float64).name.to_lowercase(),
    ).sort("symbol", "ts")
    splits = market.splits(
        ("AAPL", date(2000, 6, 21), 2.0),
        ("AAPL", date(2005, 2, 28), 2.0),
        ("MSFT", date(2003, 2, 18), 2.0),
    )
    return forward_adjust(unadjusted, splits)


def quick_features(bars: pl.DataFrame) -> HistoricalFeatures:
    """A stand-in for the offline store's join: five backward-looking columns, in an order of its own."""
    close, ret = pl.col("close"), pl.col("close").log().diff()
    known = bars.sort("symbol", "ts").select(
        "symbol",
        "event_timestamp",
        ret.over("symbol").alias("return_1"),
        close.log().diff(5).over("symbol").alias("return_5"),
        close.log().diff(20).over("symbol").alias("return_20"),
        ret.rolling_std(20).over("symbol").alias("volatility_20"),
        (close / close.rolling_max(252)).over("symbol").alias("to_high_252"),
    )

    def join(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        assert spine.columns == ["symbol", "event_timestamp"]
        assert service == "market_direction_v1"
        joined = spine.join(known, on=["symbol", "event_timestamp"], how="left")
        return joined.sample(fraction=1, shuffle=True, seed=spine.height)

    return join


@pytest.fixture
def train_on(database: Database, tmp_path: Path) -> Train:
    def call(
        bars: pl.DataFrame,
        spec: ModelSpec = SPEC,
        features: HistoricalFeatures | None = None,
        **options: Any,
    ) -> TrainingResult:
        return train(
            database,
            spec,
            bars,
            features or quick_features(bars),
            options.pop("root", tmp_path),
            definition_hashes=HASHES,
            **options,
        )

    return call


def _runs(database: Database) -> list[DictRow]:
    return database.fetch("SELECT * FROM training_runs ORDER BY start_time")


# What comes out


def test_real_stocks_end_in_an_active_version_that_predicts(
    database: Database, train_on: Train, bars: pl.DataFrame, tmp_path: Path
) -> None:
    known_at = datetime(2013, 3, 2, tzinfo=UTC)
    result = train_on(bars, git_commit="abc", as_known_at=known_at)

    model = active(database, "market_direction")
    assert (model.model_id, model.version, model.run_id) == (result.model_id, 1, result.run_id)
    assert (result.created, result.active) == (True, True)
    assert model.metrics == result.metrics
    assert model.hyperparameters == SPEC.hyperparameters
    assert model.feature_columns == (
        "return_1",
        "return_5",
        "return_20",
        "volatility_20",
        "to_high_252",
    )
    (run,) = _runs(database)
    assert (run["run_id"], run["status"], run["error_log"]) == (result.run_id, "COMPLETED", None)
    assert run["symbols"] == ["AAPL", "FB", "GOOG", "IBM", "MSFT"]
    assert (run["data_range"].lower, run["data_range"].upper) == (
        date(2000, 3, 1),
        date(2013, 3, 2),
    )
    assert run["total_samples"] == result.metrics["rows"]["used"]
    assert run["metrics"] == result.metrics
    assert (run["definition_hashes"], run["git_commit"]) == (HASHES, "abc")
    assert (run["as_known_at"], run["random_seed"]) == (known_at, SPEC.seed)
    assert run["end_time"] > run["start_time"]

    booster = Booster(
        load_artifact(tmp_path, model.artifact_path, model.artifact_sha256), model.feature_columns
    )
    answer = booster.predict(np.full((1, 5), np.nan))
    assert 0 < answer[0] < 1
    assert result.importance == booster.gain()
    gains = list(result.importance.values())
    assert gains == sorted(gains, reverse=True)


def test_a_new_version_keeps_what_its_features_matter(
    database: Database, train_on: Train, bars: pl.DataFrame
) -> None:
    result = train_on(bars, SMALL)
    kept = database.fetch(
        "SELECT method, feature_name, importance, rank, model_id, ts FROM feature_importance ORDER BY method, rank"
    )
    assert {row["model_id"] for row in kept} == {result.model_id}
    assert len({row["ts"] for row in kept}) == 1
    assert [row["rank"] for row in kept] == 3 * [1, 2, 3, 4, 5]
    gain = {row["feature_name"]: row["importance"] for row in kept if row["method"] == "gain"}
    assert gain == result.importance
    for method in ("permutation", "shap"):
        values = [row["importance"] for row in kept if row["method"] == method]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0

    # The same again is the same version: nothing new is measured. Another version has its own.
    assert not train_on(bars, SMALL).created
    assert database.fetch("SELECT count(*) FROM feature_importance")[0]["count"] == len(kept)
    other = train_on(bars, replace(SMALL, rounds=6))
    later = database.fetch(
        "SELECT min(ts) AS ts, count(*) FROM feature_importance WHERE model_id = %s",
        (other.model_id,),
    )[0]
    assert later["count"] == len(kept)
    assert later["ts"] > kept[0]["ts"]


def test_the_scores_are_those_of_the_out_of_sample_rows(
    train_on: Train, bars: pl.DataFrame
) -> None:
    result = train_on(bars)
    oos, pooled = result.oos, result.metrics["pooled"]
    assert oos.columns == [
        "symbol",
        "event_timestamp",
        "proba",
        "label",
        "forward_return",
        "next_return",
    ]
    labels, proba = oos["label"].to_numpy(), oos["proba"].to_numpy()
    assert pooled["model"] == {
        "accuracy": stats.accuracy(labels, proba > 0.5),
        "auc": stats.auc(labels, proba),
        "log_loss": stats.log_loss(labels, proba),
        "brier": stats.brier(labels, proba),
    }
    assert pooled["always_up"]["accuracy"] == pytest.approx(labels.mean())
    # Five-session directions of large stocks are close to a coin's: a score far from it is a leak.
    assert abs(pooled["model"]["auc"] - 0.5) < MARGIN
    assert abs(pooled["yesterday_sign"]["accuracy"] - 0.5) < MARGIN

    assert len(result.metrics["folds"]) == SPEC.folds
    for fold in result.metrics["folds"]:
        assert fold["train_label_end"] < fold["test_first"] <= fold["test_last"]
        assert fold["always_up"]["auc"] == 0.5
    assert sum(fold["test_rows"] for fold in result.metrics["folds"]) == oos.height
    assert result.roc.auc == pooled["model"]["auc"]
    area = np.trapezoid(result.roc.true_positive_rate, result.roc.false_positive_rate)
    assert area == pytest.approx(result.roc.auc)


def test_the_equity_curve_spans_the_test_periods(train_on: Train, bars: pl.DataFrame) -> None:
    result = train_on(bars)
    equity = result.equity
    sessions = result.oos["event_timestamp"].unique().sort().to_list()
    assert equity.dates[:-1] == sessions
    assert (
        equity.dates[-1]
        == bars.filter(pl.col("event_timestamp") > sessions[-1])["event_timestamp"].min()
    )
    assert len(equity.signal) == len(equity.buy_and_hold) == len(equity.dates)
    assert (equity.signal[0], equity.buy_and_hold[0]) == (1, 1)
    by_hand = (
        result.oos.group_by("event_timestamp")
        .agg((pl.col("next_return").exp() - 1).mean())
        .sort("event_timestamp")["next_return"]
    )
    free = float(np.prod(1 + by_hand.to_numpy()))
    assert 0.99 * free < equity.buy_and_hold[-1] < free
    assert result.metrics["strategy"]["signal"] == equity.signal[-1]


def test_the_sign_that_repeats_is_found_by_the_sign_baseline(train_on: Train) -> None:
    """Prices that rise ten sessions and fall ten: yesterday's sign is right most of the time."""
    frame = market.bars(600)
    phase = pl.int_range(pl.len()).over("symbol") % 20
    wave = pl.when(phase < 10).then(phase).otherwise(20 - phase) * 0.01
    result = train_on(frame.with_columns(close=100 * wave.exp()), replace(SMALL, horizon=1))
    pooled = result.metrics["pooled"]
    assert pooled["yesterday_sign"]["accuracy"] == pytest.approx(0.9, abs=0.02)
    assert pooled["yesterday_sign"]["log_loss"] < pooled["always_up"]["log_loss"]
    assert pooled["always_up"]["accuracy"] == pytest.approx(0.5, abs=0.02)


# Repeatable, and blind to the future


def test_again_is_the_same_and_no_new_version(
    database: Database, train_on: Train, bars: pl.DataFrame
) -> None:
    first, again = train_on(bars), train_on(bars.sample(fraction=1, shuffle=True, seed=1))
    assert first.metrics == again.metrics
    assert_frame_equal(first.oos, again.oos, check_exact=True)
    assert (again.created, again.version, again.model_id) == (False, 1, first.model_id)
    assert len(versions(database)) == 1
    assert [run["status"] for run in _runs(database)] == ["COMPLETED", "COMPLETED"]
    assert again.run_id != first.run_id


def test_another_seed_is_another_version(database: Database, train_on: Train) -> None:
    frame = market.bars(400)
    train_on(frame, SMALL)
    result = train_on(frame, replace(SMALL, seed=8))
    assert (result.version, result.created) == (2, True)
    assert [one.is_active for one in versions(database)] == [True, False]


def test_without_promotion_the_active_version_stays(database: Database, train_on: Train) -> None:
    frame = market.bars(400)
    first = train_on(frame, SMALL, promote=False)
    second = train_on(frame, replace(SMALL, seed=8), promote=False)
    assert (first.active, second.active, second.version) == (True, False, 2)
    assert active(database, "market_direction").version == 1


def test_forecasts_know_nothing_after_their_moment(train_on: Train) -> None:
    """What happens in the last test period changes no forecast of an earlier one."""
    frame = market.bars(400)
    before = train_on(frame, SMALL)
    moment = datetime.fromisoformat(before.metrics["folds"][-1]["test_first"])
    later = pl.col("event_timestamp") >= moment
    changed = frame.with_columns(
        close=pl.when(later).then(pl.col("close") * 1.5).otherwise("close")
    )
    after = train_on(changed, SMALL)
    columns = ["symbol", "event_timestamp", "proba"]
    earlier = pl.col("event_timestamp") < moment
    assert_frame_equal(
        before.oos.filter(earlier).select(columns),
        after.oos.filter(earlier).select(columns),
        check_exact=True,
    )
    assert not before.oos.equals(after.oos)


def test_cold_rows_are_left_out_and_single_gaps_stay(train_on: Train) -> None:
    frame = market.bars(400)
    result = train_on(frame, SMALL)
    # Only the first bar of each symbol has no feature at all; the yearly high is missing in 251.
    assert result.metrics["rows"]["cold"] == 2
    assert result.metrics["rows"]["used"] == 2 * (400 - 5 - 1)


def test_a_score_that_does_not_exist_is_null_in_the_record(
    database: Database, train_on: Train
) -> None:
    """A test period in which every label is up has no AUC, and JSON has no NaN."""
    frame = market.bars(300, symbols=("AAA",))
    day = pl.int_range(pl.len())
    rising = frame.with_columns(
        close=pl.when(day < 230)
        .then("close")
        .otherwise(pl.col("close").get(230) * 1.01 ** (day - 230))
    )
    result = train_on(rising, replace(SMALL, folds=5))
    last = result.metrics["folds"][-1]
    assert last["model"]["auc"] is None
    assert math.isfinite(last["model"]["log_loss"])
    json.dumps(result.metrics, allow_nan=False)
    assert _runs(database)[0]["metrics"] == result.metrics


def test_any_spelling_of_missing_and_of_types_is_the_same_model(
    database: Database, train_on: Train
) -> None:
    frame = market.bars(400)
    plain = quick_features(frame)

    def spelled(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        return (
            plain(spine, service)
            .with_columns(pl.selectors.float().fill_null(math.nan))
            .cast({"event_timestamp": pl.Datetime("ns", "UTC"), "symbol": pl.Categorical})
        )

    first, second = train_on(frame, SMALL), train_on(frame, SMALL, spelled)
    assert not second.created
    assert first.metrics == second.metrics


# How it fails


def _flat(column: pl.Expr) -> HistoricalFeatures:
    def features(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        return spine.with_columns(column)

    return features


def _twice(spine: pl.DataFrame, service: str) -> pl.DataFrame:
    return pl.concat([spine, spine]).with_columns(pl.lit(1.0).alias("one"))


def _nothing(spine: pl.DataFrame, service: str) -> pl.DataFrame:
    return spine


def _keyless(spine: pl.DataFrame, service: str) -> pl.DataFrame:
    return spine.select("symbol", pl.lit(1.0).alias("one"))


_ONE = _flat(pl.lit(1.0).alias("one"))
_FRAME = market.bars(200)
_RISING = _FRAME.with_columns(close=pl.int_range(1, pl.len() + 1).over("symbol").cast(pl.Float64))
_NO_PRICE = _FRAME.with_columns(close=pl.lit(math.nan))


@pytest.mark.parametrize(
    ("frame", "features", "message"),
    [
        (_FRAME.clear(), _ONE, "no bars"),
        (market.bars(5), _ONE, "5 in all"),
        (market.bars(30), _ONE, "50 rows with features are too few"),
        (
            market.bars(12, symbols=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
            _ONE,
            "first fold has nothing",
        ),
        (_RISING, _ONE, "one label .the price rises"),
        (_NO_PRICE, _ONE, "400 of 400 closes are no finite price"),
        (_FRAME, _flat(pl.lit(None, dtype=pl.Float64).alias("one")), "NULL in all 390 rows"),
        (_FRAME, _flat(pl.lit(None).alias("one")), "NULL in all 390 rows"),
        (_FRAME, _flat(pl.lit(math.nan).alias("one")), "NULL in all 390 rows"),
        (_FRAME, _flat(pl.lit(math.inf).alias("one")), "one holds infinity"),
        (_FRAME, _flat(pl.lit("word").alias("one")), "one has none"),
        (_FRAME, _flat(pl.lit(0.5).alias("forward_return")), "is to foresee"),
        (_FRAME, _nothing, "has no features"),
        (_FRAME, _keyless, "without event_timestamp"),
        (_FRAME, _twice, "more than once"),
    ],
)
def test_what_no_model_can_be_trained_on_is_a_failed_run_with_the_reason(
    database: Database,
    train_on: Train,
    frame: pl.DataFrame,
    features: HistoricalFeatures,
    message: str,
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        train_on(frame, SMALL, features)
    (run,) = _runs(database)
    assert (run["status"], run["error_log"]) == ("FAILED", str(caught.value))
    assert run["end_time"] is not None
    with pytest.raises(NoModel):
        active(database, "market_direction")


def test_a_fold_without_both_labels_to_learn_from_is_refused(train_on: Train) -> None:
    day = pl.int_range(pl.len()).over("symbol")
    late = _FRAME.with_columns(
        close=pl.when(day < 150).then(100.0 + day).otherwise(400.0 - day).cast(pl.Float64)
    )
    with pytest.raises(TrainingError, match="fold 1: all"):
        train_on(late, SMALL, _ONE)


def test_a_store_that_breaks_fails_the_run_and_the_active_version_stays(
    database: Database, train_on: Train
) -> None:
    frame = market.bars(400)
    train_on(frame, SMALL)

    def broken(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        raise ConnectionResetError("the store hung up")

    with pytest.raises(ConnectionResetError):
        train_on(frame, SMALL, broken)
    assert [run["status"] for run in _runs(database)] == ["COMPLETED", "FAILED"]
    assert _runs(database)[1]["error_log"] == "ConnectionResetError: the store hung up"
    assert active(database, "market_direction").version == 1


def test_an_interrupt_fails_the_run(database: Database, train_on: Train) -> None:
    def interrupted(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on(_FRAME, SMALL, interrupted)
    assert _runs(database)[0]["status"] == "FAILED"


def test_the_run_is_there_while_it_runs(database: Database, train_on: Train) -> None:
    frame = market.bars(400)
    plain, seen = quick_features(frame), []

    def watching(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        seen.extend(run["status"] for run in _runs(database))
        return plain(spine, service)

    train_on(frame, SMALL, watching)
    assert seen == ["RUNNING"]


def test_an_artifact_that_cannot_be_written_promotes_nothing(
    database: Database, train_on: Train, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be written"):
        train_on(market.bars(400), SMALL, root=blocked)
    (run,) = _runs(database)
    assert (run["status"], run["metrics"]) == ("FAILED", None)
    assert versions(database) == []


# A process that is killed

_KILLED = """
import os, signal, sys
from dataclasses import replace
import market
from hyperfeast.db import Database
from hyperfeast.training import train
from market_direction import market_direction

def killed(spine, service):
    os.kill(os.getpid(), signal.SIGKILL)

train(
    Database(sys.argv[1]), replace(market_direction, name=sys.argv[2]), market.bars(50), killed,
    "/nowhere", definition_hashes={},
)
"""


def _train_until_killed(database: Database, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, database.dsn, name],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_a_killed_run_is_failed_by_the_model_s_next(database: Database, train_on: Train) -> None:
    for name in ("market_direction", "another_model"):
        _train_until_killed(database, name)
    assert [run["status"] for run in _runs(database)] == ["RUNNING", "RUNNING"]

    train_on(market.bars(400), SMALL)
    ours, others, latest = _runs(database)
    assert (ours["status"], others["status"], latest["status"]) == (
        "FAILED",
        "RUNNING",
        "COMPLETED",
    )
    assert ours["error_log"] == "the process ended before it was finished"
    assert ours["end_time"] > ours["start_time"]


def test_a_run_that_lives_is_left_alone(database: Database, train_on: Train) -> None:
    frame = market.bars(400)
    plain, seen = quick_features(frame), []

    def overtaken(spine: pl.DataFrame, service: str) -> pl.DataFrame:
        train_on(frame, SMALL)
        seen.extend(run["status"] for run in _runs(database))
        return plain(spine, service)

    train_on(frame, SMALL, overtaken)
    assert seen == ["RUNNING", "COMPLETED"]
    assert [run["status"] for run in _runs(database)] == ["COMPLETED", "COMPLETED"]
