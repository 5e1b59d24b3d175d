"""What belongs to one user: all of it in a file, and none of it anywhere once the user is forgotten."""

import json
import logging
import random
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
import structlog
import typer
from psycopg import sql
from typer.testing import CliRunner, Result

from hyperfeast.app import App, configure_logs
from hyperfeast.baselines import BaselineExtractor
from hyperfeast.cli import users
from hyperfeast.db import Database
from hyperfeast.errors import HyperfeastError, ServerUnreachable, UsageError
from hyperfeast.ingest import Metrics, ingest_metrics
from hyperfeast.ingest.mirror import compare as compare_mirror
from hyperfeast.settings import Settings
from hyperfeast.users import Forgotten, forget_user
from hyperfeast.users import forgetting as forgetting_module

USER = UUID("6f1c6f0e-3a55-4f0b-9b5c-0c6a3f1d2e4b")
OTHER = UUID("0a4be2f7-58d5-45d4-a6c7-55d33a1de6f5")
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
# So odd that wherever they are found, they are this user's.
REFUSED, SECRET = "8.1234567e307", 61.7283945


def app_on(database: Database, redis_url: str, folder: Path) -> App:
    return App(
        Settings(
            home=folder / "home",
            postgres_dsn=database.dsn,  # type: ignore[arg-type]
            redis_url=redis_url,  # type: ignore[arg-type]
            dual_write=folder / "mirror",
            baselines=f"{folder / 'baselines'},timescale",
        )
    )


def readings(seed: int) -> pl.DataFrame:
    rng = random.Random(seed)
    moments = [TODAY - timedelta(hours=5 * step) for step in range(1, 200)]
    return pl.DataFrame({"ts": moments, "value": [rng.gauss(66, 6) for _ in moments]})


@contextmanager
def living(
    database: Database, redis_url: str, folder: Path, *, layouts: bool = True
) -> Iterator[App]:
    """A platform in which two users have left something wherever users can."""
    app = app_on(database, redis_url, folder)
    for number, user in enumerate((USER, OTHER)):
        for metric in ("heart_rate", "glucose"):
            app.ingest(
                [readings(number), readings(number + 2)],  # the second corrects the first
                Metrics(source=f"{user}.csv", user=user, metric=metric, device="ring"),
            )
    _refused(app)
    app.refresh_baseline_windows()
    for user in (USER, OTHER):
        app.baselines.save(user, BaselineExtractor(database).extract(user))
    for one in ("personal_baseline",):
        app.compute_features(one)
    app.feast.apply()
    app.materialize()
    if layouts:
        app.feast.convert_online("packed")
    _operations(database)
    ingest_metrics(
        database,
        pl.DataFrame({"ts": [TODAY - timedelta(hours=2)], "value": [SECRET]}),
        source="late", user=USER, metric="glucose", device="ring", mirror=app.mirror,
    )  # fmt: skip
    try:
        yield app
    finally:
        app.close()


def _refused(app: App) -> None:
    """Rows that name the user in other ways, and rows that do not at all: the batch does."""
    named = pl.DataFrame(
        {
            "user_id": [str(USER).upper(), USER.hex, f"{{{USER}}}", str(OTHER)],
            "metric": "glucose",
            "ts": TODAY - timedelta(days=1),
            "value": ["many", "1e999", "1", "few"],
        }
    )
    ingest_metrics(app.database, named, source="refused", mirror=app.mirror)
    nameless = pl.DataFrame({"ts": [TODAY - timedelta(days=1)], "value": [REFUSED]})
    for number, user in enumerate((USER, OTHER)):
        ingest_metrics(
            app.database, nameless.with_columns(note=pl.lit(number)), source="x", user=user, metric="glucose"
        )  # fmt: skip


