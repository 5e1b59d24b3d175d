"""Models: declared once; their artifacts, the registry of versions, and the booster that predicts."""

from hyperfeast.models.artifacts import load as load_artifact
from hyperfeast.models.booster import Booster
from hyperfeast.models.registry import RegisteredModel, active, versions
from hyperfeast.models.spec import Deviation, ModelSpec

__all__ = [
    "Booster",
    "Deviation",
    "ModelSpec",
    "RegisteredModel",
    "active",
    "load_artifact",
    "versions",
]
