"""The active version of a model, kept loaded and replaced when another becomes active."""

import threading
import time

from hyperfeast.app import App
from hyperfeast.models import active
from hyperfeast.serving import Predictor

_LOOK_AGAIN_AFTER_S = 5.0


class Champion:
    """Loads the active version when it is first asked for; looks for a newer one every 5 seconds."""

    def __init__(self, app: App, model: str) -> None:
        self._app = app
        self._model = model
        self._lock = threading.Lock()
        self._predictor: Predictor | None = None
        self._looked_at = 0.0

    def predictor(self) -> Predictor:
        """The predictor of the version that is active, at most 5 seconds late.

        Raises:
            NoModel: none was trained yet.
        """
        with self._lock:
            current = self._predictor
            if current and time.monotonic() - self._looked_at < _LOOK_AGAIN_AFTER_S:
                return current
            if (
                current is None
                or active(self._app.database, self._model).model_id != current.model.model_id
            ):
                current = self._app.predictor(self._model)
            self._predictor, self._looked_at = current, time.monotonic()
            return current
