"""Kills writers of a file of baselines, one after the other, and looks at the file each time.

A process of its own: it forks, which a test runner with threads must not, and after the first baseline is
made nothing of it calls a library with threads. Arguments: the folder, how often, the seed. It prints one
JSON document: what it saw, and the first thing that was wrong.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from uuid import UUID

from baseline_samples import baseline, number_of
from hyperfeast.baselines import FileBaselineRepository

USER = UUID("0e3b7c1a-93f5-4d6e-8a52-1c0f6b9d2e47")
_NUMBER_BYTES = 8


def write_on(files: FileBaselineRepository, first: int, acknowledged: int) -> None:
    """Save one after the other, and say of each that it is saved, until killed."""
    number = first
    while True:
        files.save(USER, baseline(number))
        os.write(acknowledged, number.to_bytes(_NUMBER_BYTES, "big"))
        number += 1


def killed(files: FileBaselineRepository, first: int, delay_s: float) -> int:
    """Start a writer and kill it `delay_s` after its first save; the last number it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write_on(files, first, writing)
    os.close(writing)
    last = int.from_bytes(os.read(reading, _NUMBER_BYTES), "big")
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while block := os.read(reading, _NUMBER_BYTES):
        last = int.from_bytes(block, "big")
    os.close(reading)
    return last


def wrong(files: FileBaselineRepository, last: int) -> str:
    """What is wrong with the file after `last` was acknowledged; nothing if all is well."""
    document = json.loads(files.place(USER).read_bytes())
    numbers = [number_of(one.baseline) for one in files.history(USER)]
    newest = numbers[0]
    if newest not in (last, last + 1):
        return f"{last} was acknowledged, the newest is {newest}"
    if numbers != list(range(newest, max(newest - 10, -1), -1)):
        return f"not the last ten in their order: {numbers}"
    return "" if len(document["baselines"]) == len(numbers) else "not all can be read"


def main() -> None:
    folder, times, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    files, rng = FileBaselineRepository(folder), random.Random(seed)
    baseline()
    start = time.perf_counter()
    for number in range(5):
        files.save(USER, baseline(number))
    one_save_s = (time.perf_counter() - start) / 5
    saved, drafts, unacknowledged, found = 5, 0, 0, ""
    for _ in range(times):
        last = killed(files, saved, rng.uniform(0, 3 * one_save_s))
        drafts += len(list(files.place(USER).parent.glob(".baseline_history.json.*")))
        found = wrong(files, last)
        if found:
            break
        newest = number_of(files.history(USER)[0].baseline)
        unacknowledged += newest > last
        saved = newest + 1
    sys.stdout.write(
        json.dumps(
            {"saved": saved, "drafts": drafts, "unacknowledged": unacknowledged, "wrong": found}
        )
    )


if __name__ == "__main__":
    main()
