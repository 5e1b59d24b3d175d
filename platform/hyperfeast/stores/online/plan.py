"""What a request for features comes down to, worked out once: views, keys, fields, types, names.

A plan is made from what Feast itself resolved a feature service, or a list of references, to. Feast keeps
that until its registry is refreshed or changed; a plan lives exactly as long.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from feast import FeatureService, FeatureView, RepoConfig
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME
from feast.infra.online_stores.online_store import OnlineStore
from feast.utils import _get_cached_request_context, _parse_feature_ref
from feast.value_type import ValueType
from numpy.typing import NDArray

from hyperfeast.errors import FeatureError, UsageError
from hyperfeast.stores.online import decode, plain
from hyperfeast.stores.online.hashes import HashReads
from hyperfeast.stores.online.packed_reads import PackedReads
from hyperfeast.stores.online.views import KeyGroup, PlannedView, Reads
from hyperfeast.stores.online.wire import EntityKeys, versioned_name

# A feature service, or references `view:feature`.
Features: TypeAlias = list[str] | FeatureService

_MOST_PLANS = 256
_KEY_TYPES = (
    ValueType.STRING,
    ValueType.INT32,
    ValueType.INT64,
    ValueType.BYTES,
    ValueType.UNIX_TIMESTAMP,
)


@dataclass(frozen=True)
class Plan:
    """How to answer one request.

    Attributes:
        views: in the order of Feast's own answer.
        groups: what finds their rows.
        reads: the views in the layout in use.
        order: the features in the order in which they were asked for: (view, feature) by position.
        entity_types: the types of the join keys, as the request names them.
        join_keys: every name that Feast takes for a join key.
        feature_types: feature -> type, as Feast hands them to its response.
    """

    views: tuple[PlannedView, ...]
    groups: tuple[KeyGroup, ...]
    reads: Reads
    order: tuple[tuple[int, int], ...]
    entity_types: Mapping[str, ValueType]
    join_keys: frozenset[str]
    feature_types: Mapping[str, ValueType]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The features' names in the answer, in the order in which they were asked for."""
        return tuple(self.views[view].outputs[feature] for view, feature in self.order)

    @cached_property
    def view_of(self) -> NDArray[np.intp]:
        """The view of each feature, in the order in which they were asked for."""
        return np.array([view for view, _ in self.order], np.intp)

    @cached_property
    def view_names(self) -> tuple[str, ...]:
        """The views' names."""
        return tuple(view.name for view in self.views)

    @cached_property
    def ttls(self) -> tuple[timedelta | None, ...]:
        """How old a row of each view may be."""
        return tuple(view.ttl for view in self.views)

    @cached_property
    def permutation(self) -> NDArray[np.intp] | None:
        """From view by view to the order in which the features were asked for; None if that is the same."""
        read = [
            (at, feature)
            for at, view in enumerate(self.views)
            for feature in range(len(view.features))
        ]
        places = {place: column for column, place in enumerate(read)}
        order = [places[place] for place in self.order]
        return None if order == list(range(len(read))) else np.array(order, np.intp)

    @cached_property
    def is_plain(self) -> bool:
        """Whether every feature's values are Python's own, once they are read."""
        return all(plain.covers(kind) for view in self.views for kind in view.kinds)

    @cached_property
    def no_numbers(self) -> tuple[tuple[str, str, ValueType], ...]:
        """The features that cannot stand in a matrix: view, feature, type."""
        return tuple(
            (view.name, feature, kind)
            for view in self.views
            for feature, kind in zip(view.features, view.kinds, strict=True)
            if not decode.is_number(kind)
        )


@dataclass(frozen=True)
class _Kept:
    """A plan, and the registry's state that it was made from; None of a plan if Feast has to answer."""

    registry: Any
    read_at: datetime | None
    plan: Plan | None


class Plans:
    """The plans of one store's requests."""

    def __init__(self) -> None:
        self._kept: dict[Any, _Kept] = {}

    def of(
        self,
        config: RepoConfig,
        registry: Any,
        project: str,
        features: Features,
        *,
        full_feature_names: bool,
    ) -> Plan | None:
        """The plan of a request, worked out anew if the registry was read again, or has to be.

        Feast keeps what it resolved by the same rule, but for one registry in a process at a time.

        Returns:
            None if Feast's own code has to answer: something is computed on demand, or precomputed.

        Raises:
            UsageError: the features are a text.
            FeatureError: a view has no feature of that name.
            Feast's own errors: an unknown view or service; two features of one name.
        """
        if isinstance(features, str):
            raise UsageError(
                "features: expected a list of 'view:feature' or a feature service, found the text "
                f"{features!r}: write [{features!r}]"
            )
        is_service = isinstance(features, FeatureService)
        if is_service and getattr(features, "precompute_online", False):
            return None
        name = (features.name,) if isinstance(features, FeatureService) else tuple(features)
        key = (is_service, name, project, full_feature_names, config.online_store.layout)
        kept, read_at = self._kept.get(key), _read_at(registry)
        if kept and kept.registry is registry and read_at and kept.read_at == read_at:
            return kept.plan
        resolved = _resolved(registry, project, features, full_feature_names=full_feature_names)
        plan = _plan(config, resolved, full_names=full_feature_names)
        # Where the registry had to be read, resolving did; else somebody did meanwhile, and the plan is of before.
        now_read_at = _read_at(registry)
        if read_at is None or read_at == now_read_at:
            if len(self._kept) >= _MOST_PLANS:
                self._kept.clear()
            self._kept[key] = _Kept(registry, now_read_at, plan)
        return plan


