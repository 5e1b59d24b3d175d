"""What Feast sees: entities, views and services that follow from the feature sets."""

from feast import FeatureService, Project

from hyperfeast.features.views import entity, feature_view
from market_technical import market_technical
from personal_baseline import personal_baseline

hyperfeast = Project(name="hyperfeast", description="Features for time-series models.")

symbol = entity(market_technical.keys[0])
user = entity(personal_baseline.keys[0])
metric = entity(personal_baseline.keys[1])

market_technical_v1 = feature_view(market_technical, [symbol])
personal_baseline_v1 = feature_view(personal_baseline, [user, metric])

# Only what compares across symbols and years: a level in dollars says which stock and which decade
# it is, and a tree would learn just that.
market_direction_v1 = FeatureService(
    name="market_direction_v1",
    features=[
        market_technical_v1[
            [
                "rsi_14",
                "bollinger_percent_b",
                "bollinger_width",
                "log_return_1",
                "log_return_5",
                "log_return_20",
                "realized_volatility_20",
                "volume_z_score_20",
                "distance_to_52w_high",
            ]
        ]
    ],
)
# Distances from what is usual for the person, and how usual that is; no level says who it is.
glucose_deviation_v1 = FeatureService(
    name="glucose_deviation_v1",
    features=[
        personal_baseline_v1[
            [
                "day_z_score",
                "z_score",
                "deviation_1d",
                "deviation_7d",
                "deviation_30d",
                "stability_30d",
                "day_std_30d",
                "std_30d",
                "days_present_30d",
                "n_day",
            ]
        ]
    ],
)
baseline_v1 = FeatureService(name="baseline_v1", features=[personal_baseline_v1])
