"""A feature platform for time-series machine learning: Feast, TimescaleDB and Redis."""

__version__ = "0.1.0"
