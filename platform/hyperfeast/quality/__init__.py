"""What is known of the data: checks, completeness, outliers. Everything here marks; nothing is deleted."""

from hyperfeast.quality.checks import check
from hyperfeast.quality.completeness import (
    Completeness,
    MissingRange,
    completeness,
    heal,
    metric_completeness,
    monthly_completeness,
)
from hyperfeast.quality.feature_results import check_features
from hyperfeast.quality.features import FeatureQuality, FeatureRules, Label, measure
from hyperfeast.quality.known import check_keys
from hyperfeast.quality.outliers import Flagging, OutlierRules, flag_outliers
from hyperfeast.quality.results import Result
from hyperfeast.quality.sessions import sync_calendars
from hyperfeast.quality.summary import QualitySummary, summary

__all__ = [
    "Completeness",
    "FeatureQuality",
    "FeatureRules",
    "Flagging",
    "Label",
    "MissingRange",
    "OutlierRules",
    "QualitySummary",
    "Result",
    "check",
    "check_features",
    "check_keys",
    "completeness",
    "flag_outliers",
    "heal",
    "measure",
    "metric_completeness",
    "monthly_completeness",
    "summary",
    "sync_calendars",
]
