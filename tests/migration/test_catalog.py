"""The schema equals the sum of its migrations, and a migration that is taken back leaves no trace."""

import os
import re
from pathlib import Path

import pytest

from hyperfeast.db import Database
from hyperfeast.migrate import files, migrate
from hyperfeast.types import Edition
from migration.catalog import catalog, page

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def test_up_down_up_leaves_no_trace(empty_database: Database) -> None:
    """Every migration by itself: up, down to what was there, up to the same again."""
    numbers = [files.number_of(id_) for id_ in files.of_edition(Edition.PLAIN)]
    for before, number in zip([0, *numbers], numbers, strict=False):
        below = catalog(empty_database)
        migrate(empty_database, to=number)
        above = catalog(empty_database)
        assert above != below, number
        migrate(empty_database, to=before)
        assert catalog(empty_database) == below, number
        migrate(empty_database, to=number)
        assert catalog(empty_database) == above, number


def test_one_by_one_or_at_once(empty_database: Database, database: Database) -> None:
    for id_ in files.of_edition(Edition.PLAIN):
        migrate(empty_database, to=files.number_of(id_))
    assert catalog(empty_database) == catalog(database)


@pytest.mark.slow
def test_up_down_up_on_timescaledb(community: Database) -> None:
    migrate(community, to=0)
    migrate(community)
    above = _unnumbered(community)
    migrate(community, to=10)
    migrate(community)
    assert _unnumbered(community) == above
    migrate(community, to=0)
    assert {name: rows for name, rows in catalog(community).items() if rows} == {}


def _unnumbered(database: Database) -> str:
    """Continuous aggregates are views of tables that bear running numbers."""
    return re.sub(
        r"(_materialized_hypertable_|_partial_view_|cagg_watermark\()\d+",
        r"\1",
        repr(catalog(database)),
    )


def test_the_page_is_the_schema(database: Database) -> None:
    """With UPDATE_PAGES=1 it is written anew."""
    if os.environ.get("UPDATE_PAGES"):
        PAGE.write_text(page(database), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(database), "run it once with UPDATE_PAGES=1"
