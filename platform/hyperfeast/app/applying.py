"""Puts what a repository declares into effect, without a moment at which nothing is served."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyperfeast.features import plan

if TYPE_CHECKING:
    from hyperfeast.app.composition import App


@dataclass(frozen=True)
class FeaturesApplied:
    """What was done.

    Attributes:
        created: tables that were made.
        recorded: sets that were put on record, or whose words were.
        retired: sets that are computed no more; their tables and rows stay.
        backfilled: sets that were computed and brought online before a service was switched to them.
        applied: the feature views and services that Feast has now.
    """

    created: list[str]
    recorded: list[str]
    retired: list[str]
    backfilled: list[str]
    applied: list[str]


def apply_features(app: "App", say: Callable[[str], None]) -> FeaturesApplied:
    """Make tables, put sets on record, register views and services with Feast.

    A service that is switched to another view goes on serving the old one until the new one has been
    computed and is online.

    Args:
        app: the platform.
        say: told what is being done.

    Raises:
        FeatureError: a rule was changed under its version, a table is not what is declared, or a service
            would be cut off.
    """
    sets = list(app.repo.feature_sets.values())
    say("making tables")
    done = plan.apply(app.database, sets)
    say("comparing with Feast (it takes some seconds to load)")
    app.feast.plan().refuse_gaps()
    backfilled: list[str] = []

    def bring_online(views: Sequence[str]) -> None:
        for one in sets:
            if one.view in views:
                say(f"computing {one}, which is to be served")
                app.compute_features(one.view)
                backfilled.append(one.view)
        say("bringing it online")
        app.materialize()

    applied = app.feast.apply(ready=bring_online)
    retired = plan.apply(app.database, sets, retire=True).retired
    return FeaturesApplied(done.created, done.recorded, retired, backfilled, applied)
