"""A person's metric against that person's own trailing 30 days."""

from datetime import timedelta

from hyperfeast.features import Feature, FeatureSet, FeatureType, Key, Relation

personal_baseline = FeatureSet(
    name="personal_baseline",
    version=1,
    description="A day's mean against the 30 days before it, known at the end of the UTC day.",
    keys=(
        Key("user", "user_id", "A person, by UUID."),
        Key("metric", "metric", "What is measured: glucose, heart_rate."),
    ),
    source=Relation("personal_baseline"),
    freshness=timedelta(days=2),
    features=(
        Feature("day_mean", "Mean of the day's readings; the metric's unit."),
        Feature("mean_30d", "Mean of the readings of the 30 days before; the metric's unit."),
        Feature("std_30d", "Sample deviation of the same readings; the metric's unit."),
        Feature("n_30d", "Number of the same readings.", dtype=FeatureType.INT64),
        Feature("days_present_30d", "Days out of 30 with readings.", dtype=FeatureType.INT64),
        Feature("z_score", "Day's mean less mean_30d, in std_30d. Null without a baseline."),
    ),
)
