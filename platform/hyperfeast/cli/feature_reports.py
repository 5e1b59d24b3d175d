"""`hyperfeast features check | report`: whether rules are honest, and what came of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyperfeast.cli import console
from hyperfeast.errors import FeatureError

if TYPE_CHECKING:
    from hyperfeast.app import App
    from hyperfeast.features import FeatureSet
    from hyperfeast.features.verdict import Verdict
    from hyperfeast.quality import FeatureQuality
    from hyperfeast.reports.feature_content import FeatureReport, ModelReport, SetReport
    from hyperfeast.training.importance import Measured

_MOST_LINES = 12

_Name = Annotated[
    str | None,
    typer.Argument(help="A feature set, or NAME_v2 for one version of it; all by default."),
]


def register(features: typer.Typer) -> None:
    """Add the commands to `hyperfeast features`."""
    features.command()(check)
    features.command()(report)


def check(
    name: _Name = None,
    moments: Annotated[
        int, typer.Option(min=1, help="At how many moments what comes later is changed.")
    ] = 12,
    seed: Annotated[int, typer.Option(help="The same one tries the same.")] = 7,
    no_database: Annotated[
        bool, typer.Option("--no-database", help="Try made-up bars alone; needs no server.")
    ] = False,
    as_json: console.AsJson = False,
) -> None:
    """Try whether rules look ahead, and are the same whoever computes them. Exit code 1 if one is not."""
    from hyperfeast.app import App

    app = App()
    verdicts = _checked(app, app.repo.chosen(name), moments, seed, no_database=no_database)
    if as_json:
        console.print_json([_plain(one) for one in verdicts])
    else:
        _print_verdicts(verdicts)
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    if findings:
        more = f" (and {len(findings) - 1} more; --json shows all)" if len(findings) > 1 else ""
        raise FeatureError(findings[0].message + more)


def report(
    name: _Name = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page to this file as well.")
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Show what was computed: missing, out of bounds, stale and alike features, and what models use."""
    from hyperfeast.app import App
    from hyperfeast.training.importance import history

    app = App()
    with console.progress_bar("feature sets") as progress:
        found = app.measure_features(name, progress=progress)
    measured = history(app.database)
    if html is not None:
        from hyperfeast.reports.features import write_feature_report

        write_feature_report(as_report(app, found, measured), html)
    if as_json:
        console.print_json({"sets": [_summary(one) for one in found], "importance": measured})
        return
    for one in found:
        _print_quality(one)
    _print_importance(measured)
    if html is not None:
        console.say(f"report: {html}")


def as_report(
    app: "App", found: "Sequence[FeatureQuality]", measured: "Sequence[Measured]"
) -> "FeatureReport":
    """What was measured as the page takes it."""
    from hyperfeast import clock
    from hyperfeast.models import ModelSpec
    from hyperfeast.reports.feature_content import FeatureReport

    return FeatureReport(
        created_at=clock.now(),
        sets=[_set_report(one) for one in found],
        models=[_model_report(name, measured) for name in sorted(app.repo.declared(ModelSpec))],
    )


def _checked(
    app: "App", sets: "Sequence[FeatureSet]", moments: int, seed: int, *, no_database: bool
) -> "list[Verdict]":
    from hyperfeast.features.check import check as try_set

    database = None if no_database else app.database
    verdicts = []
    for one in sets:
        with console.progress_bar(str(one)) as progress:
            verdicts.append(try_set(one, database, moments=moments, seed=seed, progress=progress))
    return verdicts


def _print_verdicts(verdicts: "Sequence[Verdict]") -> None:
    console.print_table(
        ["feature set", "trials", "honest", "findings"],
        [
            [
                one.feature_set,
                one.trials,
                one.passed if one.trials else None,
                ", ".join(f"{found.feature} {found.fault.value}" for found in one.findings),
            ]
            for one in verdicts
        ],
    )
    for one in verdicts:
        for line in (*(found.message for found in one.findings), *one.untried):
            console.say(line)


def _plain(one: "Verdict") -> dict[str, Any]:
    return {
        "feature_set": one.feature_set,
        "passed": one.passed,
        "trials": one.trials,
        "findings": one.findings,
        "untried": one.untried,
    }


