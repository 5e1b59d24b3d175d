"""Changes of bars that are compressed, on TimescaleDB Community: marked, computed and revised like any other."""

import pytest

from feature_world import SETS, arrive, create, moment, no_revision_repeats, same_as_rebuilt
from hyperfeast.db import Database
from hyperfeast.features.incremental import pending, refresh_symbols
from hyperfeast.types import Timeframe

pytestmark = pytest.mark.slow

_COMPRESS = "SELECT compress_chunk(c, true) FROM show_chunks(%s::regclass) AS c"


def test_what_is_compressed_is_kept_current(migrated_community: Database) -> None:
    database, (minutes, together, *_) = migrated_community, SETS
    create(database, minutes, together)
    for symbol in (0, 1):
        arrive(database, Timeframe.M1, symbol, range(150), 0)
    for one in (minutes, together):
        assert refresh_symbols(database, one).written == 300
    database.execute(
        "ALTER TABLE candles SET (timescaledb.compress, timescaledb.compress_segmentby = 'symbol, tf')"
    )
    for relation in ("candles", minutes.table):
        database.fetch(_COMPRESS, [relation])
    for one in (minutes, together):
        assert pending(database, one) == {}

    arrive(database, Timeframe.M1, 0, range(60, 62), 1)
    arrive(database, Timeframe.M1, 1, range(150, 152), 0)
    database.execute(
        "DELETE FROM candles WHERE symbol = 'BBB' AND ts = %s", [moment(Timeframe.M1, 3)]
    )
    for one in (minutes, together):
        assert pending(database, one).keys() == {"AAA", "BBB"}
        assert refresh_symbols(database, one).written > 4
        same_as_rebuilt(database, one)
        no_revision_repeats(database, one)
        assert refresh_symbols(database, one, full=True).written == 0
