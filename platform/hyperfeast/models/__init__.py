"""Models: declared once; their artifacts, the registry of versions, and the booster that predicts.

Only the declaration is imported here, so that a feature repository which holds one stays quick to load.
"""

from hyperfeast.models.spec import ModelSpec

__all__ = ["ModelSpec"]
