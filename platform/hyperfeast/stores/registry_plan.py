"""What applying a repository would change in Feast's registry, and which views must be online before it does."""

from dataclasses import dataclass, field
from typing import Any, cast

from feast import FeatureService, FeatureStore
from feast.diff.property_diff import TransitionType
from feast.diff.registry_diff import FeastObjectDiff
from feast.feature_view import DUMMY_ENTITY_NAME
from feast.infra.registry.registry import FeastObjectType
from feast.protos.feast.core.DataSource_pb2 import DataSource
from feast.repo_contents import RepoContents

from hyperfeast.errors import FeatureError

_ACTIONS = {
    TransitionType.CREATE: "create",
    TransitionType.UPDATE: "change",
    TransitionType.DELETE: "delete",
}


@dataclass(frozen=True)
class RegistryChange:
    """One object that applying would create, change or delete.

    Attributes:
        kind: entity, feature view, feature service, data source ...
        name: the object's.
        action: create, change or delete.
    """

    kind: str
    name: str
    action: str


@dataclass(frozen=True)
class RegistryPlan:
    """What applying would do.

    Attributes:
        changes: to the objects of the registry.
        views: the feature views that are defined.
        awaited: views that a service which serves already would read from then on, though nothing of
            them is online: they are computed and brought online before it does.
        cut_off: by service, a view that it reads until then and that would be deleted at once.
    """

    changes: list[RegistryChange]
    views: list[str]
    awaited: list[str]
    cut_off: dict[str, str] = field(default_factory=dict)

    def refuse_gaps(self) -> None:
        """See that no service is cut off.

        Raises:
            FeatureError: one is; the message has the service, the view and what to do.
        """
        for service, view in self.cut_off.items():
            raise FeatureError(
                f"feature service {service} reads {view} until another view takes its place, and whoever serves "
                f"learns of that a minute later: keep {view} declared for this apply, and drop it with the next"
            )


def registry_plan(store: FeatureStore, contents: RepoContents) -> RegistryPlan:
    """Compare a repository with the registry. Changes nothing.

    Args:
        store: with the registry.
        contents: what the repository defines.
    """
    differences = [
        one
        for one in store.plan(contents)[0].feast_object_diffs
        if one.transition_type in _ACTIONS
        and one.name != DUMMY_ENTITY_NAME
        and not _is_the_same(one)
    ]
    deleted = {
        one.name
        for one in differences
        if one.transition_type is TransitionType.DELETE
        and one.feast_object_type is FeastObjectType.FEATURE_VIEW
    }
    views = store.list_feature_views()
    online = {view.name for view in views if view.online and view.materialization_intervals}
    awaited, cut_off = set[str](), dict[str, str]()
    for service, before, after in _switches(differences):
        if lost := sorted(deleted & before):
            cut_off[service] = lost[0]
        if before & online:
            awaited |= after - before - online
    declared = [view.name for view in contents.feature_views]
    return RegistryPlan(
        [_change(one) for one in differences],
        declared,
        [name for name in declared if name in awaited],
        cut_off,
    )


def _switches(differences: list[FeastObjectDiff]) -> list[tuple[str, set[str], set[str]]]:
    """Services that read other views from now on: the name, the views before and after."""
    return [
        (
            one.name,
            _views(cast("FeatureService", one.current_feast_object)),
            _views(cast("FeatureService", one.new_feast_object)),
        )
        for one in differences
        if one.feast_object_type is FeastObjectType.FEATURE_SERVICE
        and one.transition_type is TransitionType.UPDATE
    ]


def _views(service: FeatureService) -> set[str]:
    return {projection.name for projection in service.feature_view_projections}


def _is_the_same(difference: FeastObjectDiff) -> bool:
    """Whether nothing differs but when the object was made: Feast takes that for a change of a view's source."""
    return difference.transition_type is TransitionType.UPDATE and all(
        _timeless(one.val_existing) == _timeless(one.val_declared)
        for one in difference.feast_object_property_diffs
    )


def _timeless(value: Any) -> Any:
    if not isinstance(value, DataSource):
        return value
    source = DataSource()
    source.CopyFrom(value)
    source.ClearField("meta")
    return source


def _change(difference: FeastObjectDiff) -> RegistryChange:
    return RegistryChange(
        difference.feast_object_type.value,
        difference.name,
        _ACTIONS[difference.transition_type],
    )