def _set_report(one: "FeatureQuality") -> "SetReport":
    from hyperfeast.features.bounds import bounds_text
    from hyperfeast.quality import FeatureRules
    from hyperfeast.quality.features import null_limit
    from hyperfeast.reports import feature_content as page

    rules = FeatureRules()
    stale = set(one.stale)
    return page.SetReport(
        name=one.scope,
        command=one.feature_set.view,
        description=one.feature_set.description,
        rows=one.rows,
        seen=one.seen,
        freshness_days=one.feature_set.freshness.total_seconds() / 86_400,
        features=[
            page.FeatureRow(
                name=found.feature,
                description=feature.description,
                rows=found.rows,
                nulls=found.nulls,
                null_limit=null_limit(feature, rules),
                violations=found.violations,
                bounds=bounds_text(feature),
                mean=found.mean,
                std=found.std,
                quantiles=tuple(found.quantiles[place] for place in (0, 2, 4))
                if found.quantiles
                else (),
                counts=found.histogram.counts if found.histogram else (),
            )
            for feature, found in zip(one.feature_set.features, one.profiles, strict=False)
        ],
        months=[
            page.NullCell(cell.feature, cell.month, cell.rows, cell.nulls) for cell in one.months
        ],
        stale=[
            page.StaleRow(
                row.entity,
                row.newest,
                row.behind.total_seconds() / 86_400,
                stale=row in stale,
                ended=row.ended,
            )
            for row in one.staleness
        ],
        correlated=one.correlated,
        correlations=one.correlations,
        pairs=[(pair.first, pair.second, pair.correlation) for pair in one.pairs],
        labels=[
            page.LabelRow(row.model, row.horizon, row.feature, row.correlation, suspect=row.suspect)
            for row in one.associations
        ],
        leakage=rules.leakage,
        correlated_from=rules.correlated,
    )


def _model_report(name: str, measured: "Sequence[Measured]") -> "ModelReport":
    from hyperfeast.reports.feature_content import ImportanceRow, ModelReport

    return ModelReport(
        name,
        [
            ImportanceRow(one.version, one.method, one.feature, one.importance, one.rank)
            for one in measured
            if one.model == name
        ],
    )


def _summary(one: "FeatureQuality") -> dict[str, Any]:
    return {
        "feature_set": one.scope,
        "rows": one.rows,
        "seen": one.seen,
        "warm": one.warm,
        "features": one.profiles,
        "stale": one.stale,
        "pairs": one.pairs,
        "leakage": one.associations,
    }


def _print_quality(one: "FeatureQuality") -> None:
    if not one.seen:
        console.say(
            f"{one.scope} has no rows yet: `hyperfeast features compute {one.feature_set.view}` computes them"
        )
        return
    console.print_table(
        ["feature", "missing", "mean", "std", "median", "out of bounds"],
        [
            [
                row.feature,
                f"{row.null_rate or 0:.2%}",
                row.mean,
                row.std,
                row.quantiles[2] if row.quantiles else None,
                row.violations,
            ]
            for row in one.profiles
        ],
        title=f"{one.scope}: {one.warm:,} of {one.seen:,} rows have their history",
    )
    if one.suspects:
        console.print_table(
            ["feature", "model", "rank correlation with its label"],
            [[row.feature, row.model, row.correlation] for row in one.suspects[:_MOST_LINES]],
            title="Leakage suspects",
        )
    if one.pairs:
        console.print_table(
            ["feature", "as good as", "rank correlation"],
            [[row.first, row.second, row.correlation] for row in one.pairs[:_MOST_LINES]],
            title=f"Alike: {len(one.pairs):,} pairs",
        )
    if one.stale:
        console.print_table(
            ["entity", "newest row"],
            [[row.entity, row.newest] for row in one.stale[:_MOST_LINES]],
            title=f"Stale: {len(one.stale):,} of {len(one.staleness):,} entities",
        )


def _print_importance(measured: "Sequence[Measured]") -> None:
    """Of each model's newest version the ranks by each method."""
    for model in dict.fromkeys(one.model for one in measured):
        own = [one for one in measured if one.model == model]
        newest = max(one.version for one in own)
        ranks = {(one.feature, one.method): one.rank for one in own if one.version == newest}
        features = sorted(
            {feature for feature, _ in ranks}, key=lambda one: ranks[one, "permutation"]
        )
        console.print_table(
            ["feature", "permutation", "gain", "shap"],
            [
                [
                    feature,
                    *(ranks.get((feature, method)) for method in ("permutation", "gain", "shap")),
                ]
                for feature in features[:_MOST_LINES]
            ],
            title=f"Importance in {model} v{newest}, by rank",
        )
