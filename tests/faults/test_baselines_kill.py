"""A writer of baselines killed at any moment: its file holds the state before or after."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NURSERY = Path(__file__).with_name("baselines_nursery.py")


def nursery(folder: Path, times: int) -> dict[str, Any]:
    seed = random.randrange(10**6)
    ran = subprocess.run(
        [sys.executable, str(NURSERY), str(folder), str(times), str(seed)],
        env={**os.environ, "PYTHONPATH": str(NURSERY.parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, (seed, ran.stderr)
    found: dict[str, Any] = json.loads(ran.stdout)
    assert not found["wrong"], (seed, found)
    assert found["saved"] > times, "each writer saved something before it was killed"
    return found


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    nursery(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_kills(tmp_path: Path) -> None:
    """Some fall between the draft and the file: those are the ones that it is about."""
    found = nursery(tmp_path, 200)
    assert found["drafts"] > 0
