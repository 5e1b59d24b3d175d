"""The compose file agrees with itself, the settings, the command line and the API's metrics.

Compose itself reads the file where its plugin is installed. Everything else here needs neither
Docker nor an engine: the variables are resolved by the few lines below.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import fsspec
import httpx
import pytest
import typer
import yaml
from psycopg.conninfo import conninfo_to_dict
from redis import ConnectionPool

import hyperfeast
from hyperfeast.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text(encoding="utf-8")

SERVERS = {"timescaledb", "redis", "minio", "api", "worker", "prometheus", "grafana"}
ONE_SHOT = {"migrate", "minio-bucket"}
PLATFORM = ["migrate", "api", "worker"]

METRICS = {
    "hyperfeast_requests_total": {"route", "status"},
    "hyperfeast_request_seconds_bucket": {"route", "le"},
    "hyperfeast_request_seconds_count": {"route"},
    "hyperfeast_request_seconds_sum": {"route"},
    "hyperfeast_predictions_total": {"model", "label"},
    "hyperfeast_feature_age_seconds": {"feature_view"},
}

# configs.content, the youngest part of the format that the file uses.
OLDEST_COMPOSE = (2, 23, 1)

PINNED = re.compile(r"[\w./-]+:(v?\d+\.\d+\.\d+[\w.-]*|RELEASE\.\d{4}-\d\d-\d\dT[\d-]+Z)")
REFERENCE = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<name>\w+):-(?P<default>[^{}$]+)\}|(?P<odd>))")
DOCUMENTED = re.compile(r"^#   (HYPERFEAST_\w+) +(\S+)", re.MULTILINE)
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH$")

Compose = dict[str, Any]


def interpolated(node: Any, values: Mapping[str, str]) -> Any:
    """`node` with each `${NAME:-default}` replaced, and `$$` by one dollar sign."""
    if isinstance(node, dict):
        return {key: interpolated(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [interpolated(item, values) for item in node]
    if not isinstance(node, str):
        return node

    def replacement(match: re.Match[str]) -> str:
        if match["odd"] is not None:
            raise AssertionError(f"neither ${{NAME:-default}} nor $$ in {node!r}")
        return "$" if match["escaped"] else values.get(match["name"], match["default"])

    return REFERENCE.sub(replacement, node)


def loaded(**values: str) -> Compose:
    document: Compose = interpolated(yaml.safe_load(TEXT), values)
    return document


def references() -> set[tuple[str, str]]:
    found = (match for match in REFERENCE.finditer(TEXT) if match["name"])
    return {(match["name"], match["default"]) for match in found}


def passwords() -> dict[str, str]:
    return {name: default for name, default in references() if name.endswith("_PASSWORD")}


def texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for value in node.values():
            yield from texts(value)
    elif isinstance(node, list):
        for item in node:
            yield from texts(item)
    else:
        yield str(node)


def config(compose: Compose, name: str) -> Any:
    return yaml.safe_load(compose["configs"][name]["content"])


def published(compose: Compose, service: str) -> dict[int, int]:
    """The ports of a service: inside to outside."""
    pairs = (port.rsplit(":", 2)[-2:] for port in compose["services"][service]["ports"])
    return {int(inside): int(outside) for outside, inside in pairs}


def instructions(compose: Compose, keyword: str) -> list[list[str]]:
    text = compose["services"]["api"]["build"]["dockerfile_inline"].replace("\\\n", " ")
    lines = (line.split() for line in text.splitlines())
    return [words[1:] for words in lines if words and words[0] == keyword]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def compose_version() -> tuple[int, ...] | None:
    """The version of Docker's compose plugin, or None where there is none."""
    if shutil.which("docker") is None:
        return None
    asked = subprocess.run(
        ["docker", "compose", "version", "--short"], capture_output=True, text=True, check=False
    )
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", asked.stdout)
    return tuple(map(int, numbers.groups())) if asked.returncode == 0 and numbers else None


