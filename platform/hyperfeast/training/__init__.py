"""Training: labels, point-in-time features, walk-forward scores, and a version in the registry."""

from hyperfeast.training.dataset import HistoricalFeatures, ends_of_days, of_entities
from hyperfeast.training.evaluation import Equity, Roc
from hyperfeast.training.trainer import TrainingResult, train

__all__ = [
    "Equity",
    "HistoricalFeatures",
    "Roc",
    "TrainingResult",
    "ends_of_days",
    "of_entities",
    "train",
]
