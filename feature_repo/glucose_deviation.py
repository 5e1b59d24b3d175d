"""Whether the mean glucose of the next day will be out of its usual range."""

from datetime import timedelta

from hyperfeast.models import Deviation, ModelSpec

# Two hundred days are few: trees of one split, many days a leaf and few of them. What is usual is measured by
# the deviation of the days' means: single readings scatter so widely that hardly a day's mean leaves theirs.
glucose_deviation = ModelSpec(
    name="glucose_deviation",
    feature_service="glucose_deviation_v1",
    entity="user",
    horizon=1,
    label=Deviation("personal_baseline", "day_z_score", threshold=1.0, where={"metric": "glucose"}),
    parameters={
        "max_depth": 1,
        "eta": 0.05,
        "min_child_weight": 5,
        "subsample": 0.8,
    },
    rounds=40,
    seed=7,
    folds=4,
    freshness=timedelta(days=2),
)
