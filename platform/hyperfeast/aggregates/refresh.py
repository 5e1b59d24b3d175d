"""Brings the aggregates up to date: exactly the days that were marked dirty, or a range as a whole.

Why nothing is lost, whoever writes meanwhile. A writer's rows and its marks commit at one moment. A
refresh first claims the ids of marks that it sees, and only then reads raw rows, in a later snapshot:
so it reads all rows of the marks it has claimed. A writer that commits after the claim may be read or
not, but its own mark was not claimed, is not deleted, and leaves the day dirty for the next refresh.

- Without continuous aggregates a slice is one READ COMMITTED transaction: claim, recompute, delete the
  claimed ids. Readers see the day either dirty, and compute it, or clean with its new buckets.
- With them the buckets are materialized by procedures that commit by themselves, fine to coarse; the ids
  are deleted last.

A refresh that dies leaves its ids, and the next one does those days again. Retention moves its horizon
past no dirty day, so the raw rows of a claimed day stay until its marks are gone; days before the horizon
are never computed again, for their raw rows are gone and what was aggregated from them is kept.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any, TypeVar

import stamina
from psycopg import Connection, errors, sql
from psycopg.rows import DictRow

from hyperfeast.aggregates.levels import Family, Level, check_range, scopes_of
from hyperfeast.db import Database
from hyperfeast.db.connection import edition_of
from hyperfeast.sqlfiles import query

Progress = Callable[[int, int], None]
_T = TypeVar("_T")

# Days of one key in a transaction: at most some 300,000 bars of a market that never shuts, about a second.
_DAYS_A_SLICE = 200
_RETRYABLE = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable)
_ATTEMPTS = 10


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh did.

    Attributes:
        relations: what was brought up to date, from fine to coarse.
        days: how many days of a key were computed.
        out_of_reach: marks that were dropped because retention has dropped their raw rows.
        retries: how often a slice lost against another transaction and was done again.
        seconds: how long it took.
    """

    relations: list[str]
    days: int
    out_of_reach: int
    retries: int
    seconds: float


@dataclass
class _Counts:
    days: int = 0
    out_of_reach: int = 0
    retries: int = 0


@dataclass(frozen=True)
class _Claim:
    ids: list[int]
    days: list[tuple[str, date]]


def refresh(
    database: Database,
    *,
    relation: str | None = None,
    since: date | None = None,
    until: date | None = None,
    symbols: list[str] | None = None,
    wait: bool = True,
    progress: Progress | None = None,
) -> RefreshReport:
    """Bring the aggregates up to date: the days that are marked dirty, or a range as a whole.

    One refresh at a time: another one waits for its turn. Bounded transactions; a run that is killed
    loses nothing. What lies before retention's horizon is left as it is.

    Args:
        database: where.
        relation: an aggregate or raw table: its whole family is refreshed, as coarse levels are built on
            fine ones. All by default.
        since: the first UTC day. With a range its days are computed again, dirty or not.
        until: the UTC day after the last one.
        symbols: only these keys: symbols, or users' ids as text. A family that can have none of them is left
            alone.
        wait: for another refresh that runs; else do nothing while one does.
        progress: told (days done, days in all), a day being one of one key.

    Raises:
        UsageError: an unknown relation, keys that none of its rows can have, or an empty range.
        SchemaError: the schema is older than the aggregates.
        ServerError: the server does not answer, or refuses a statement.
    """
    scopes = scopes_of(relation, symbols)
    check_range(since, until)
    started, counts = time.monotonic(), _Counts()
    wanted = {"since": since, "until": until}
    ranged = since is not None or until is not None
    with database.connect(autocommit=True) as connection:
        if not _locked(connection, wait=wait):
            return RefreshReport([], 0, 0, 0, time.monotonic() - started)
        continuous = edition_of(connection).continuous_aggregates
        for family, keys in scopes:
            scope = {"raw": family.raw, "timeframe": family.timeframe, "keys": keys, **wanted}
            if ranged:
                _mark(connection, family, scope)
            counts.out_of_reach += _execute(connection, "discard", scope).rowcount
            scope["newest"] = _execute(connection, "newest_mark").fetchall()[0]["newest"]
            slices = (
                _materialize(connection, family, scope, counts, force=ranged)
                if continuous
                else _recompute(connection, family, scope, counts)
            )
            _drain(slices, counts, _pending(connection, scope), progress)
    return RefreshReport(
        [name for family, _ in scopes for name in family.names],
        counts.days,
        counts.out_of_reach,
        counts.retries,
        time.monotonic() - started,
    )


