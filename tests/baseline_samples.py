"""Baselines that tests save, and readings that they are made of."""

import random
from datetime import UTC, date, datetime, timedelta
from functools import cache

import polars as pl

from hyperfeast.baselines import Baseline, extract

DAY = date(2024, 3, 31)  # clocks in Europe go forward on it
KNOWN_AT = datetime(2024, 3, 31, 6, tzinfo=UTC)


def readings(
    *, days: int = 40, until: date = DAY, seed: int = 1, metrics: tuple[str, ...] = ("heart_rate",)
) -> pl.DataFrame:
    """A few readings a day by two devices, up to a day, which is left out."""
    rng = random.Random(seed)
    end = datetime(until.year, until.month, until.day, tzinfo=UTC)
    rows = [
        (metric, source, end - timedelta(days=back) + timedelta(minutes=minute), rng.gauss(70, 9))
        for metric in metrics
        for back in range(days, 0, -1)
        for source in ("ring", "watch")
        for minute in rng.sample(range(24 * 60), 3)
    ]
    return pl.DataFrame(rows, schema=["metric", "source", "ts", "value"], orient="row")


def baseline(number: int = 0) -> Baseline:
    """One of any number of different baselines."""
    return _first().model_copy(update={"known_at": KNOWN_AT + timedelta(seconds=number)})


@cache
def _first() -> Baseline:
    both = readings(seed=3, metrics=("glucose", "heart_rate"))
    return extract(both.with_columns(value=pl.col("value") + 20), DAY, known_at=KNOWN_AT)


def csv_of_ninety_days(user: str) -> str:
    """A file of two metrics up to yesterday; twenty days ago the heart beat faster by far."""
    rng = random.Random(4)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    lines = ["user_id,metric,ts,value,source"]
    for back in range(90, 0, -1):
        pulse, device = 116 if back == 20 else 66, "ring" if back > 25 else "watch"
        for hour in range(0, 24, 3):
            ts = (today - timedelta(days=back, hours=-hour, minutes=-rng.randrange(60))).isoformat()
            lines.append(f"{user},heart_rate,{ts},{rng.gauss(pulse, 6):.1f},{device}")
            lines.append(f"{user},glucose,{ts},{rng.gauss(110, 15):.1f},cgm")
    return "\n".join(lines) + "\n"


def number_of(one: Baseline) -> int:
    """Which one it is."""
    return round((one.known_at - KNOWN_AT).total_seconds())
