"""`python -m bench NAME`: run one bench, print a table or, with --json, one JSON object a line."""

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module

from bench.harness import Figure, Task

# Each a module, imported when it is asked for: Feast alone takes seconds to import.
BENCHES = {
    "aggregates": "aggregates",
    "features": "features",
    "ingest": "ingest",
    "materialize": "materialize",
    "online": "online",
    "query": "query",
    "storage": "storage",
    "training-set": "training_set",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the bench that is named."""
    given = _parser().parse_args(arguments)
    task = Task(rows=given.rows, rounds=given.rounds, say=_say)
    if not given.json:
        _print(
            f"{'bench':<12} {'case':<22} {'rows':>9} {'ours':>10} {'peer':>10} {'ratio':>8} {'peak MB':>8}"
        )
    for figure in _bench(given.name)(task):
        _print(_json(figure) if given.json else _line(figure))


def _bench(name: str) -> Callable[[Task], Iterator[Figure]]:
    found: Callable[[Task], Iterator[Figure]] = import_module(f"bench.{BENCHES[name]}").run
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES), help="what to measure")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rows", type=_positive, help="about how many rows, to scale it down")
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="how often each side is timed (5)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text}")
    return number


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _json(figure: Figure) -> str:
    fields = asdict(figure)
    del fields["note"]
    return json.dumps(fields)


def _line(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    peak = "" if figure.peak_mb is None else f"{figure.peak_mb:.0f}"
    return (
        f"{figure.bench:<12} {figure.case:<22} {figure.rows:>9,} {_time(figure.ours_s):>10} "
        f"{_time(figure.peer_s):>10} {ratio:>8} {peak:>8}  {figure.note}"
    )


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    # Whoever ends a bench ends what it has started.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    main()
