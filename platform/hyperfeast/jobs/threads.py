"""Processes that share a machine's cores."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# What Polars reads when it is imported: as many processes as cores, each with as many threads, would get in each
# other's way.
_VARIABLE = "POLARS_MAX_THREADS"


@contextmanager
def shared_by(processes: int) -> Iterator[None]:
    """Processes that are started in the block get their part of the cores, unless the user says otherwise."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = before or str(max(1, (os.cpu_count() or 1) // processes))
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
