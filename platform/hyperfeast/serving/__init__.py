"""From online features to a logged answer."""

from hyperfeast.serving.predictor import OnlineFeatures, Prediction, Predictor

__all__ = ["OnlineFeatures", "Prediction", "Predictor"]
