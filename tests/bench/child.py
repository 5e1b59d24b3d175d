"""One ingestion in a process of its own, so that its peak memory is its own.

    python -m bench.child FILE < DSN

reads a Parquet file of daily bars into `candles`, and prints what came of it as one line of JSON.
The DSN, which holds a password, is on no command line.
"""

import json
import sys
from dataclasses import asdict

from bench.harness import stopwatch
from bench.memory import peak_mb
from hyperfeast.db import Database
from hyperfeast.ingest import Candles, expected_rows, ingest_stream, read_batches
from hyperfeast.types import Timeframe


def main(dsn: str, file: str) -> None:
    """Ingest a file; print seconds, peak_mb and the summary's counts."""
    found = {}

    def ingest() -> None:
        found["all"] = ingest_stream(
            Database(dsn),
            read_batches(file),
            Candles(timeframe=Timeframe.D1, source="bench"),
            rows=expected_rows(file),
        )

    seconds = stopwatch(ingest)
    summary = asdict(found["all"])
    counts = {name: summary[name] for name in ("inserted", "corrected", "unchanged", "quarantined")}
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), **counts}))  # noqa: T201


if __name__ == "__main__":
    main(sys.stdin.read(), sys.argv[1])
