"""The team's feature repository: its feature sets and models, read without importing Feast."""

import importlib
import sys
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from hyperfeast.errors import FeatureError, HyperfeastError, UsageError
from hyperfeast.features.declaration import FeatureSet

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
        """Every declared feature set by name.

        Raises:
            FeatureError: a module does not import, or a name is declared twice.
        """
        return self.declared(FeatureSet)

    def feature_set(self, name: str) -> FeatureSet:
        """One feature set by name.

        Raises:
            UsageError: none of that name; the message lists those there are.
        """
        if name not in self.feature_sets:
            raise UsageError(
                f"no feature set {name!r} in {self.folder}: it declares "
                f"{', '.join(sorted(self.feature_sets)) or 'none'}"
            )
        return self.feature_sets[name]

    def declared(self, kind: type[_Declared]) -> dict[str, _Declared]:
        """Every module-level object of a kind that has a `name`, by that name.

        Raises:
            FeatureError: a module does not import, or two objects share a name.
        """
        found: dict[str, _Declared] = {}
        for module in self._modules:
            for value in vars(module).values():
                if not isinstance(value, kind):
                    continue
                name = str(getattr(value, "name", ""))
                if found.setdefault(name, value) is not value:
                    raise FeatureError(f"{self.folder}: {kind.__name__} {name!r} is declared twice")
        return found

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
        except HyperfeastError:
            raise
        except Exception as error:
            raise FeatureError(
                f"{self.folder / name}.py does not import: {type(error).__name__}: {error}"
            ) from error
        if Path(module.__file__ or "").parent != self.folder:
            taken_by = module.__file__ or "Python itself"
            raise FeatureError(
                f"{self.folder / name}.py: the name is taken by {taken_by}: rename it"
            )
        return module
