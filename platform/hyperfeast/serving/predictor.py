"""Predictions of the active model from the features that Redis serves, each one logged."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID, uuid4

import numpy as np
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


class Vector(Protocol):
    """What the online store holds for one entity: see `stores.feast_store.OnlineVector`."""

    @property
    def values(self) -> dict[str, float | None]:
        """Feature -> value; None where it is missing."""

    @property
    def event_timestamps(self) -> dict[str, datetime | None]:
        """Feature view -> from when its row was knowable (UTC); None where there is none."""


class OnlineFeatures(Protocol):
    """Whatever reads served vectors: in the product, Feast's online store."""

    def online(
        self, feature_service: str, entities: Sequence[Mapping[str, str]]
    ) -> Sequence[Vector]:
        """The vector of each entity, in their order."""


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
            FeatureError: a symbol has no features online.
        """
        started = time.perf_counter()
        if len(set(symbols)) < len(symbols):
            raise UsageError("each symbol once: a request holds no symbol twice")
        if odd := [symbol for symbol in symbols if not re.fullmatch(SYMBOL_PATTERN, symbol)]:
            raise self._unknown(odd)
        vectors = self._features.online(
            self.model.feature_service, [{"symbol": symbol} for symbol in symbols]
        )
        self._check_present(symbols, vectors)
        columns = self.model.feature_columns
        matrix = np.array(
            [[_number(vector.values[name]) for name in columns] for vector in vectors]
        )
        probabilities = self._booster.predict(matrix)
        answered_at = clock.now()
        latency_ms = (time.perf_counter() - started) * 1000
        request = request_id or uuid4()
        predictions = [
            self._prediction(symbol, float(proba), vector, answered_at, request, latency_ms)
            for symbol, proba, vector in zip(symbols, probabilities, vectors, strict=True)
        ]
        self._log(predictions)
        return predictions

    def _prediction(
        self,
        symbol: str,
        proba: float,
        vector: Vector,
        answered_at: datetime,
        request_id: UUID,
        latency_ms: float,
    ) -> Prediction:
        values = {name: vector.values[name] for name in self.model.feature_columns}
        ages = {
            view: (answered_at - known_from).total_seconds()
            for view, known_from in vector.event_timestamps.items()
            if known_from is not None
        }
        old = any(age > self._freshness.total_seconds() for age in ages.values())
        return Prediction(
            symbol=symbol,
            label=_label(proba),
            pred=2 * proba - 1,
            proba=proba,
            ts=answered_at,
            features=values,
            feature_ages=ages,
            stale=old or None in values.values() or len(ages) < len(vector.event_timestamps),
            model_id=self.model.model_id,
            model_version=self.model.version,
            request_id=request_id,
            latency_ms=latency_ms,
        )

    def _check_present(self, symbols: Sequence[str], vectors: Sequence[Vector]) -> None:
        absent = [
            symbol
            for symbol, vector in zip(symbols, vectors, strict=True)
            if not any(vector.event_timestamps.values())
        ]
        if not absent:
            return
        known = self._known()
        if unknown := [symbol for symbol in absent if symbol not in known]:
            raise self._unknown(unknown)
        raise FeatureError(
            f"no features online for {', '.join(absent)}: run `hyperfeast features compute` and "
            "`hyperfeast materialize`"
        )

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


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
