"""What a team writes: a model, its features, its label and how it is trained."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from hyperfeast.errors import ModelError

Parameter = float | int | str

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LABELS = ("direction",)
# XGBoost takes a misspelled parameter without a word. Objective, seed and threads are not among
# these: results repeat bit for bit only under one thread and a known seed.
_PARAMETERS = frozenset(
    {
        "alpha", "base_score", "colsample_bylevel", "colsample_bynode", "colsample_bytree", "eta",
        "gamma", "grow_policy", "interaction_constraints", "lambda", "max_bin", "max_delta_step",
        "max_depth", "max_leaves", "min_child_weight", "monotone_constraints", "num_parallel_tree",
        "sampling_method", "scale_pos_weight", "subsample",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Deviation:
    """Label: whether a column of a feature set will be beyond a threshold, to either side.

    Attributes:
        feature_set: the set's name; its rows at the ends of days are looked at.
        column: of the set: a distance from what is usual.
        threshold: 1 if the column's size is above it, else 0.
        where: key column -> the value that is modeled, such as metric -> glucose.
    """

    feature_set: str
    column: str
    threshold: float = 1.0
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """A model as it is declared. The registry numbers its versions.

    Attributes:
        name: lower case, digits and underscores.
        feature_service: the Feast feature service whose features it reads.
        parameters: of XGBoost's trees. Objective, seed and threads are the platform's.
        entity: what one prediction is about.
        horizon: sessions that the label looks ahead; days of a Deviation.
        label: `direction`: 1 if the log return over the horizon is above 0, else 0; or a Deviation.
        rounds: number of trees.
        seed: of the row and column samples.
        folds: test periods of the walk-forward split.
        freshness: how old features may be before an answer is flagged stale.

    Raises:
        ModelError: a bad name, an unknown label or parameter, a number out of range.
    """

    name: str
    feature_service: str
    parameters: Mapping[str, Parameter]
    entity: str = "symbol"
    horizon: int = 5
    label: str | Deviation = "direction"
    rounds: int = 150
    seed: int = 7
    folds: int = 5
    freshness: timedelta = timedelta(days=4)

    def __post_init__(self) -> None:
        for name in (self.name, self.feature_service, self.entity):
            if not _NAME.fullmatch(name):
                raise ModelError(
                    f"{self}: {name!r} is no usable name: lower-case letters, digits and "
                    "underscores, 40 at most, a letter first"
                )
        if not isinstance(self.label, Deviation) and self.label not in _LABELS:
            raise ModelError(
                f"{self}: label {self.label!r} is unknown: use one of {', '.join(_LABELS)}, or a Deviation"
            )
        if min(self.horizon, self.rounds, self.folds) < 1 or self.freshness <= timedelta(0):
            raise ModelError(f"{self}: horizon, rounds, folds and freshness must be above 0")
        if unknown := sorted(self.parameters.keys() - _PARAMETERS):
            raise ModelError(
                f"{self}: {', '.join(unknown)} cannot be declared; the parameters are "
                f"{', '.join(sorted(_PARAMETERS))}, and the platform sets all others"
            )

    def __str__(self) -> str:
        return f"model {self.name}"

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """All that shapes the model and how it is served, as JSON holds it."""
        return {
            "parameters": dict(self.parameters),
            "entity": self.entity,
            "horizon": self.horizon,
            "label": asdict(self.label) if isinstance(self.label, Deviation) else self.label,
            "rounds": self.rounds,
            "seed": self.seed,
            "folds": self.folds,
            "freshness_s": self.freshness.total_seconds(),
        }