def _locked(connection: Connection[DictRow], *, wait: bool) -> bool:
    if wait:
        _execute(connection, "lock")
        return True
    return bool(_execute(connection, "try_lock").fetchall()[0]["locked"])


def _drain(slices: Iterator[int], counts: _Counts, total: int, progress: Progress | None) -> None:
    done = 0
    for days in slices:
        done += days
        counts.days += days
        if progress:
            progress(done, max(total, done))


def _recompute(
    connection: Connection[DictRow], family: Family, scope: dict[str, Any], counts: _Counts
) -> Iterator[int]:
    """Slice by slice into the kept tables; yields the days of each."""
    statements = [(level, _keep(family, level)) for level in family.levels]

    def one_slice() -> int:
        with connection.transaction():
            claim = _claim(connection, "claim_days", scope)
            for level, statement in statements:
                spans = [level.span(day, day) for _, day in claim.days]
                parameters = {
                    "keys": [key for key, _ in claim.days],
                    "since": [since for since, _ in spans],
                    "until": [until for _, until in spans],
                    "width": level.width,
                }
                connection.execute(statement, parameters)
            _settle(connection, claim)
        return len(claim.days)

    while days := _retried(one_slice, counts):
        yield days


def _materialize(
    connection: Connection[DictRow],
    family: Family,
    scope: dict[str, Any],
    counts: _Counts,
    *,
    force: bool,
) -> Iterator[int]:
    """Level by level, and week by week within one, through the continuous aggregates; yields days at the last.

    A level is done before the next one begins: a coarse level reads what is not materialized yet of the finer one
    from the level below that, down to the raw rows, and week by week would read all later weeks each time.

    A bucket that has not passed yet is not materialized: the real-time part computes it, new rows included.
    Where one is materialized already it is refreshed, or it would stay as it was.
    """
    _execute(connection, "forget_claimed")
    connection.execute(_wanting("claim"), scope)
    weeks = _execute(connection, "claimed_weeks").fetchall()
    now = _execute(connection, "moment").fetchall()[0]["moment"]
    whole = _execute(connection, "takes_options").fetchall()[0]["found"]
    statement = "refresh_whole" if whole else "refresh_continuous_aggregate"
    horizon = _execute(connection, "horizon", scope).fetchall()[0]["horizon"]
    for level in family.levels:
        watermark = _watermark(connection, level)
        reach = _reach(level, watermark, now)
        for week in weeks:
            # One window from the first dirty day to the last: what is clean between them is not touched.
            since, until = level.span(week["first"], week["last"])
            until = min(until, reach)
            if since < until:
                begins = _without_gap(since, until, watermark, horizon)
                window: dict[str, Any] = {"relation": level.name, "since": begins, "until": until}
                window["force"] = force or week["copied"]
                _retried(partial(_call, connection, statement, window), counts)
                watermark = max(watermark or until, until)
            if level is family.levels[-1]:
                yield week["days"]
    _execute(connection, "settle_claimed")


def _call(connection: Connection[DictRow], name: str, window: dict[str, Any]) -> None:
    _execute(connection, name, window)


def _watermark(connection: Connection[DictRow], level: Level) -> datetime | None:
    rows = _execute(connection, "watermark", {"relation": level.name}).fetchall()
    watermark: datetime | None = rows[0]["watermark"] if rows else None
    return watermark


def _reach(level: Level, watermark: datetime | None, now: datetime) -> datetime:
    """Where the buckets end that have passed, or that are materialized already."""
    return max(level.floor(now), level.ceiling(watermark)) if watermark else level.floor(now)


def _without_gap(
    since: datetime, until: datetime, watermark: datetime | None, horizon: datetime | None
) -> datetime | None:
    """Where a refresh that moves the watermark has to begin; None for the beginning.

    What lies below the watermark is read as it is kept. A bucket that had not passed when its day was
    refreshed is not kept yet: if the watermark left it behind, it would be gone.
    """
    if watermark is not None and until <= watermark:
        return since
    starts = [one for one in (watermark, horizon) if one is not None]
    return min(since, max(starts)) if starts else None


