"""Continuous aggregates: kept by the database or by a refresh of dirty days, and always checkable."""

from hyperfeast.aggregates.listing import AggregateStatus, aggregates
from hyperfeast.aggregates.refresh import RefreshReport, refresh
from hyperfeast.aggregates.verify import Difference, verify

__all__ = ["AggregateStatus", "Difference", "RefreshReport", "aggregates", "refresh", "verify"]
