"""One training set in a process of its own, so that its peak memory is its own.

    python -m bench.training_child FOLDER SPINE SERVICE < DSN

reads a spine (Parquet), joins the features of a service of the repository in FOLDER, lets the batches go as
they come, and prints what came of it as one line of JSON. The DSN, which holds a password, is on no command line.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from bench.harness import stopwatch
from bench.memory import peak_mb
from feast_repos import repo


def main(dsn: str, folder: str, spine_file: str, service: str) -> None:
    """Stream a training set; print rows, seconds, the peak before it and the peak after it."""
    store = repo(Path(folder), dsn)
    features = store.get_feature_service(service)
    spine = pq.read_table(spine_file)
    rows = 0
    before = peak_mb()

    def stream() -> None:
        nonlocal rows
        job = store.get_historical_features(entity_df=spine, features=features)  # type: ignore[arg-type]
        for batch in job.to_arrow_reader():  # type: ignore[attr-defined]
            rows += batch.num_rows

    seconds = stopwatch(stream)
    found = {"seconds": seconds, "rows": rows, "before_mb": before, "peak_mb": peak_mb()}
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(sys.stdin.read(), *sys.argv[1:])
