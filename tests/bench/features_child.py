"""One computation of the fifty features in a process of its own, so that its peak memory is its own.

    python -m bench.features_child < DSN

The DSN, which holds a password, is on no command line.
"""

import json
import sys

from bench.fifty import FIFTY
from bench.harness import stopwatch
from bench.memory import peak_mb
from hyperfeast.db import Database
from hyperfeast.features.computation import Computation
from hyperfeast.features.incremental import refresh_symbols


def main(dsn: str) -> None:
    """Compute; print seconds, peak_mb and how many rows were written."""
    found: list[Computation] = []
    seconds = stopwatch(lambda: found.append(refresh_symbols(Database(dsn), FIFTY)))
    written = found[0].written
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "written": written}))  # noqa: T201


if __name__ == "__main__":
    main(sys.stdin.read())
