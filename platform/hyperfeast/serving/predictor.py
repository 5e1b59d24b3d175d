"""Predictions of the active model from the features that Redis serves, each one logged."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from hyperfeast import clock
from hyperfeast.db import Database
from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.models import Booster, RegisteredModel
from hyperfeast.sqlfiles import query
from hyperfeast.types import SYMBOL_PATTERN

_TIMEFRAME = "1d"
# A probability closer to a coin's than this is no signal.
_HOLD_BAND = 0.01


class Served(Protocol):
    """What the online store holds for some entities: see `stores.online.answers.OnlineMatrix`."""

    @property
    def values(self) -> NDArray[np.float64]:
        """Entities x features; NaN where a value is missing."""

    @property
    def features(self) -> Sequence[str]:
        """The names of the columns."""

    @property
    def event_timestamps(self) -> NDArray[np.datetime64]:
        """Entities x views: from when each view's row was knowable (UTC); NaT where there is none."""

    @property
    def views(self) -> Sequence[str]:
        """The feature views."""


class OnlineFeatures(Protocol):
    """Whatever reads served features: in the product, Feast's online store."""

    def online(self, feature_service: str, entities: Sequence[Mapping[str, str]]) -> Served:
        """The features of each entity, in their order."""


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        symbol: the instrument.
        label: BUY, SELL, or HOLD where the probability is within 0.01 of a half.
        pred: the score, 2 * proba - 1: from -1 (down) to 1 (up).
        proba: probability that the forward return is positive.
        ts: when it was answered (UTC).
        features: the served vector; None where a feature is missing.
        feature_ages: feature view -> seconds since its row became knowable.
        stale: whether a view is older than the model's freshness allows, or a feature is missing.
        model_id: the model that answered.
        model_version: its version.
        request_id: the request it belongs to.
        latency_ms: from asking for the features to the model's answer.
    """

    symbol: str
    label: str
    pred: float
    proba: float
    ts: datetime
    features: dict[str, float | None]
    feature_ages: dict[str, float]
    stale: bool
    model_id: UUID
    model_version: int
    request_id: UUID
    latency_ms: float

    @property
    def known_at(self) -> datetime:
        """From when the oldest features that it rests on were knowable (UTC)."""
        return self.ts - timedelta(seconds=max(self.feature_ages.values()))


class Predictor:
    """One loaded model version and the features it reads. Safe to share between threads."""

    def __init__(
        self,
        database: Database,
        features: OnlineFeatures,
        model: RegisteredModel,
        booster: Booster,
        *,
        freshness: timedelta,
    ) -> None:
        self.model = model
        self._database = database
        self._features = features
        self._booster = booster
        self._freshness = freshness

    def predict(
        self, symbols: Sequence[str], *, request_id: UUID | None = None
    ) -> list[Prediction]:
        """Predict every symbol, log every prediction, then return them in the order asked.

        Raises:
            UsageError: a symbol is no known instrument, or asked for twice.
            FeatureError: a symbol has no features online, or the service has lost one of the model's.
        """
        started = time.perf_counter()
        if len(set(symbols)) < len(symbols):
            raise UsageError("each symbol once: a request holds no symbol twice")
        if odd := [symbol for symbol in symbols if not re.fullmatch(SYMBOL_PATTERN, symbol)]:
            raise self._unknown(odd)
        served = self._features.online(
            self.model.feature_service, [{"symbol": symbol} for symbol in symbols]
        )
        self._check_present(symbols, served)
        vectors = served.values[:, self._columns(served)]
        probabilities = self._booster.predict(vectors)
        answered_at = clock.now()
        latency_ms = (time.perf_counter() - started) * 1000
        request = request_id or uuid4()
        predictions = [
            self._prediction(symbol, float(proba), vector, ages, answered_at, request, latency_ms)
            for symbol, proba, vector, ages in zip(
                symbols, probabilities, vectors, _ages(served, answered_at), strict=True
            )
        ]
        self._log(predictions)
        return predictions

    def _prediction(
        self,
        symbol: str,
        proba: float,
        vector: NDArray[np.float64],
        ages: Mapping[str, float | None],
        answered_at: datetime,
        request_id: UUID,
        latency_ms: float,
    ) -> Prediction:
        values = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(self.model.feature_columns, vector, strict=True)
        }
        known = {view: age for view, age in ages.items() if age is not None}
        old = any(age > self._freshness.total_seconds() for age in known.values())
        return Prediction(
            symbol=symbol,
            label=_label(proba),
            pred=2 * proba - 1,
            proba=proba,
            ts=answered_at,
            features=values,
            feature_ages=known,
            stale=old or None in values.values() or len(known) < len(ages),
            model_id=self.model.model_id,
            model_version=self.model.version,
            request_id=request_id,
            latency_ms=latency_ms,
        )

    def _check_present(self, symbols: Sequence[str], served: Served) -> None:
        nothing: list[bool] = np.all(np.isnat(served.event_timestamps), axis=1).tolist()
        absent = [symbol for symbol, missing in zip(symbols, nothing, strict=True) if missing]
        if not absent:
            return
        known = self._known()
        if unknown := [symbol for symbol in absent if symbol not in known]:
            raise self._unknown(unknown)
        raise FeatureError(
            f"no features online for {', '.join(absent)}: run `hyperfeast features compute` and "
            "`hyperfeast materialize`"
        )

    def _columns(self, served: Served) -> list[int]:
        """Where the model's features stand among the served ones."""
        place = {name: number for number, name in enumerate(served.features)}
        if lost := [name for name in self.model.feature_columns if name not in place]:
            raise FeatureError(
                f"feature service {self.model.feature_service!r} no longer serves {', '.join(lost)}, which "
                f"version {self.model.version} of the model {self.model.name!r} was trained with: put it back "
                "into the service and run `hyperfeast features apply`, or train and promote a version without it"
            )
        return [place[name] for name in self.model.feature_columns]

    def _known(self) -> list[str]:
        return [row["symbol"] for row in self._database.fetch(query("signals", "known_symbols"))]

    def _unknown(self, symbols: Sequence[str]) -> UsageError:
        return UsageError(
            f"unknown symbol {', '.join(map(ascii, symbols))}: known are "
            f"{', '.join(self._known()[:20]) or 'none yet'}"
        )

    def _log(self, predictions: Sequence[Prediction]) -> None:
        rows = [
            {
                "label": one.label,
                "pred": one.pred,
                "proba": one.proba,
                "ts": one.ts,
                "symbol": one.symbol,
                "tf": _TIMEFRAME,
                "features": Jsonb(one.features),
                "feature_ages": Jsonb(one.feature_ages),
                "model_id": one.model_id,
                "request_id": one.request_id,
                "latency_ms": one.latency_ms,
            }
            for one in predictions
        ]
        with self._database.connect() as connection, connection.cursor() as cursor:
            cursor.executemany(query("signals", "insert"), rows)


def _label(proba: float) -> str:
    if abs(proba - 0.5) < _HOLD_BAND:
        return "HOLD"
    return "BUY" if proba > 0.5 else "SELL"  # noqa: PLR2004


def _ages(served: Served, moment: datetime) -> list[dict[str, float | None]]:
    """Of each entity: feature view -> seconds since its row was knowable; None where there is no row."""
    known_from: list[list[datetime | None]] = served.event_timestamps.tolist()
    return [
        {
            view: None if at is None else (moment - at.replace(tzinfo=UTC)).total_seconds()
            for view, at in zip(served.views, row, strict=True)
        }
        for row in known_from
    ]
