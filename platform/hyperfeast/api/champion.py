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
        """The predictor of the active version.

        One thread at a time looks for a newer version; the others are given the loaded one
        meanwhile, so that a database that never answers holds up no more than one of them here.

        Raises:
            NoModel: none was trained yet.
            ServerUnreachable: the database does not say which version is active.
        """
        current = self._predictor
        if current is None:
            return self._first()
        if self._is_recent() or not self._lock.acquire(blocking=False):
            return current
        try:
            return self._newest(self._predictor or current)
        finally:
            self._lock.release()

    def _first(self) -> Predictor:
        """Load under the lock: many requests may come first together, and loading takes seconds."""
        with self._lock:
            return self._predictor or self._keep(self._app.predictor(self._model))

    def _newest(self, current: Predictor) -> Predictor:
        model = active(self._app.database, self._model)
        is_current = model.model_id == current.model.model_id
        return self._keep(current if is_current else self._app.predictor(self._model))

    def _keep(self, predictor: Predictor) -> Predictor:
        self._predictor, self._looked_at = predictor, time.monotonic()
        return predictor

    def _is_recent(self) -> bool:
        return time.monotonic() - self._looked_at < _LOOK_AGAIN_AFTER_S