def _resolved(
    registry: Any, project: str, features: Features, *, full_feature_names: bool
) -> tuple[Any, ...]:
    """What Feast makes of a request; a feature that a view does not have, in our words."""
    try:
        resolved: tuple[Any, ...] = _get_cached_request_context(
            registry, project, features, full_feature_names
        )
    except KeyError as error:
        if isinstance(features, FeatureService):
            raise
        for reference in features:
            _refuse_unknown(registry, project, reference, error)
        raise
    return resolved


def _refuse_unknown(registry: Any, project: str, reference: str, cause: KeyError) -> None:
    name, _, feature = _parse_feature_ref(reference)
    view = registry.get_any_feature_view(name, project, allow_cache=True)
    known = [field.name for field in view.features]
    if feature not in known:
        close = get_close_matches(feature, known, n=1, cutoff=0.5)
        hint = f"did you mean {f'{name}:{close[0]}'!r}?" if close else "correct the reference;"
        raise FeatureError(
            f"feature view {name!r} has no feature {feature!r}: {hint} It has {', '.join(known)}"
        ) from cause


def _read_at(registry: Any) -> datetime | None:
    """When the registry was last read; None if it has to be read again."""
    is_valid = getattr(registry, "is_cache_valid", None)
    return (
        getattr(registry, "cached_registry_proto_created", None)
        if is_valid and is_valid()
        else None
    )


def one_view(
    config: RepoConfig, table: FeatureView, features: Sequence[str] | None
) -> tuple[PlannedView, Reads]:
    """One view whose keys are known already.

    Args:
        config: the repository's.
        table: the view.
        features: those to read; all of them if there are none.
    """
    wanted = features or [field.name for field in table.features]
    view = _view(config, table, wanted, full_names=False)
    return view, _reads(config)([KeyGroup(EntityKeys(config.project, {}), (), (0,))], [view])


def _plan(config: RepoConfig, resolved: tuple[Any, ...], *, full_names: bool) -> Plan | None:
    refs, on_demand, join_key_of, entity_types, join_keys, grouped, _, asked, _ = resolved
    if on_demand or asked or not all(isinstance(table, FeatureView) for table, _ in grouped):
        return None
    views: list[PlannedView] = []
    groups: dict[Any, tuple[EntityKeys, tuple[str, ...], list[int]]] = {}
    for table, requested in grouped:
        keyed = _keys(table, join_key_of, entity_types)
        if keyed is None:
            return None
        types, columns = keyed
        keys = EntityKeys(config.project, types, config.entity_key_serialization_version)
        at = (columns, tuple((name, types[name].name) for name in keys.names))
        groups.setdefault(at, (keys, columns, []))[2].append(len(views))
        views.append(_view(config, table, requested, full_names=full_names))
    made = tuple(KeyGroup(keys, columns, tuple(at)) for keys, columns, at in groups.values())
    return Plan(
        views=tuple(views),
        groups=made,
        reads=_reads(config)(made, views),
        order=_order(refs, views),
        entity_types=dict(entity_types),
        join_keys=frozenset(join_keys),
        feature_types=OnlineStore._build_feature_types(grouped),  # noqa: SLF001 - Feast has no other way
    )


def _reads(config: RepoConfig) -> type[HashReads | PackedReads]:
    return PackedReads if config.online_store.layout == "packed" else HashReads


def _parts(ref: str) -> tuple[str, str]:
    """The view, with its version if one is asked for, and the feature of a reference."""
    view, version, feature = _parse_feature_ref(ref)
    return (view if version is None else f"{view}@v{version}"), feature


def _view(
    config: RepoConfig, table: FeatureView, requested: Sequence[str], *, full_names: bool
) -> PlannedView:
    name = table.projection.name_to_use()
    schema = tuple((field.name, field.dtype.to_value_type()) for field in table.features)
    kinds = dict(schema)
    return PlannedView(
        name=name,
        stored_as=versioned_name(table, config),
        features=tuple(requested),
        kinds=tuple(kinds.get(feature, ValueType.UNKNOWN) for feature in requested),
        outputs=tuple(f"{name}__{one}" if full_names else one for one in requested),
        schema=schema,
        ttl=getattr(table, "ttl", None) or None,
    )


def _keys(
    table: FeatureView, join_key_of: Mapping[str, str], entity_types: Mapping[str, ValueType]
) -> tuple[dict[str, ValueType], tuple[str, ...]] | None:
    """Join key -> type, and the request's columns in the keys' order; None if a type is not declared."""
    if table.entities == [DUMMY_ENTITY_NAME]:
        return {DUMMY_ENTITY_ID: ValueType.STRING}, ()
    join_keys = sorted(join_key_of[entity] for entity in table.entities)
    columns = [table.projection.join_key_map.get(name, name) for name in join_keys]
    types = [entity_types.get(column, ValueType.UNKNOWN) for column in columns]
    if any(kind not in _KEY_TYPES for kind in types):
        return None
    return dict(zip(join_keys, types, strict=True)), tuple(columns)


def _order(refs: Iterable[str], views: Sequence[PlannedView]) -> tuple[tuple[int, int], ...]:
    places = {
        (view.name, feature): (at, position)
        for at, view in enumerate(views)
        for position, feature in enumerate(view.features)
    }
    return tuple(dict.fromkeys(places[_parts(ref)] for ref in refs))
