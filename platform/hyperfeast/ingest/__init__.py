"""Rows from outside into tables: read, judged at a gate, staged, inserted or corrected by key."""

from hyperfeast.ingest.actions import ingest_actions
from hyperfeast.ingest.batches import IngestSummary, quarantined
from hyperfeast.ingest.candles import ingest_candles
from hyperfeast.ingest.files import read_file
from hyperfeast.ingest.metrics import ingest_metrics

__all__ = [
    "IngestSummary",
    "ingest_actions",
    "ingest_candles",
    "ingest_metrics",
    "quarantined",
    "read_file",
]
