"""Databases that the fault tests share."""

import pytest

from hyperfeast.db import Database
from hyperfeast.migrate import migrate


@pytest.fixture
def migrated_community(community: Database) -> Database:
    """TimescaleDB Community with the newest schema and no rows."""
    migrate(community, to=0)
    migrate(community)
    return community
