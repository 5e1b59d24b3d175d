"""What a worker's log says of a failed job."""

import logging

from hyperfeast.errors import HyperfeastError

_log = logging.getLogger("hyperfeast.jobs")


class ExpectedFailures(logging.Filter):
    """What hyperfeast itself reports says what to do: one line, and where it came from for debugging only."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, those of our errors shortened."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HyperfeastError) and not _log.isEnabledFor(logging.DEBUG):
            flat = " ".join(f"{type(error).__name__}: {error}".split())
            record.msg, record.args = f"{record.getMessage()}: {flat}", None
            record.exc_info = record.exc_text = None
        return True


_EXPECTED_FAILURES = ExpectedFailures()


def shorten_expected() -> None:
    """Let the log of procrastinate's workers say it that way."""
    logging.getLogger("procrastinate.worker").addFilter(_EXPECTED_FAILURES)