def _retried(work: Callable[[], _T], counts: _Counts) -> _T:
    """The result of `work`, which is done again where it lost against another transaction."""
    for attempt in stamina.retry_context(
        on=_RETRYABLE, attempts=_ATTEMPTS, timeout=None, wait_initial=0.05, wait_max=2.0
    ):
        with attempt:
            counts.retries += attempt.num > 1
            return work()
    raise AssertionError("the last attempt returns or raises")


def _mark(connection: Connection[DictRow], family: Family, scope: dict[str, Any]) -> None:
    """Mark a whole range. Whoever is killed from here on leaves it dirty, not wrong."""
    key, bucket = sql.Identifier(family.key), sql.Identifier(family.bucket)
    of_timeframe = sql.SQL("tf = {}").format(sql.Literal(family.timeframe))
    sources = [
        (family.raw, sql.Identifier("ts"), of_timeframe if family.timeframe else sql.SQL("true")),
        *((name, bucket, sql.SQL("true")) for name in family.names),
    ]
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL(query("refresh", "rows_of", where="aggregates")).format(
            key=key,
            key_type=sql.SQL(family.key_type),
            bucket=column,
            relation=sql.Identifier(name),
            of_timeframe=condition,
        )
        for name, column, condition in sources
    )
    with connection.transaction():
        if _execute(connection, "has_lifecycle").fetchall()[0]["found"]:
            _execute(connection, "hold_horizon", scope)
        connection.execute(
            sql.SQL(query("refresh", "mark", where="aggregates")).format(rows=rows), scope
        )


def _claim(connection: Connection[DictRow], name: str, scope: dict[str, Any]) -> _Claim:
    rows = connection.execute(_wanting(name), {**scope, "slice": _DAYS_A_SLICE}).fetchall()
    days = dict.fromkeys((row["key"], row["day"]) for row in rows)
    return _Claim([row["id"] for row in rows], sorted(days))


def _pending(connection: Connection[DictRow], scope: dict[str, Any]) -> int:
    days: int = connection.execute(_wanting("pending"), scope).fetchall()[0]["days"]
    return days


def _settle(connection: Connection[DictRow], claim: _Claim) -> None:
    _execute(connection, "settle", {"ids": claim.ids})


def _wanting(name: str) -> sql.Composed:
    wanted = sql.SQL(query("refresh", "wanted", where="aggregates"))
    return sql.SQL(query("refresh", name, where="aggregates")).format(wanted=wanted)


def _keep(family: Family, level: Level) -> sql.Composed:
    """The statement that brings one kept table up to date for the claimed ranges."""
    key_type = sql.SQL(family.key_type)
    if level.built_on == family.raw:
        recomputation = sql.SQL(query("refresh", "from_raw", where="aggregates")).format(
            recomputed=sql.Identifier(level.recomputed), key_type=key_type
        )
    else:
        recomputation = sql.SQL(query("refresh", "from_finer", where="aggregates")).format(
            finer=sql.Identifier(f"{level.built_on}_kept")
        )
    return sql.SQL(query("refresh", "keep", where="aggregates")).format(
        recomputation=recomputation,
        kept=sql.Identifier(level.kept),
        key=sql.Identifier(family.key),
        key_type=key_type,
        bucket=sql.Identifier(family.bucket),
        columns=_columns(*family.identity, *family.values),
        identity=_columns(*family.identity),
        identity_now=_columns(*family.identity, of="now"),
        identity_kept=_columns(*family.identity, of="kept"),
        values=_columns(*family.values),
        values_now=_columns(*family.values, of="excluded"),
        values_kept=_columns(*family.values, of="kept"),
    )


def _columns(*names: str, of: str | None = None) -> sql.Composed:
    path = (of,) if of else ()
    return sql.SQL(", ").join(sql.Identifier(*path, name) for name in names)


def _execute(
    connection: Connection[DictRow], name: str, parameters: dict[str, Any] | None = None
) -> Any:
    return connection.execute(query("refresh", name, where="aggregates"), parameters or {})
