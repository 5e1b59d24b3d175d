"""The scheduled check: samples by Great Expectations, whole tables by SQL, results kept."""

from collections.abc import Callable, Iterable
from functools import partial

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import UsageError
from hyperfeast.features import FeatureSet
from hyperfeast.quality import expectations, invariants, samples
from hyperfeast.quality.expectations import validate
from hyperfeast.quality.results import Result, store
from hyperfeast.quality.sessions import sync_calendars
from hyperfeast.sqlfiles import query
from hyperfeast.types import Timeframe

Progress = Callable[[int, int], None]

SAMPLE_ROWS = 10_000


def check(
    database: Database,
    feature_sets: Iterable[FeatureSet],
    *,
    sample_rows: int = SAMPLE_ROWS,
    progress: Progress | None = None,
) -> list[Result]:
    """Check the raw tables and every declared feature set, and keep the results.

    Great Expectations looks at the newest rows: bounds, OHLC consistency, times, grid and sessions of the
    bars of every timeframe; readings; corporate actions; keys, finiteness and presence of features. SQL
    looks at whole tables: types, OHLC, times, daily sessions, instruments, revisions. Its checks are named
    `..._whole` where both look.

    Args:
        database: what to check.
        feature_sets: the declared ones.
        sample_rows: how many of the newest rows of each table the library sees: some seconds for each 100,000.
        progress: told (parts done, parts in all).

    Returns:
        One result a check and scope, as they are in `data_quality_results`. An empty table has only those of SQL.

    Raises:
        UsageError: a sample without rows is asked for, or an instrument's calendar does not exist.
    """
    if sample_rows < 1:
        raise UsageError(f"expected a sample of 1 row or more; found {sample_rows}")
    sync_calendars(database)
    parts = _parts(database, list(feature_sets), sample_rows)
    results: list[Result] = []
    for done, part in enumerate(parts):
        if progress:
            progress(done, len(parts))
        results += part()
    if progress:
        progress(len(parts), len(parts))
    store(database, results)
    return results


def _parts(
    database: Database, feature_sets: list[FeatureSet], rows: int
) -> list[Callable[[], list[Result]]]:
    present = database.fetch(query("quality", "timeframes_present"), {"timeframes": [*Timeframe]})
    return [
        partial(invariants.of_raw_types, database),
        partial(invariants.of_candles, database),
        *(partial(_candles, database, Timeframe(row["tf"]), rows) for row in present),
        partial(_metrics, database, rows),
        partial(_actions, database),
        *(partial(_features, database, one, rows) for one in feature_sets),
    ]


def _candles(database: Database, timeframe: Timeframe, rows: int) -> list[Result]:
    sample = samples.candles(database, timeframe, rows)
    return validate(f"candles/{timeframe}", sample, expectations.of_candles(clock.now()))


def _metrics(database: Database, rows: int) -> list[Result]:
    sample = samples.metrics(database, rows)
    found = validate("user_baseline_raw", sample, expectations.of_metrics(clock.now()))
    return [*found, invariants.of_metrics(database)]


def _actions(database: Database) -> list[Result]:
    return validate("corporate_actions", samples.actions(database), expectations.of_actions())


def _features(database: Database, feature_set: FeatureSet, rows: int) -> list[Result]:
    types = invariants.of_feature_types(database, feature_set)
    if not types.passed:
        # A table that is not what is declared cannot be held against the rest of it.
        return [types]
    sample = samples.features(database, feature_set, rows)
    scope = invariants.scope_of(feature_set)
    return [
        types,
        invariants.of_features(database, feature_set),
        *validate(scope, sample, expectations.of_features(feature_set, clock.now())),
        *validate(
            scope, samples.warm(feature_set, sample), expectations.of_warm_features(feature_set)
        ),
    ]
