"""Whether a stock's price will be higher five sessions from now."""

from datetime import timedelta

from hyperfeast.models import ModelSpec

# Shallow trees, many rows a leaf and slow learning: daily returns are almost all noise, and labels that
# overlap by four of five sessions make a hundred rows tell no more than twenty would.
market_direction = ModelSpec(
    name="market_direction",
    feature_service="market_direction_v1",
    horizon=5,
    label="direction",
    parameters={
        "max_depth": 2,
        "eta": 0.02,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "min_child_weight": 200,
    },
    rounds=50,
    seed=7,
    folds=5,
    freshness=timedelta(days=4),
)
