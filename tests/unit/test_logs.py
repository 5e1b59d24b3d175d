"""What a log line holds, on a terminal and off it: read from a process of its own."""

import json
import os
import secrets
import subprocess
import sys

import pytest

_FAILING = """
import sys
import structlog
from hyperfeast.app import configure_logs

def connect(password):
    raise RuntimeError("it broke")

configure_logs("warning")
try:
    connect(sys.argv[1])
except RuntimeError as error:
    structlog.get_logger().error("unexpected error", exc_info=error)
"""

_POOL = """
import logging, sys
from hyperfeast.app import configure_logs

configure_logs(sys.argv[1])
logging.getLogger("psycopg.pool").warning("error connecting in 'pool-1'")
logging.getLogger("hyperfeast").error("something else")
"""


def _stderr(program: str, argument: str) -> str:
    command = [sys.executable, "-c", program, argument]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def _on_a_terminal(program: str, argument: str) -> str:
    ours, theirs = os.openpty()
    process = subprocess.Popen([sys.executable, "-c", program, argument], stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 4096):
            written += piece
    except OSError:  # Linux's way to say that the terminal was closed
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=30) == 0
    return written.decode()


def test_a_line_of_json_holds_the_traceback() -> None:
    line = json.loads(_stderr(_FAILING, "-"))
    assert line["event"] == "unexpected error"
    assert line["exception"].startswith("Traceback (most recent call last)")
    assert "in connect" in line["exception"]
    assert line["exception"].endswith("RuntimeError: it broke")


def test_a_terminal_shows_the_traceback_without_the_values_in_it() -> None:
    password = secrets.token_hex(8)
    text = _on_a_terminal(_FAILING, password)
    assert "Traceback (most recent call last)" in text
    assert "RuntimeError: it broke" in text
    assert password not in text


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("info", False), ("warning", False)])
def test_the_attempts_of_the_pool_are_for_debugging(level: str, shown: bool) -> None:
    text = _stderr(_POOL, level)
    assert ("error connecting" in text) is shown
    assert "something else" in text
