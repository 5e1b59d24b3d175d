"""What a baseline says, and how it is written down: a versioned JSON document, checked when it is read."""

import json
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from hyperfeast.errors import DataError, SchemaError

SCHEMA: Literal[1] = 1
"""The version of the documents that this module writes."""

WINDOW_DAYS = 30

LEAST_READINGS, LEAST_DAYS = 10, 3
"""With fewer in the window, or of a device in it, nothing is held against it."""

ROBUST = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""

_Count = Annotated[int, Field(ge=0)]
_Width = Annotated[float, Field(ge=0)]
_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Document(BaseModel):
    """What is written down as JSON: immutable, without unknown fields, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,  # a metric's values are nobody's business but its user's
    )


class Spread(Document):
    """Readings in one number and how far they scatter; `std` is None of fewer than two."""

    n: _Count
    mean: float
    std: _Width | None


class DayMean(Document):
    """A UTC day's readings."""

    day: date
    n: _Count
    mean: float


class Segment(Document):
    """The readings of one device.

    Attributes:
        source: the device.
        n: how many.
        days_present: UTC days with readings.
        mean: of the readings.
        std: their sample deviation; None of fewer than two.
        median: of the readings.
        mad: their median absolute distance from it.
    """

    source: str
    n: _Count
    days_present: _Count
    mean: float
    std: _Width | None
    median: float
    mad: _Width


class MetricBaseline(Document):
    """One metric over the window, all devices together and each by itself.

    Attributes:
        unit: of every number; None if nobody declared one.
        n: how many readings.
        days_present: UTC days with readings, of 30.
        confidence: the same as a share.
        sufficient: whether there is enough to hold anything against; no z-score otherwise.
        mean: of all readings, whichever device took them.
        std: their sample deviation.
        median: of all readings.
        mad: their median absolute distance from it.
        harmonized_std: the deviation of readings from their own device's mean.
        trend: least squares through the days' means, a day.
        robust_trend: the median of the slopes between any two days (Theil-Sen), a day.
        hours: by hour of the day in the baseline's zone; None where nothing was read.
        weekdays: Monday to Sunday, what its days' mean lies above that of all days.
        segments: by device.
        days: by UTC day; days without readings are left out.
    """

    unit: str | None
    n: _Count
    days_present: Annotated[int, Field(ge=0, le=WINDOW_DAYS)]
    confidence: Annotated[float, Field(ge=0, le=1)]
    sufficient: bool
    mean: float
    std: _Width | None
    median: float
    mad: _Width
    harmonized_std: _Width | None
    trend: float | None
    robust_trend: float | None
    hours: Annotated[tuple[Spread | None, ...], Field(min_length=24, max_length=24)]
    weekdays: Annotated[tuple[float | None, ...], Field(min_length=7, max_length=7)]
    segments: tuple[Segment, ...]
    days: tuple[DayMean, ...]

    def z_score(self, value: float) -> float | None:
        """How far a value lies from the mean, in standard deviations, whichever device took it."""
        return _distance(value, self.mean, self.std) if self.sufficient else None

    def robust_z_score(self, value: float) -> float | None:
        """The same from the median, in robust deviations: a few absurd readings hardly move it."""
        return _distance(value, self.median, ROBUST * self.mad) if self.sufficient else None

    def harmonized_z_score(self, value: float, source: str) -> float | None:
        """How far a value lies from its own device's mean, so that devices that differ do not count.

        None for a device of which the baseline has too few readings.
        """
        own = next((one for one in self.segments if one.source == source), None)
        if own is None or own.n < LEAST_READINGS or not self.sufficient:
            return None
        return _distance(value, own.mean, self.harmonized_std)


class Baseline(Document):
    """A user's baselines: what a day's readings are held against.

    Attributes:
        version: of the document.
        as_of: the end of the last day counted, 00:00 UTC; the 30 days before it are the window.
        known_at: what the database knew at this moment was counted.
        time_zone: where hours and weekdays are those of.
        metrics: by name.
    """

    version: Literal[1] = Field(default=SCHEMA, alias="schema")
    as_of: AwareDatetime
    known_at: AwareDatetime
    time_zone: str = "UTC"
    metrics: dict[_Name, MetricBaseline]

    @field_validator("as_of", "known_at")
    @classmethod
    def _in_utc(cls, moment: datetime) -> datetime:
        return moment.astimezone(UTC)

    def to_json(self) -> str:
        """What is written down: JSON without NaN."""
        return self.model_dump_json(by_alias=True)


class SavedBaseline(Document):
    """A baseline in a repository, and when it was saved, UTC."""

    created_at: AwareDatetime
    baseline: Baseline

    @field_validator("created_at")
    @classmethod
    def _in_utc(cls, moment: datetime) -> datetime:
        return moment.astimezone(UTC)


def read_document(document: object, *, where: str) -> Baseline:
    """A baseline from its document.

    Args:
        document: what JSON holds.
        where: names the place in messages.

    Raises:
        SchemaError: a newer version of hyperfeast wrote it.
        DataError: it is no baseline; the message names the field and never shows a value.
    """
    check_schema(document, where=where)
    try:
        return Baseline.model_validate(document)
    except ValidationError as error:
        raise damaged(error, where) from None


def read_json(text: str | bytes, *, where: str) -> Any:
    """JSON as the standard has it: no NaN, no infinity.

    Raises:
        DataError: it is none, or only the beginning of one.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise DataError(
            f"{where} is not whole JSON ({reason}): nothing was changed; restore it from a backup, or "
            "move it away"
        ) from None


def check_schema(document: object, *, where: str) -> None:
    """Refuse what a newer version wrote before its fields are looked at.

    Raises:
        SchemaError: it is newer.
    """
    found = document.get("schema") if isinstance(document, dict) else None
    if isinstance(found, int) and found > SCHEMA:
        raise SchemaError(
            f"{where} has schema {found}, and this version of hyperfeast reads up to {SCHEMA}: nothing was "
            "changed; upgrade hyperfeast"
        )


def damaged(error: ValidationError, where: str) -> DataError:
    """What is wrong first, by the name of its field."""
    first = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(map(str, first["loc"])) or "the document"
    return DataError(
        f"{where} is no baseline of schema {SCHEMA}: {field}: {first['msg']} "
        f"({error.error_count()} such); nothing was changed"
    )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _distance(value: float, center: float, width: float | None) -> float | None:
    return (value - center) / width if width else None
