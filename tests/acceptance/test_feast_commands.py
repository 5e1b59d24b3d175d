"""Feast's own command line, from the feature repository, against the servers in use."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from acceptance.shell import BIN, ROOT, DemoRun

REPO = ROOT / "feature_repo"


# Feast takes seconds to load: what only reads is asked for in one process.
ASKED_TOGETHER = """
import io, json, sys
from contextlib import redirect_stdout
from feast.cli.cli import cli

said = []
for command in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out:
        cli.main(command, standalone_mode=False)
    said.append(out.getvalue())
print(json.dumps(said))
"""


# What Feast's users print to see where they are.
_AND_ITS_CONFIGURATION = """
from feast import FeatureStore
config = FeatureStore(".").config
print(config.offline_store, config.online_store)
"""

EXPECTED = {
    "plan": "No changes",
    "feature-views list": "market_technical_v1",
    "feature-services list": "market_direction_v1",
    "entities list": "symbol",
    "materialize-incremental 2013-06-02T00:00:00": "personal_baseline_v1",
}


@pytest.fixture(scope="module")
def answers(demo: DemoRun) -> list[str]:
    """What the expected commands print, and at last the configuration."""
    asked = ["-c", ASKED_TOGETHER + _AND_ITS_CONFIGURATION]
    commands = json.dumps([command.split() for command in EXPECTED])
    ran = demo.shell.run("python", *asked, commands, folder=REPO)
    assert ran.returncode == 0, ran.stderr
    *_, said, configuration = ran.stdout.splitlines()
    return [*json.loads(said), configuration]


@pytest.mark.parametrize("command", EXPECTED)
def test_a_command_works_as_it_stands(answers: list[str], command: str) -> None:
    assert EXPECTED[command] in answers[list(EXPECTED).index(command)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["apply"], "Applying changes for project hyperfeast"),
        (["materialize", "2000-01-01T00:00:00", "2013-06-01T00:00:00"], "market_technical_v1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_that_writes_works_as_a_process(
    demo: DemoRun, command: list[str], expected: str
) -> None:
    ran = demo.shell.run("feast", *command, folder=REPO)
    assert ran.returncode == 0, ran.stderr
    assert expected in ran.stdout + ran.stderr


def test_no_password_in_what_feast_prints_of_its_configuration(answers: list[str]) -> None:
    assert "127.0.0.1" in answers[-1]
    assert "password" not in answers[-1]


def test_the_ui_shows_the_project(demo: DemoRun) -> None:
    port = _free_port()
    process = subprocess.Popen(
        [str(BIN / "feast"), "ui", "--host", "127.0.0.1", "--port", str(port)],
        cwd=REPO,
        env=demo.shell.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        listed = json.loads(_wait_for(f"http://127.0.0.1:{port}/projects-list.json"))
        assert "hyperfeast" in json.dumps(listed)
        assert "<html" in _wait_for(f"http://127.0.0.1:{port}/").lower()
    finally:
        process.terminate()
        process.wait(60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str) -> str:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310
                return str(response.read().decode())
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"nobody answers at {url}")
