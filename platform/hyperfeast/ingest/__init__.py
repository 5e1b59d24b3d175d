"""Rows from outside into tables: read, judged at a gate, staged, inserted or corrected by key."""

from hyperfeast.ingest.actions import ingest_actions
from hyperfeast.ingest.backfill import Backfilled, backfill_candles, newest_sources
from hyperfeast.ingest.batches import Ingested, IngestSummary, quarantined
from hyperfeast.ingest.candles import Candles, ingest_candles
from hyperfeast.ingest.files import expected_rows, read_batches, read_file
from hyperfeast.ingest.metrics import Metrics, ingest_metrics
from hyperfeast.ingest.mirror import Comparison, Mirror, compare
from hyperfeast.ingest.pipeline import ingest_stream

__all__ = [
    "Backfilled",
    "Candles",
    "Comparison",
    "IngestSummary",
    "Ingested",
    "Metrics",
    "Mirror",
    "backfill_candles",
    "compare",
    "expected_rows",
    "ingest_actions",
    "ingest_candles",
    "ingest_metrics",
    "ingest_stream",
    "newest_sources",
    "quarantined",
    "read_batches",
    "read_file",
]
