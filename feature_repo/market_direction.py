"""Whether a stock's price will be higher five sessions from now."""

from datetime import timedelta

from hyperfeast.models import ModelSpec

# Shallow trees, many rows a leaf and slow learning: daily returns are almost all noise.
market_direction = ModelSpec(
    name="market_direction",
    feature_service="market_direction_v1",
    horizon=5,
    label="direction",
    parameters={
        "max_depth": 3,
        "eta": 0.05,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 20,
    },
    rounds=150,
    seed=7,
    folds=5,
    freshness=timedelta(days=4),
)
