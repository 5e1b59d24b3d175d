"""Feature sets: declared once; their tables, computation and Feast views follow from it."""

from hyperfeast.features.declaration import Bars, Feature, FeatureSet, FeatureType, Key, Relation

__all__ = ["Bars", "Feature", "FeatureSet", "FeatureType", "Key", "Relation"]
