"""The team's feature repository: its feature sets and models, read without importing Feast."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from hyperfeast.errors import FeatureError, HyperfeastError, UsageError
from hyperfeast.features.declaration import FeatureSet
from hyperfeast.features.places import where

# What Feast alone reads: it imports Feast, which takes seconds.
_FEAST_MODULE = "definitions"
_Declared = TypeVar("_Declared")


class FeatureRepo:
    """A folder with `feature_store.yaml` and Python modules that declare feature sets and models.

    Raises:
        UsageError: the folder is no feature repository.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "feature_store.yaml").exists():
            raise UsageError(
                f"{folder} is no feature repository: it has no feature_store.yaml. Set "
                "HYPERFEAST_FEATURE_REPO to the folder that has"
            )
        self.folder = folder.resolve()

    @cached_property
    def feature_sets(self) -> dict[str, FeatureSet]:
        """Every declared version of every feature set by its view's name, `market_technical_v1`.

        A set whose source reads the table of another comes after that one.

        Raises:
            FeatureError: a module does not import, a version is declared twice, or sets read each other.
        """
        found: dict[str, FeatureSet] = {}
        for one in self._objects(FeatureSet):
            if found.setdefault(one.view, one) is not one:
                raise FeatureError(
                    f"{self.folder}: {one} is declared twice: rename one of them, or raise its version"
                )
        return {view: found[view] for view in _in_order(found)}

    def feature_set(self, name: str) -> FeatureSet:
        """One feature set by name: its newest version, or the one that a view's name (`..._v2`) names.

        Raises:
            UsageError: none of that name; the message lists those there are.
        """
        return max(self.chosen(name), key=lambda one: one.version)

    def chosen(self, name: str | None = None) -> list[FeatureSet]:
        """The sets of a name: all versions of it, or the one that a view's name names; None for all.

        Raises:
            UsageError: none of that name; the message lists those there are.
        """
        sets = list(self.feature_sets.values())
        found = [one for one in sets if name in (None, one.name, one.view)]
        if not found and name is not None:
            raise UsageError(
                f"no feature set {name!r} in {self.folder}: it declares "
                f"{', '.join(sorted(self.feature_sets)) or 'none'}"
            )
        return found

    def declared(self, kind: type[_Declared]) -> dict[str, _Declared]:
        """Every module-level object of a kind that has a `name`, by that name.

        Raises:
            FeatureError: a module does not import, or two objects share a name.
        """
        found: dict[str, _Declared] = {}
        for value in self._objects(kind):
            name = str(getattr(value, "name", ""))
            if found.setdefault(name, value) is not value:
                raise FeatureError(f"{self.folder}: {kind.__name__} {name!r} is declared twice")
        return found

    def _objects(self, kind: type[_Declared]) -> Iterator[_Declared]:
        for module in self._modules:
            for value in vars(module).values():
                if isinstance(value, kind):
                    yield value

    @cached_property
    def _modules(self) -> list[ModuleType]:
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        return [
            self._import(path.stem)
            for path in sorted(self.folder.glob("*.py"))
            if path.stem != _FEAST_MODULE
        ]

    def _import(self, name: str) -> ModuleType:
        try:
            module = importlib.import_module(name)
        except HyperfeastError as error:
            place = where(error, self.folder / f"{name}.py")
            if str(error).startswith("feature set "):
                # It is the set that speaks, and says who it is.
                place = place.partition(",")[0]
            raise type(error)(f"{self.folder / name}.py, {place}: {error}") from error
        except Exception as error:
            place = where(error, self.folder / f"{name}.py")
            raise FeatureError(
                f"{self.folder / name}.py does not import: {type(error).__name__}: {error}"
                + (f" ({place})" if place else "")
            ) from error
        if Path(module.__file__ or "").parent != self.folder:
            taken_by = module.__file__ or "Python itself"
            raise FeatureError(
                f"{self.folder / name}.py: the name is taken by {taken_by}: rename it"
            )
        return module


def _in_order(sets: Mapping[str, FeatureSet]) -> list[str]:
    """Sets that others read come before them; the others stay as they are declared."""
    tables = {one.table: view for view, one in sets.items()}
    read = {
        view: sorted(tables[table] for table in one.reads if table in tables)
        for view, one in sets.items()
    }
    try:
        return list(TopologicalSorter(read).static_order())
    except CycleError as error:
        circle = [str(sets[view]) for view in reversed(error.args[1])]
        raise FeatureError(
            f"{' reads '.join(circle)}: a set cannot follow from itself: let one of their queries in "
            "sql/queries/features.sql read something else"
        ) from None