def _operations(database: Database) -> None:
    """What running the platform leaves: a logged vector, jobs, a failed batch, a training, a finding."""
    for user in (USER, OTHER):
        about = {"id": str(user), "hex": user.hex, "both": [str(user), str(uuid4())]}
        database.execute(
            "INSERT INTO signals (label, pred, proba, symbol, tf, features, feature_ages, model_id, request_id, "
            "latency_ms) SELECT 'HOLD', 0, 0.5, s, '1d', '{\"z_score\": 1.5}', '{}', gen_random_uuid(), "
            "gen_random_uuid(), 1 FROM unnest(ARRAY[%(id)s, %(id)s || '/glucose']) AS s",
            about,
        )
        database.execute(
            "INSERT INTO ingest_batches (source, status, error, idempotency_key) "
            "VALUES ('api', 'FAILED', 'user ' || upper(%(id)s) || ' is odd', %(id)s || '-1')",
            about,
        )
        database.execute(
            "INSERT INTO training_runs (model_name, symbols, training_params, feature_service, "
            "definition_hashes, random_seed) VALUES ('m', %(both)s, '{}', 's', '{}', 1)",
            about,
        )
        database.execute(
            'INSERT INTO data_quality_results ("check", scope, passed, observed) '
            "VALUES ('gate', 'user_baseline_raw', false, jsonb_build_object('examples', %(hex)s::text))",
            about,
        )
        database.execute(
            "INSERT INTO feature_corrections (feature_set, version, entity, first_event, last_event, revised, "
            "features, recorded_at) VALUES ('personal_baseline', 1, ARRAY[%(id)s, 'glucose'], now(), now(), 1, "
            "'{z_score}', now())",
            about,
        )
    database.execute(
        "CREATE TABLE IF NOT EXISTS procrastinate_jobs (id int, args jsonb, queueing_lock text UNIQUE)"
    )
    database.execute(
        "CREATE TABLE logged_features (user_id text, z_score float8); "
        f"INSERT INTO logged_features VALUES ('{USER}', 1), ('{OTHER}', 2)"
    )
    for number, user in enumerate((USER, OTHER)):
        database.execute(
            "INSERT INTO procrastinate_jobs VALUES (%s, %s, %s)",
            [number, json.dumps({"keys": [str(user), str(uuid4())]}), f"t:{user}"],
        )