def read_by_compose(*arguments: str) -> str:
    kept = ("PATH", "HOME", "DOCKER_CONFIG")
    done = subprocess.run(
        ["docker", "compose", "--env-file", os.devnull, "--file", str(FILE), "config", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={name: os.environ[name] for name in kept if name in os.environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def faults(compose: Compose) -> list[str]:
    """What Compose would refuse in a resolved file, as far as this file's own features go."""
    services = compose["services"]
    return [
        *_wrong_keys("top level", compose, {"name", "services", "volumes", "configs"}),
        *_unknown("volume", set(compose["volumes"]), _mounted(services)),
        *_unknown("config", set(compose["configs"]), _configured(services)),
        *(fault for name in services for fault in _service_faults(name, services)),
        *_cycles(services),
    ]


def _wrong_keys(where: str, node: Compose, known: set[str]) -> Iterator[str]:
    yield from (f"{where}: no key {key}" for key in node if key not in known and key[:2] != "x-")


def _unknown(kind: str, declared: set[str], used: set[str]) -> Iterator[str]:
    yield from (f"{kind} {name} is not declared" for name in used - declared)
    yield from (f"{kind} {name} is not used" for name in declared - used)


def _mounted(services: Compose) -> set[str]:
    return {mount.split(":")[0] for it in services.values() for mount in it.get("volumes", [])}


def _configured(services: Compose) -> set[str]:
    return {mount["source"] for it in services.values() for mount in it.get("configs", [])}


SERVICE_KEYS = {
    "build", "cap_drop", "command", "configs", "depends_on", "deploy", "entrypoint",
    "environment", "healthcheck", "image", "init", "logging", "ports", "pull_policy", "restart",
    "security_opt", "shm_size", "stop_grace_period", "volumes",
}  # fmt: skip
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
DURATIONS = {"interval", "timeout", "start_period", "stop_grace_period"}


def _service_faults(name: str, services: Compose) -> Iterator[str]:
    service = services[name]
    health = service.get("healthcheck", {})
    yield from _wrong_keys(name, service, SERVICE_KEYS)
    yield from _wrong_keys(f"{name}: healthcheck", health, HEALTH_KEYS)
    if health and health["test"][0] not in ("CMD", "CMD-SHELL"):
        yield f"{name}: a health check begins with CMD or CMD-SHELL"
    for key in DURATIONS & {**service, **health}.keys():
        if not re.fullmatch(r"\d+(ms|s|m|h)", str({**service, **health}[key])):
            yield f"{name}: {key} is no duration"
    for key, value in service.get("environment", {}).items():
        if not isinstance(value, str):
            yield f"{name}: {key} is no text"
    for port in service.get("ports", []):
        if not re.fullmatch(r"[\d.]+:\d+:\d+", port):
            yield f"{name}: {port} is no port"
    for target, how in service.get("depends_on", {}).items():
        yield from _dependency_faults(name, target, how["condition"], services)


def _dependency_faults(name: str, target: str, condition: str, services: Compose) -> Iterator[str]:
    if target not in services:
        yield f"{name} depends on {target}, which does not exist"
    elif condition == "service_healthy":
        if "healthcheck" not in services[target]:
            yield f"{name} waits for {target}, which has no health check"
    elif condition == "service_completed_successfully":
        if services[target]["restart"] != "no":
            yield f"{name} waits for the end of {target}, which never ends"
    else:
        yield f"{name}: no condition {condition}"


def _cycles(services: Compose) -> Iterator[str]:
    graph = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"a cycle: {error.args[1]}"


@pytest.fixture(name="compose")
def _compose() -> Compose:
    return loaded()


def test_compose_accepts_the_file(compose: Compose) -> None:
    version = compose_version()
    if version is not None and version >= OLDEST_COMPOSE:
        read_by_compose("--quiet")
        theirs = json.loads(read_by_compose("--format", "json"))["services"]
        for name, service in compose["services"].items():
            assert (theirs[name].get("environment") or {}) == service.get("environment", {})
    assert faults(compose) == []


def _drop_health(compose: Compose) -> None:
    del compose["services"]["redis"]["healthcheck"]


def _misspell_key(compose: Compose) -> None:
    compose["services"]["redis"]["enviroment"] = {}


def _drop_volume(compose: Compose) -> None:
    del compose["volumes"]["postgres"]


def _drop_config(compose: Compose) -> None:
    del compose["configs"]["grafana-dashboard"]


def _restart_migration(compose: Compose) -> None:
    compose["services"]["migrate"]["restart"] = "always"


def _depend_on_nobody(compose: Compose) -> None:
    compose["services"]["api"]["depends_on"]["mongo"] = {"condition": "service_started"}


def _depend_in_a_circle(compose: Compose) -> None:
    healthy = {"condition": "service_healthy"}
    compose["services"]["timescaledb"]["depends_on"] = {"api": healthy}


def _bare_boolean(compose: Compose) -> None:
    compose["services"]["grafana"]["environment"]["GF_USERS_ALLOW_SIGN_UP"] = False


def _bad_duration(compose: Compose) -> None:
    compose["services"]["api"]["healthcheck"]["interval"] = "soon"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (_drop_health, "api waits for redis, which has no health check"),
        (_misspell_key, "redis: no key enviroment"),
        (_drop_volume, "volume postgres is not declared"),
        (_drop_config, "config grafana-dashboard is not declared"),
        (_restart_migration, "worker waits for the end of migrate, which never ends"),
        (_depend_on_nobody, "api depends on mongo, which does not exist"),
        (_depend_in_a_circle, "a cycle"),
        (_bare_boolean, "grafana: GF_USERS_ALLOW_SIGN_UP is no text"),
        (_bad_duration, "api: interval is no duration"),
    ],
)
def test_a_damaged_file_is_noticed(
    compose: Compose, damage: Callable[[Compose], None], fault: str
) -> None:
    damaged = deepcopy(compose)
    damage(damaged)
    assert any(found.startswith(fault) for found in faults(damaged))


@pytest.mark.parametrize("text", ["$HOME", "${HOME}", "${A-b}", "${A:-}", "a$", "${A:-${B:-c}}"])
def test_other_ways_to_write_a_variable_are_noticed(text: str) -> None:
    with pytest.raises(AssertionError, match="neither"):
        interpolated(text, {})


def test_the_services_are_there(compose: Compose) -> None:
    services = compose["services"]
    assert set(services) == SERVERS | ONE_SHOT
    restarts = {name: service["restart"] for name, service in services.items()}
    assert restarts == dict.fromkeys(SERVERS, "unless-stopped") | dict.fromkeys(ONE_SHOT, "no")
    assert all(services[name].get("healthcheck") for name in SERVERS)
    assert all("deploy" in services[name] for name in SERVERS)


def test_every_image_is_pinned(compose: Compose) -> None:
    images = {service["image"] for service in compose["services"].values()}
    stages = {words[0] for words in instructions(compose, "FROM")}
    assert [image for image in images | stages if not PINNED.fullmatch(image)] == []
    assert not any("latest" in image for image in images | stages)
    assert compose["services"]["timescaledb"]["image"].endswith("-pg17")


def test_the_image_is_this_version_and_builds_from_what_is_here(compose: Compose) -> None:
    for name in PLATFORM:
        assert compose["services"][name]["image"] == f"hyperfeast:{hyperfeast.__version__}"
        assert compose["services"][name]["build"] == compose["services"]["api"]["build"]
    copied = [words[:-1] for words in instructions(compose, "COPY") if "--from" not in words[0]]
    assert [path for paths in copied for path in paths if not (ROOT / path).exists()] == []
    assert instructions(compose, "USER") == [["hyperfeast"]]


def test_the_image_can_reach_the_artifacts(compose: Compose) -> None:
    """The image installs one lock; it has to hold the extra that reads s3:// addresses."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install = next(words for words in instructions(compose, "RUN") if "--require-hashes" in words)
    lock = (ROOT / option(install, "-r")).read_text(encoding="utf-8")
    locked = set(re.findall(r"^([\w-]+)==", lock, re.MULTILINE))
    needed = {re.split(r"\W", it)[0] for it in project["optional-dependencies"]["s3"]}
    assert needed - locked == set(), f"{option(install, '-r')} lacks the s3 extra: lock with it"


def test_ports_are_published_on_this_machine_only(compose: Compose) -> None:
    ports = [port for it in compose["services"].values() for port in it.get("ports", [])]
    assert ports
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    outside = [port.split(":")[1] for port in ports]
    assert len(set(outside)) == len(outside)
    assert not any("network_mode" in service for service in compose["services"].values())


def test_every_variable_is_documented_with_its_default() -> None:
    assert references() == set(DOCUMENTED.findall(TEXT))


def test_every_secret_comes_from_a_variable() -> None:
    assert len(passwords()) == 4
    raw = yaml.safe_load(TEXT)["services"]
    secrets = [
        value
        for service in raw.values()
        for name, value in service.get("environment", {}).items()
        if SECRET.search(name)
    ]
    secrets.append(option(raw["redis"]["command"], "--requirepass"))
    assert len(secrets) > len(passwords())
    assert [value for value in secrets if not REFERENCE.fullmatch(value)] == []


def test_no_default_password_is_left_when_all_are_set() -> None:
    """A sentinel for each variable: what still says the default was written out somewhere."""
    chosen = {name: f"chosen-{name}" for name in passwords()}
    left = [text for text in texts(loaded(**chosen)) if "localhost-only" in text]
    assert left == []


def test_default_passwords_survive_in_an_address() -> None:
    for default in passwords().values():
        assert quote(default, safe="") == default
        assert not default.isdigit()
        assert len(default) >= 8


@pytest.mark.parametrize("service", PLATFORM)
def test_addresses_agree_with_the_servers(service: str) -> None:
    compose = loaded(**{name: f"chosen-{name}" for name in passwords()})
    services = compose["services"]
    given = services[service]["environment"]
    server = services["timescaledb"]["environment"]

    dsn = conninfo_to_dict(given["HYPERFEAST_POSTGRES_DSN"])
    assert dsn["host"] in services
    assert int(str(dsn["port"])) in published(compose, str(dsn["host"]))
    assert dsn["user"] == server["POSTGRES_USER"]
    assert dsn["password"] == server["POSTGRES_PASSWORD"]
    assert dsn["dbname"] == server["POSTGRES_DB"]

    redis = ConnectionPool.from_url(given["HYPERFEAST_REDIS_URL"]).connection_kwargs
    assert redis["host"] in services
    assert redis.get("port", 6379) in published(compose, redis["host"])
    assert redis["password"] == option(services["redis"]["command"], "--requirepass")
    assert redis["password"] == services["redis"]["environment"]["REDISCLI_AUTH"]


@pytest.mark.parametrize("service", PLATFORM)
def test_the_artifact_store_is_reached(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What s3fs makes of the variables: the store's address, its key, the bucket in the path."""
    compose = loaded()
    services = compose["services"]
    given = services[service]["environment"]
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    store = fsspec.filesystem("s3", skip_instance_cache=True)
    address = urlsplit(store.sign(f"{given['HYPERFEAST_ARTIFACTS']}/model.ubj"))
    bucket = urlsplit(given["HYPERFEAST_ARTIFACTS"]).netloc
    assert address.hostname in services
    assert address.port in published(compose, str(address.hostname))
    assert address.path == f"/{bucket}/artifacts/model.ubj"

    server = services["minio"]["environment"]
    assert given["AWS_ACCESS_KEY_ID"] == server["MINIO_ROOT_USER"]
    assert given["AWS_SECRET_ACCESS_KEY"] == server["MINIO_ROOT_PASSWORD"]
    assert services["minio-bucket"]["command"][-1] == f"store/{bucket}"
    login = urlsplit(services["minio-bucket"]["environment"]["MC_HOST_store"])
    assert (login.hostname, login.port) == (address.hostname, address.port)
    assert (login.username, login.password) == tuple(server.values())


@pytest.mark.parametrize("service", PLATFORM)
def test_variables_are_settings(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given = loaded()["services"][service]["environment"]
    ours = {name: value for name, value in given.items() if name.startswith("HYPERFEAST_")}
    assert ours.keys() - {f"HYPERFEAST_{name.upper()}" for name in Settings.model_fields} == set()

    for name in [name for name in os.environ if name.startswith("HYPERFEAST_")]:
        monkeypatch.delenv(name)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # away from a developer's own .env
    settings = Settings()
    assert settings.artifact_root == ours["HYPERFEAST_ARTIFACTS"]
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.get_secret_value() == ours["HYPERFEAST_POSTGRES_DSN"]
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == ours["HYPERFEAST_REDIS_URL"]
    mounts = [mount.split(":")[1] for mount in loaded()["services"][service]["volumes"]]
    assert str(settings.home) in mounts


def test_the_port_of_the_api_is_one_everywhere(compose: Compose) -> None:
    default = Settings.model_fields["api_port"].default
    api = compose["services"]["api"]
    assert api["environment"]["HYPERFEAST_API_HOST"] == option(api["command"], "--host")
    assert api["environment"]["HYPERFEAST_API_PORT"] == option(api["command"], "--port")
    assert int(option(api["command"], "--port")) == default
    assert published(compose, "api") == {default: default}
    assert f"http://127.0.0.1:{default}/" in api["healthcheck"]["test"][-1]

    (scrape,) = config(compose, "prometheus")["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"api:{default}"]}]
    assert scrape["metrics_path"] == "/metrics"


@pytest.mark.parametrize("service", ["api", "worker"])
def test_health_checks_in_python_are_python(compose: Compose, service: str) -> None:
    kind, program, flag, code = compose["services"][service]["healthcheck"]["test"]
    assert (kind, program, flag) == ("CMD", "python", "-c")
    compile(code, service, "exec")


def test_the_api_answers_what_it_is_asked_here(compose: Compose) -> None:
    """The paths of the health check and of the scrape, with no server and no model behind them."""
    from hyperfeast.api import create
    from hyperfeast.app import App

    check = re.search(r"http://[^\"]+", compose["services"]["api"]["healthcheck"]["test"][-1])
    assert check is not None
    (scrape,) = config(compose, "prometheus")["scrape_configs"]
    paths = [urlsplit(check[0]).path, scrape["metrics_path"]]
    transport = httpx.ASGITransport(app=create(App(), "any"))

    async def statuses() -> list[int]:
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return [(await client.get(path)).status_code for path in paths]

    assert asyncio.run(statuses()) == [200, 200]


def test_the_metrics_are_the_apis_own() -> None:
    from hyperfeast.api.metrics import Metrics

    collectors = Metrics().registry._names_to_collectors
    for name, labels in METRICS.items():
        assert set(vars(collectors[name])["_labelnames"]) == labels - {"le"}


@pytest.mark.parametrize("service", PLATFORM)
def test_commands_are_commands_of_the_program(compose: Compose, service: str) -> None:
    # Imported here: the other tests say what they have to say without the command line.
    from hyperfeast import cli

    program, name, *arguments = compose["services"][service]["command"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert program in project["scripts"]
    commands: dict[str, Any] = vars(typer.main.get_command(cli.app))["commands"]
    # Reads the options, as a real start does, and runs nothing.
    commands[name].make_context(name, list(arguments))


def test_grafana_asks_prometheus(compose: Compose) -> None:
    (source,) = config(compose, "grafana-datasource")["datasources"]
    address = urlsplit(source["url"])
    assert address.port in published(compose, str(address.hostname))
    targets = {it["source"]: it["target"] for it in compose["services"]["grafana"]["configs"]}
    (provider,) = config(compose, "grafana-dashboards")["providers"]
    assert targets["grafana-dashboard"].startswith(provider["options"]["path"])
    environment = compose["services"]["grafana"]["environment"]
    home = environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == targets["grafana-dashboard"]
    for panel in json.loads(compose["configs"]["grafana-dashboard"]["content"])["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_the_dashboard_shows_only_metrics_that_exist(compose: Compose) -> None:
    panels = json.loads(compose["configs"]["grafana-dashboard"]["content"])["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    shown = {name for expression in expressions for name in _metrics_in(expression)}
    assert shown == {
        "hyperfeast_requests_total",
        "hyperfeast_request_seconds_bucket",
        "hyperfeast_predictions_total",
        "hyperfeast_feature_age_seconds",
    }
    assert all("[$__rate_interval]" in it for it in expressions if "rate(" in it)
    quantiles = [it for it in expressions if it.startswith("histogram_quantile")]
    assert [re.findall(r"0\.\d+", it) for it in quantiles] == [["0.50"], ["0.95"], ["0.99"]]


def _metrics_in(expression: str) -> set[str]:
    """The metrics of a PromQL expression; fails on one, or on a label, that the API has not."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without) \([^)]*\)", " ", expression)
    names = set(re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare))
    assert names <= METRICS.keys()
    grouped = {
        label
        for labels in re.findall(r"\bby \(([^)]*)\)", expression)
        for label in labels.split(", ")
    }
    assert all(grouped <= METRICS[name] for name in names)
    return names


@pytest.mark.parametrize("wrong", ["rate(up[1m])", "sum by (user) (hyperfeast_requests_total)"])
def test_a_metric_or_label_that_does_not_exist_is_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError):
        _metrics_in(wrong)
