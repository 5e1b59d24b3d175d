"""docs/feast.md: every statement of the page, in one session, with the answers that the page shows."""

import contextlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from hyperfeast.db import Database
from hyperfeast.stores.connection import postgres_config, redis_config

# What Feast prints as it works.
_FEASTS = ("Materializing ", "\x1b")
PAGE = Path(__file__).parents[2] / "docs" / "feast.md"


def _blocks() -> list[tuple[str, str]]:
    """The kind and the text of every block of code."""
    page = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert {kind for kind, _ in found} == {"diff", "sh", "sql", "python", "text"}
    return found


def _configured(sign: str, database: Database, redis_url: str) -> dict[str, Any]:
    """The page's feature_store.yaml before (-) or after (+) the change, on the test's own servers."""
    diff = next(text for kind, text in _blocks() if kind == "diff")
    lines = [line[1:] for line in diff.splitlines() if line[0] in (" ", sign)]
    config: dict[str, Any] = yaml.safe_load("\n".join(lines))
    shown = config["offline_store"]
    assert shown.keys() >= postgres_config(database.dsn).keys()
    shown |= postgres_config(database.dsn)
    config["online_store"] |= redis_config(redis_url)
    return config


@pytest.fixture
def folder(
    tmp_path: Path,
    empty_database: Database,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The working folder, with the page's configuration and table."""
    config = _configured("+", empty_database, redis_url)
    (tmp_path / "feature_store.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with psycopg.connect(empty_database.dsn) as connection:
        connection.execute(next(text for kind, text in _blocks() if kind == "sql").encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_worked_example(folder: Path) -> None:
    names: dict[str, Any] = {}
    shown = _blocks()
    answered = 0
    for (kind, code), (next_kind, answer) in zip(shown, [*shown[1:], ("", "")], strict=True):
        if kind != "python":
            continue
        said = _said(code, names)
        if next_kind == "text":
            assert said == answer
            answered += 1
        else:
            assert said == ""
    assert answered == sum(kind == "text" for kind, _ in shown)
    assert (folder / "registry.db").exists()


def test_before_the_change_it_is_feasts_own(
    empty_database: Database, redis_url: str, folder: Path
) -> None:
    """The diff's other side works as well, and sees what ours has written."""
    names: dict[str, Any] = {}
    for kind, code in _blocks():
        if kind == "python" and "as_known_at" in code:
            break
        if kind == "python":
            _said(code, names)
    _said(
        "store.materialize(datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 5, 3, tzinfo=UTC))",
        names,
    )
    before = _configured("-", empty_database, redis_url)
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(before), encoding="utf-8")
    said = _said(
        "stock = FeatureStore('.')\n"
        "print(type(stock._get_provider().online_store).__name__)\n"
        "print(stock.get_online_features(features, [{'user_id': 1}]).to_dict()['resting'])",
        names,
    )
    assert said.splitlines() == ["RedisOnlineStore", "[59.0]"]


def _said(code: str, names: dict[str, Any]) -> str:
    """What a block prints. Feast's bars and warnings are not the page's."""
    out = io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page's own examples
    lines = out.getvalue().splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() and not line.startswith(_FEASTS))
