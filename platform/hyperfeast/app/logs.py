"""Logs: for eyes on a terminal, JSON elsewhere; always on standard error."""

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Set the level and the form of every log line of this process."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.WARNING)
    for_eyes = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if for_eyes else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=number, stream=sys.stderr, force=True)
