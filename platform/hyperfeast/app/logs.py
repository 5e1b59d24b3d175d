"""Logs: for eyes on a terminal, JSON elsewhere; always on standard error."""

import logging
import sys

import stamina.instrumentation
import structlog
from structlog.typing import Processor


def configure_logs(level: str) -> None:
    """Set the level and the form of every log line of this process."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *(_for_eyes() if sys.stderr.isatty() else _as_json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=number, stream=sys.stderr, force=True)
    # The pool warns at each of its attempts to connect; whoever wanted the connection gets the error.
    logging.getLogger("psycopg.pool").setLevel(
        number if number <= logging.DEBUG else max(number, logging.ERROR)
    )
    # Every retry, and what a vendor's library thinks of its cookies: the error at the end says enough.
    if number > logging.INFO:
        stamina.instrumentation.set_on_retry_hooks([])
        logging.getLogger("yfinance").setLevel(logging.CRITICAL)


def _for_eyes() -> list[Processor]:
    # The default traceback shows local variables, and among them the password of a server.
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _as_json() -> list[Processor]:
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