def mentions(database: Database, user: UUID) -> dict[str, int]:
    """Every table of the database, whichever schema, with rows that have the id in any spelling."""
    tables = database.fetch(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class AS c "
        "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') "
        "AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    )
    found = {}
    for table in tables:
        statement = sql.SQL(
            "SELECT count(*) AS n FROM {} AS t WHERE replace(lower(t::text), '-', '') ~ {}"
        ).format(sql.Identifier(*table.values()), sql.Literal(user.hex))
        if count := database.fetch(statement)[0]["n"]:
            found[table["name"]] = count
    return found


def in_redis(url: str, user: UUID) -> list[bytes]:
    """Keys that have the id, or whose value has it."""
    import redis

    client = redis.Redis.from_url(url)
    texts = [str(user).encode(), user.hex.encode()]
    return [
        key
        for key in client.scan_iter()
        if any(text in key.lower() or text in (client.dump(key) or b"").lower() for text in texts)
    ]


def in_files(folder: Path, user: UUID) -> list[Path]:
    """Files that have the id in their path or in their content."""
    texts = [str(user).encode(), user.hex.encode()]
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".parquet":
            content = str(pl.read_parquet(path).rows()).encode()
        if any(text in str(path).encode() or text in content.lower() for text in texts):
            found.append(path)
    return found


def contents(database: Database) -> dict[str, list[str]]:
    """All rows that are the other user's, as text."""
    rows = {}
    for name in mentions(database, OTHER):
        statement = sql.SQL(
            "SELECT t::text AS row FROM {} AS t WHERE t::text ~* {} ORDER BY 1"
        ).format(sql.Identifier(name), sql.Literal(str(OTHER)))
        rows[name] = [row["row"] for row in database.fetch(statement)]
    return rows


@pytest.mark.slow
def test_a_forgotten_user_is_nowhere_but_in_the_receipt(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    with living(database, redis_url, tmp_path) as app:
        before, others = mentions(database, USER), contents(database)
        assert {
            "user_baseline_raw", "user_baseline_revisions", "user_baseline_daily_kept",
            "user_baseline_windows", "features_personal_baseline_v1", "baseline_history", "quarantine",
            "signals", "dirty_days", "reading_changes", "ingest_batches", "training_runs",
            "data_quality_results", "feature_corrections", "procrastinate_jobs", "logged_features",
        } <= set(before)  # fmt: skip
        redis_before = len(in_redis(redis_url, OTHER))
        assert len(in_redis(redis_url, USER)) == redis_before == 4
        assert len(in_files(tmp_path, USER)) > 3
        nameless = "SELECT count(*) AS n FROM quarantine WHERE row->>'value' = %s"
        assert database.fetch(nameless, [REFUSED])[0]["n"] == 2

        done = app.forget_user(USER)

        assert mentions(database, USER).keys() == {"audit_log"}
        assert in_redis(redis_url, USER) == []
        assert in_files(tmp_path, USER) == []
        assert database.fetch(nameless, [REFUSED])[0]["n"] == 1
        assert done.deleted["online"] == 4
        assert done.deleted["user_baseline_raw"] == 399
        assert done.deleted["copies"] == 1 + 4 * 199
        # All others are as they were.
        assert contents(database) == others
        assert len(in_redis(redis_url, OTHER)) == redis_before
        assert compare_mirror(database, tmp_path / "mirror").mismatched == 0
        app.refresh_aggregates()
        app.compute_features("personal_baseline")
        assert mentions(database, USER).keys() == {"audit_log"}
        _check_receipts(database)
        assert app.forget_user(USER) == Forgotten(USER, {}, {})
        assert len(_receipts(database, "forgot user")) == 1


def _receipts(database: Database, action: str) -> list[Any]:
    return database.fetch("SELECT * FROM audit_log WHERE action = %s", [action])


def _check_receipts(database: Database) -> None:
    """They say how many rows of which table, and nothing else."""
    (receipt,) = _receipts(database, "forgot user")
    assert receipt["object"] == f"user/{USER}"
    counts = [*receipt["after"]["deleted"].values(), *receipt["after"]["redacted"].values()]
    assert all(isinstance(one, int) for one in counts)
    log = str(database.fetch("SELECT t::text FROM audit_log AS t"))
    assert str(SECRET) not in log
    assert REFUSED not in log


def test_what_was_interrupted_goes_on(
    database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with living(database, redis_url, tmp_path, layouts=False) as app:
        steps = ["forget_entity", "without_user", "_receipt"]
        for step in steps:

            def killed(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                where: Any = {
                    "forget_entity": app.feast,
                    "without_user": forgetting_module.copies,
                    "_receipt": forgetting_module,
                }[step]
                patch.setattr(where, step, killed)
                with pytest.raises(KeyboardInterrupt):
                    app.forget_user(USER)
            assert _receipts(database, "forgot user") == []
        assert len(_receipts(database, "deleted user's rows")) == 1
        app.forget_user(USER)
        assert mentions(database, USER).keys() == {"audit_log"}
        assert in_redis(redis_url, USER) == []
        assert in_files(tmp_path, USER) == []
        assert len(_receipts(database, "forgot user")) == 1


def test_with_redis_down_it_says_so_and_is_done_the_next_time(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    ingest_metrics(database, readings(1), source="x", user=USER, metric="glucose")
    app = app_on(database, "redis://127.0.0.1:9", tmp_path)
    with pytest.raises(ServerUnreachable):
        app.forget_user(USER)
    app.close()
    app = app_on(database, redis_url, tmp_path)
    assert app.forget_user(USER).found == 0
    app.close()
    assert len(_receipts(database, "forgot user")) == 1


class _Nothing:
    """Nobody is online."""

    def of_entity(self, value: str) -> list[Any]:  # noqa: ARG002
        return []

    def forget_entity(self, value: str) -> int:  # noqa: ARG002
        return 0


def test_a_reading_that_comes_meanwhile_goes_as_well(database: Database) -> None:
    sent = 0

    class Sending(_Nothing):
        """A device sends once more while its rows are deleted."""

        def forget_entity(self, value: str) -> int:
            nonlocal sent
            if sent < 2:
                ingest_metrics(database, readings(sent), source="x", user=value, metric="glucose")
                sent += 1
            return 0

    forget_user(database, USER, online=Sending())
    assert sent == 2
    assert mentions(database, USER).keys() == {"audit_log"}


def test_one_who_does_not_stop_sending_is_named(database: Database) -> None:
    class Sending(_Nothing):
        def forget_entity(self, value: str) -> int:
            ingest_metrics(database, readings(0), source="x", user=value, metric="glucose")
            return 0

    with pytest.raises(HyperfeastError, match=r"still come in .* stop what sends them"):
        forget_user(database, USER, online=Sending())


def test_a_copy_that_is_damaged_is_named_and_nothing_of_it_lost(
    database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "user_baseline_raw"
    folder.mkdir()
    damaged = folder / f"{uuid4()}.parquet"
    damaged.write_bytes(b"PAR1 and then")
    with pytest.raises(HyperfeastError, match=re.escape(str(damaged))):
        forget_user(database, USER, online=_Nothing(), copies_in=tmp_path)
    assert damaged.read_bytes() == b"PAR1 and then"


@pytest.mark.slow
def test_an_export_holds_all_that_would_be_deleted(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    with living(database, redis_url, tmp_path) as app:
        path = tmp_path / "out.zip"
        done = app.export_user(USER, path)
        parts = _parts(path)
        assert done.rows == {name: len(rows) for name, rows in parts.items() if name != "manifest"}
        (manifest,) = parts["manifest"]
        assert manifest["user_id"] == str(USER)
        assert any(row["value"] == SECRET for row in parts["user_baseline_raw"])
        assert {row["keys"]["metric"] for row in parts["online"]} == {"glucose", "heart_rate"}
        served = parts["online"][0]["features"]
        assert isinstance(served["day_mean"], float)
        assert [one["baseline"]["schema"] for one in parts["baselines"]] == [1]
        text = str(parts)
        assert str(OTHER) not in text
        deleted = app.forget_user(USER).deleted
        assert {name: done.rows[name] for name in deleted if name != "online"} == {
            name: count for name, count in deleted.items() if name != "online"
        }
        again = app.export_user(USER, path)
        assert set(again.rows) == {"audit_log"}


def _parts(path: Path) -> dict[str, list[Any]]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {
            Path(name).stem: [json.loads(line) for line in archive.read(name).splitlines()]
            for name in archive.namelist()
        }


def test_an_export_that_fails_leaves_nothing(
    database: Database, redis_url: str, tmp_path: Path
) -> None:
    app = app_on(database, redis_url, tmp_path)
    with pytest.raises(UsageError, match="--to"):
        app.export_user(USER, tmp_path / "absent" / "out.zip")
    broken = app_on(database, "redis://127.0.0.1:9", tmp_path)
    with pytest.raises(ServerUnreachable):
        broken.export_user(USER, tmp_path / "out.zip")
    assert list(tmp_path.glob("*out.zip*")) == []


def test_no_value_gets_into_a_log(
    database: Database,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is logged at the highest level while rows are taken in, refused and corrected."""
    before = structlog.get_config()
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    try:
        configure_logs("debug")
        for handler in handlers:
            root.addHandler(handler)
        with caplog.at_level(logging.DEBUG):
            app = App(Settings(home=tmp_path, postgres_dsn=database.dsn))  # type: ignore[arg-type]
            for value in (SECRET, SECRET + 1, REFUSED, "sixty", -SECRET * 1e300):
                rows = pl.DataFrame({"ts": [TODAY - timedelta(days=3)], "value": [str(value)]})
                app.ingest([rows], Metrics(source="x", user=USER, metric="glucose"))
            app.compute_features("personal_baseline")
            app.close()
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(level)
    said = "".join(capfd.readouterr()) + caplog.text
    for value in (str(SECRET), str(SECRET + 1), REFUSED, "sixty", "6.17283945"):
        assert value not in said
    # The quarantine keeps a refused row as it came: that is what it is for.
    assert {row["row"]["value"] for row in database.fetch("SELECT row FROM quarantine")} >= {
        REFUSED,
        "sixty",
    }
    batches = str(database.fetch("SELECT error, refused FROM ingest_batches"))
    assert not any(value in batches for value in (str(SECRET), REFUSED, "sixty"))


@pytest.fixture
def _setting(
    database: Database, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYPERFEAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HYPERFEAST_POSTGRES_DSN", database.dsn)
    monkeypatch.setenv("HYPERFEAST_REDIS_URL", redis_url)
    monkeypatch.setenv(
        "HYPERFEAST_FEATURE_REPO", str(Path(__file__).resolve().parents[2] / "feature_repo")
    )
    monkeypatch.setenv("COLUMNS", "80")


def run(*arguments: str, stdin: str | None = None) -> Result:
    app = typer.Typer()
    users.register(app)
    return CliRunner().invoke(app, ["users", *arguments], input=stdin)


@pytest.mark.usefixtures("_setting")
def test_the_commands(database: Database, tmp_path: Path) -> None:
    ingest_metrics(database, readings(1), source="x", user=USER, metric="glucose")
    shown = run("export", str(USER))
    assert "user_baseline_raw" in shown.output
    assert (tmp_path / f"{USER}.zip").exists()
    as_json = json.loads(run("export", str(USER), "--to", "b.zip", "--json").output)
    assert as_json["rows"]["user_baseline_raw"] == 199
    refused = run("forget", str(USER))
    assert isinstance(refused.exception, UsageError)
    assert "nobody is here to ask: say --yes" in str(refused.exception)
    assert len(_parts(tmp_path / "b.zip")["user_baseline_raw"]) == 199
    done = run("forget", str(USER).upper(), "--yes")
    assert "is forgotten; audit_log has the receipt" in done.output
    assert "nothing of user" in run("forget", str(USER), "--yes").output
    again = json.loads(run("forget", str(USER), "--yes", "--json").output)
    assert again == {"user_id": str(USER), "deleted": {}, "redacted": {}}
    assert max(map(len, done.output.splitlines())) <= 80


@pytest.mark.usefixtures("_setting")
@pytest.mark.parametrize("typed", ["", "yes", str(OTHER)])
def test_it_asks_and_takes_nothing_but_the_id(
    database: Database, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    ingest_metrics(database, readings(1), source="x", user=USER, metric="glucose")
    monkeypatch.setattr("hyperfeast.cli.users._is_asked", lambda: True)
    refused = run("forget", str(USER), stdin=f"{typed}\n")
    assert refused.exit_code != 0
    assert mentions(database, USER)
    done = run("forget", str(USER), stdin=f"{str(USER).upper()}\n")
    assert done.exit_code == 0
    assert mentions(database, USER).keys() == {"audit_log"}


@pytest.mark.usefixtures("_setting")
@pytest.mark.parametrize("user", ["AAPL", "6f1c6f0e", "../6f1c6f0e", "6f1c'; DROP TABLE x"])
@pytest.mark.parametrize("command", ["export", "forget"])
def test_who_is_no_uuid_is_told_so(command: str, user: str) -> None:
    refused = run(command, user, *(["--yes"] if command == "forget" else []))
    assert isinstance(refused.exception, UsageError)
    assert "expected a UUID" in str(refused.exception)
