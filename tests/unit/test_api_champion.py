"""Who waits when the database is asked which version is active."""

import math
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest

from hyperfeast.api.champion import Champion
from hyperfeast.app import App
from hyperfeast.db import Database
from hyperfeast.errors import ServerUnreachable
from hyperfeast.models import RegisteredModel
from hyperfeast.serving import Predictor

_MODEL = RegisteredModel(
    model_id=uuid4(),
    name="m",
    model_type="xgboost",
    version=1,
    training_date=datetime(2024, 1, 1, tzinfo=UTC),
    metrics={},
    hyperparameters={},
    feature_columns=(),
    feature_service="s",
    artifact_path="p",
    artifact_sha256="0",
    run_id=uuid4(),
    is_active=True,
    created_at=datetime(2024, 1, 1, tzinfo=UTC),
)


class _Loaded(App):
    """A platform whose model is loaded already, on a database of the test's."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.loads = 0

    def predictor(self, name: str) -> Predictor:
        assert name == "m"
        self.loads += 1
        return cast("Predictor", _Answers(_MODEL))


class _Answers:
    """All of a predictor that is looked at here: which model it is of."""

    def __init__(self, model: RegisteredModel) -> None:
        self.model = model


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def champion(silent: socket.socket) -> Champion:
    port = silent.getsockname()[1]
    return Champion(_Loaded(Database(f"host=127.0.0.1 port={port} dbname=x user=x")), "m")


def test_one_request_waits_for_a_silent_database_and_the_others_are_answered(
    champion: Champion, silent: socket.socket
) -> None:
    loaded = champion.predictor()
    champion._looked_at = -math.inf
    errors: list[Any] = []
    looking = threading.Thread(target=_look, args=(champion, errors))
    looking.start()
    connection, _ = silent.accept()
    with connection:
        assert champion.predictor() is loaded
        assert looking.is_alive(), "the answer came while the database was still being asked"
        looking.join()
    assert [type(error) for error in errors] == [ServerUnreachable]


def test_the_next_request_looks_again_after_a_failure(
    champion: Champion, silent: socket.socket
) -> None:
    champion.predictor()
    silent.close()
    champion._looked_at = -math.inf
    for _ in range(2):
        with pytest.raises(ServerUnreachable):
            champion.predictor()


def test_the_first_load_happens_once(champion: Champion) -> None:
    threads = [threading.Thread(target=champion.predictor) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cast("_Loaded", champion._app).loads == 1


def _look(champion: Champion, errors: list[Any]) -> None:
    try:
        champion.predictor()
    except ServerUnreachable as error:
        errors.append(error)
