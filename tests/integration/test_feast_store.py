"""Feast behind our few calls: a registry of the team's own choice, and a clean end."""

from pathlib import Path

import pytest

from hyperfeast.db import Database
from hyperfeast.errors import FeatureError
from hyperfeast.stores.feast_store import FeastStore

_STORE = """\
project: hyperfeast
provider: local
registry: {registry}
offline_store: {{type: hyperfeast.stores.PlatformOfflineStore}}
online_store: {{type: hyperfeast.stores.PlatformOnlineStore}}
entity_key_serialization_version: 3
"""


def make(folder: Path, database: Database, redis_url: str, registry: str) -> FeastStore:
    (folder / "feature_store.yaml").write_text(_STORE.format(registry=registry))
    return FeastStore(folder, postgres_dsn=database.dsn, redis_url=redis_url)


@pytest.mark.parametrize("kind", ["file", "database"])
def test_a_registry_of_any_kind_is_used_and_closed(
    tmp_path: Path, database: Database, redis_url: str, kind: str
) -> None:
    in_use = "{registry_type: sql, path: 'postgresql+psycopg:///?plugin=hyperfeast'}"
    registry = str(tmp_path / "registry.db") if kind == "file" else in_use
    store = make(tmp_path, database, redis_url, registry)
    with pytest.raises(FeatureError, match="features apply"):
        store.online("nothing", [{"symbol": "AAA"}])
    store.close()
    tables = database.fetch("SELECT to_regclass('feature_views') AS found")
    assert (tables[0]["found"] is None) is (kind == "file")


def test_a_key_that_feast_does_not_know_is_named(
    tmp_path: Path, database: Database, redis_url: str
) -> None:
    store = make(tmp_path, database, redis_url, "{registry_type: sql, path: 7}")
    with pytest.raises(FeatureError, match=r"feature_store\.yaml: .*path: "):
        store.online("nothing", [{"symbol": "AAA"}])


def test_what_the_environment_has_is_put_in_as_by_feast(
    tmp_path: Path, database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE_THE_REGISTRY_IS", str(tmp_path / "here.db"))
    store = make(tmp_path, database, redis_url, "${WHERE_THE_REGISTRY_IS}")
    store.apply()
    store.close()
    assert (tmp_path / "here.db").exists()


def test_nothing_to_convert_is_an_error_that_names_the_repository(
    tmp_path: Path, database: Database, redis_url: str
) -> None:
    store = make(tmp_path, database, redis_url, str(tmp_path / "registry.db"))
    with pytest.raises(FeatureError, match=f"no feature view online in {tmp_path}: run"):
        store.convert_online("packed")
    store.close()
