"""Completeness on TimescaleDB Community: the same answers as on plain PostgreSQL."""

from hyperfeast.db import Database
from hyperfeast.quality import Completeness, completeness, flag_outliers, sync_calendars


def found(database: Database) -> list[Completeness]:
    """What is missing of some bars, a few of which were taken out, one of which is wrong."""
    database.execute(
        "INSERT INTO instruments (symbol, calendar) VALUES ('HKG', 'XHKG'), ('COIN', '24/7')"
    )
    sync_calendars(database)
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c) "
        "SELECT 'HKG', '1d', session::timestamp AT TIME ZONE 'UTC', 1, 1, 1, 1 FROM market_sessions "
        "WHERE calendar = 'XHKG' AND session BETWEEN '2024-10-01' AND '2025-02-28' "
        "AND extract(day FROM session) <> 10"
    )
    database.execute(
        "INSERT INTO candles (symbol, tf, ts, o, h, l, c) "
        "SELECT 'COIN', '1h', bar, 1, CASE WHEN bar = '2024-01-03' THEN 9 ELSE 1 END, 1, "
        "CASE WHEN bar = '2024-01-03' THEN 9 ELSE 1 END "
        "FROM generate_series('2024-01-01'::timestamptz, '2024-01-05', '1 hour') AS bar "
        "WHERE extract(hour FROM bar) <> 7"
    )
    flag_outliers(database)
    return completeness(database)


def test_the_same_bars_are_missing(migrated_community: Database, database: Database) -> None:
    coin, hong_kong = found(migrated_community)
    assert (coin.key, coin.tf, coin.expected, coin.absent) == ("COIN", "1h", 97, 4)
    assert (hong_kong.expected, len(hong_kong.missing)) == (101, hong_kong.absent)
    assert found(database) == [coin, hong_kong]
