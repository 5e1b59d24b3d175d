"""The check of a relation, and the quality of its rows, where the database keeps the daily sums itself."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from hyperfeast.db import Database
from hyperfeast.features.check import check
from hyperfeast.features.compute import refresh
from hyperfeast.features.verdict import Verdict
from hyperfeast.ingest import ingest_metrics
from hyperfeast.quality import measure
from personal_baseline import personal_baseline

READINGS = pl.DataFrame(
    {
        "ts": [datetime(2021, 1, 1, tzinfo=UTC) + timedelta(hours=5 * step) for step in range(240)],
        "value": [100.0 + step * 37 % 50 for step in range(240)],
    }
)


@pytest.mark.slow
def test_a_relation_over_a_continuous_aggregate_is_tried_and_measured(
    migrated_community: Database,
) -> None:
    user = "00000000-0000-0000-0000-000000000001"
    ingest_metrics(migrated_community, READINGS, user=user, metric="glucose", source="test")
    verdict = check(personal_baseline, migrated_community, moments=2)
    assert verdict == Verdict("personal_baseline v1", verdict.trials, ())
    assert verdict.trials > 10
    refresh(migrated_community, personal_baseline)
    found = measure(migrated_community, personal_baseline)
    assert found.seen == found.warm == 50
    assert [one.entity for one in found.staleness] == [f"{user}, glucose"]
