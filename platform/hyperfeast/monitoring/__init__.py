"""How the platform is: its servers, its schema, its data."""

from hyperfeast.monitoring.status import PlatformStatus, ServerStatus, TableStatus, exact, status

__all__ = ["PlatformStatus", "ServerStatus", "TableStatus", "exact", "status"]
