"""What the predictor says when a feature that its model was trained with is no longer served."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.models import Booster, RegisteredModel
from hyperfeast.serving import Predictor

_MODEL = RegisteredModel(
    model_id=uuid4(),
    name="momentum",
    model_type="xgboost",
    version=3,
    training_date=datetime(2024, 1, 1, tzinfo=UTC),
    metrics={},
    hyperparameters={},
    feature_columns=("rsi", "gone", "lost"),
    feature_service="momentum_v1",
    artifact_path="p",
    artifact_sha256="0",
    run_id=uuid4(),
    is_active=True,
    created_at=datetime(2024, 1, 1, tzinfo=UTC),
)


@dataclass(frozen=True)
class _Served:
    """One entity's features, all there."""

    features: Sequence[str]
    views: Sequence[str] = ("view",)

    @property
    def values(self) -> NDArray[np.float64]:
        return np.zeros((1, len(self.features)))

    @property
    def event_timestamps(self) -> NDArray[np.datetime64]:
        return np.array([[np.datetime64("2024-01-01")]])


class _Online:
    """The service as it is now."""

    def online(self, feature_service: str, entities: Sequence[Mapping[str, str]]) -> _Served:
        assert (feature_service, len(entities)) == ("momentum_v1", 1)
        return _Served(("new", "rsi"))


def test_a_feature_that_is_no_longer_served_is_named_with_its_service_and_the_remedy() -> None:
    predictor = Predictor(
        Database("host=127.0.0.1 port=1 dbname=x user=x"),
        _Online(),
        _MODEL,
        cast("Booster", None),
        freshness=timedelta(days=1),
    )
    with pytest.raises(
        FeatureError,
        match=r"service 'momentum_v1' no longer serves gone, lost, .*version 3 .*'momentum'.*put it back",
    ):
        predictor.predict(["BTC"])
