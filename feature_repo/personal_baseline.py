"""A person's metric against that person's own trailing 30 days."""

from datetime import timedelta

from hyperfeast.features import Feature, FeatureSet, FeatureType, Key, Relation

personal_baseline = FeatureSet(
    name="personal_baseline",
    version=1,
    description="A day's mean against the 30 days before it, the day itself left out.",
    keys=(
        Key("user", "user_id", "A person, by UUID."),
        Key("metric", "metric", "What is measured: glucose, heart_rate."),
    ),
    source=Relation("personal_baseline"),
    freshness=timedelta(days=2),
    features=(
        Feature("day_mean", "Mean of the day's readings so far; the metric's unit."),
        Feature("mean_30d", "Mean of the readings of the 30 days before; the metric's unit."),
        Feature("std_30d", "Sample deviation of the same readings; the metric's unit."),
        Feature("n_30d", "Number of the same readings.", dtype=FeatureType.INT64),
        Feature("days_present_30d", "Days out of 30 with readings.", dtype=FeatureType.INT64),
        Feature("z_score", "Day's mean less mean_30d, in std_30d. Null without a baseline."),
        Feature(
            "harmonized_z_score",
            "The same around each device's own mean, in the deviation around these means. Null for a new device.",
        ),
        Feature("deviation_1d", "Day's mean less that of the day before; the metric's unit."),
        Feature("deviation_7d", "Day's mean less that of the 7 days before; the metric's unit."),
        Feature("deviation_30d", "Day's mean less that of the 30 days before; the metric's unit."),
        Feature(
            "stability_30d",
            "How alike the days before were: 1 / (1 + deviation of their means / size of mean_30d). "
            "Null of fewer than 3.",
            bounds=(0, 1),
        ),
        Feature(
            "day_std_30d", "Sample deviation of the means of the days before; the metric's unit."
        ),
        Feature(
            "day_z_score",
            "Day's mean less mean_30d, in day_std_30d: as days go. Null without a baseline.",
        ),
        Feature(
            "n_day",
            "Number of the day's readings so far.",
            dtype=FeatureType.INT64,
            bounds=(1, None),
        ),
        Feature(
            "day_hours",
            "Hours of the day until its newest reading; 24 once it is over.",
            bounds=(0, 24),
        ),
    ),
)
