"""Feast prints as it goes, to both streams; callers show progress in their own way."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The streams are the process's: two threads that redirect them would restore each other's.
_STREAMS = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be printed, nor warned of, until the block ends."""
    with (
        _STREAMS,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
