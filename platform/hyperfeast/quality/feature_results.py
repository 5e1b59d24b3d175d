"""The quality of a feature set's rows as check results, for `data_quality_results`."""

from collections.abc import Iterable, Sequence
from typing import Any

from hyperfeast.db import Database
from hyperfeast.features import FeatureSet
from hyperfeast.quality import invariants
from hyperfeast.quality.features import FeatureQuality, FeatureRules, Label, measure, null_limit
from hyperfeast.quality.results import Result, store

_EXAMPLES = 5


def check_features(
    database: Database,
    feature_sets: Iterable[FeatureSet],
    labels: Sequence[Label] = (),
    *,
    rules: FeatureRules | None = None,
) -> list[Result]:
    """Measure what was computed of every set, and keep the results.

    A set whose table is not what is declared is left to the check `types`.

    Args:
        database: where the rows are.
        feature_sets: the declared ones.
        labels: what models are to foresee.
        rules: what looks wrong.
    """
    found = [
        result
        for one in feature_sets
        if invariants.of_feature_types(database, one).passed
        for result in results(measure(database, one, labels, rules=rules), rules)
    ]
    store(database, found)
    return found


def results(quality: FeatureQuality, rules: FeatureRules | None = None) -> list[Result]:
    """One result a check: null_rate, range, staleness, distribution, correlation, leakage.

    Distribution and correlation inform, and always pass. Nothing is said of a set without rows.
    """
    if not quality.seen:
        return []
    rules = rules or FeatureRules()
    return [
        _null_rate(quality, rules),
        _range(quality),
        _staleness(quality),
        _distribution(quality),
        _correlation(quality, rules),
        _leakage(quality, rules),
    ]


def _null_rate(quality: FeatureQuality, rules: FeatureRules) -> Result:
    limits = {one.name: null_limit(one, rules) for one in quality.feature_set.features}
    rates = {one.feature: one.null_rate or 0.0 for one in quality.profiles}
    beyond = {name: f"{rate:.1%}" for name, rate in rates.items() if rate > limits[name]}
    return _measured(
        quality,
        "null_rate",
        "of the rows that have all the history that they need, no more lack a value than declared",
        beyond,
        {"limits": limits},
        null_rates=rates,
    )


def _range(quality: FeatureQuality) -> Result:
    declared = {one.name: list(one.bounds) for one in quality.feature_set.features}
    bounds = {name: found for name, found in declared.items() if found != [None, None]}
    beyond = {
        one.feature: f"{one.violations:,} rows from {one.least} to {one.greatest}"
        for one in quality.profiles
        if one.violations
    }
    return _measured(
        quality,
        "range",
        "every value is within the bounds that its feature declares",
        beyond,
        {"bounds": bounds},
        violations={one.feature: one.violations for one in quality.profiles if one.violations},
    )


def _staleness(quality: FeatureQuality) -> Result:
    stale = quality.stale
    return _measured(
        quality,
        "staleness",
        "no entity's newest row is further behind the set's newest than a row may be old",
        {one.entity: f"newest of {one.newest:%Y-%m-%d %H:%M} UTC" for one in stale},
        {"freshness_s": quality.feature_set.freshness.total_seconds()},
        entities=len(quality.staleness),
        newest=quality.newest,
    )


def _distribution(quality: FeatureQuality) -> Result:
    found = {
        one.feature: {
            "mean": one.mean,
            "std": one.std,
            "least": one.least,
            "quantiles": one.quantiles,
            "greatest": one.greatest,
        }
        for one in quality.profiles
    }
    return _measured(quality, "distribution", "nothing: it informs", {}, {}, features=found)


def _correlation(quality: FeatureQuality, rules: FeatureRules) -> Result:
    pairs = [[one.first, one.second, one.correlation] for one in quality.pairs]
    threshold = {"threshold": rules.correlated}
    return _measured(quality, "correlation", "nothing: it informs", {}, threshold, pairs=pairs)


def _leakage(quality: FeatureQuality, rules: FeatureRules) -> Result:
    suspects = {
        f"{one.feature} of {one.model}": f"rank correlation {one.correlation or 0:.2f} with the return over "
        f"{one.horizon} sessions"
        for one in quality.suspects
    }
    found = [
        {"model": one.model, "feature": one.feature, "correlation": one.correlation}
        for one in quality.associations
    ]
    return _measured(
        quality,
        "leakage",
        "no feature foresees a model's label better than anything honest does",
        suspects,
        {"threshold": rules.leakage, "standard_errors": rules.leakage_score},
        associations=found,
    )


def _measured(
    quality: FeatureQuality,
    check: str,
    holds: str,
    broken: dict[str, str],
    expectation: dict[str, Any],
    **more: Any,
) -> Result:
    """A result that passes if nothing is broken."""
    examples = dict(list(broken.items())[:_EXAMPLES])
    return Result(
        check,
        quality.scope,
        passed=not broken,
        observed={
            "seen": quality.seen,
            "warm": quality.warm,
            "broken": len(broken),
            "examples": examples,
            **more,
        },
        expectation={"engine": "polars", "holds": holds, **expectation},
    )
