"""A SQLAlchemy plugin that points `postgresql+psycopg:///?plugin=hyperfeast` at the database in use.

Feast's registry takes a SQLAlchemy URL and no class of ours; SQLAlchemy's own hook for URLs that
are only known at run time is `CreateEnginePlugin`.
"""

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.engine import CreateEnginePlugin

from hyperfeast.stores.connection import registry_url, servers_in_use


class ServersInUse(CreateEnginePlugin):
    """Registered as the entry point `hyperfeast` of `sqlalchemy.plugins`."""

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        """SQLAlchemy's signature: the URL as written, the arguments of `create_engine`."""
        super().__init__(url, kwargs)

    def update_url(self, url: URL) -> URL:  # noqa: ARG002
        """The URL of the database in use, whatever else the written one says."""
        return make_url(registry_url(servers_in_use().postgres_dsn))
