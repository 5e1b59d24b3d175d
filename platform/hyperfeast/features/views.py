"""Feast objects that follow from a feature set. Imported by definitions only: `import feast` is slow."""

from feast import Entity, FeatureView, Field, ValueType
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from feast.types import Array, FeastType, Float64, Int64

from hyperfeast.features.declaration import Feature, FeatureSet, FeatureType, Key

_TYPES: dict[FeatureType, FeastType] = {
    FeatureType.FLOAT64: Float64,
    FeatureType.INT64: Int64,
    FeatureType.FLOAT64_LIST: Array(Float64),
}


def entity(key: Key) -> Entity:
    """The Feast entity of a key; every key is text."""
    return Entity(
        name=key.entity,
        join_keys=[key.column],
        value_type=ValueType.STRING,
        description=key.description,
    )


def feature_view(feature_set: FeatureSet, entities: list[Entity]) -> FeatureView:
    """The Feast view of a set, named `<set>_v<version>`, over the set's table.

    Bounds and words to find it by go into tags: they are for whoever reads the registry.
    """
    return FeatureView(
        name=feature_set.view,
        entities=entities,
        ttl=feature_set.freshness,
        schema=[
            Field(name=f.name, dtype=_TYPES[f.dtype], description=f.description, tags=_tags(f))
            for f in feature_set.features
        ],
        source=PostgreSQLSource(
            name=feature_set.table,
            table=feature_set.table,
            timestamp_field="event_timestamp",
            created_timestamp_column="recorded_at",
        ),
        description=feature_set.description,
        tags={
            "definition_hash": feature_set.definition_hash,
            **dict.fromkeys(feature_set.tags, ""),
        },
    )


def _tags(feature: Feature) -> dict[str, str]:
    low, high = feature.bounds
    bounds = {"low": low, "high": high}
    return {
        **{name: f"{bound:g}" for name, bound in bounds.items() if bound is not None},
        **dict.fromkeys(feature.tags, ""),
    }
