"""Two things timed in turns, A B A B, and the one line that comes of it."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Timed = Callable[[], float]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a bench is asked for.

    Attributes:
        rows: about how many rows; the bench's own number if not given.
        rounds: how often each side is timed; the medians are reported.
        say: told what is going on.
    """

    rows: int | None = None
    rounds: int = 5
    say: Say = field(default=lambda _line: None)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One case's result.

    Attributes:
        bench: the bench's name.
        case: the case's name.
        rows: how many rows it was taken on.
        ours_s: seconds of ours, the median; None where no time is compared.
        peer_s: seconds of the peer, the median; None where there is none.
        ratio: peer / ours: above 1, ours is faster (or smaller).
        peak_mb: peak resident memory of the process that did ours, in megabytes.
        note: for people.
    """

    bench: str
    case: str
    rows: int
    ours_s: float | None = None
    peer_s: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Turns:
    """Seconds of both sides, turn by turn."""

    ours: Sequence[float]
    peer: Sequence[float]

    @property
    def ours_s(self) -> float:
        """The median of ours."""
        return statistics.median(self.ours)

    @property
    def peer_s(self) -> float:
        """The median of the peer's."""
        return statistics.median(self.peer)

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.peer_s / self.ours_s

    @property
    def note(self) -> str:
        """How many turns, and how noisy they were."""
        return (
            f"{len(self.ours)} turns, ours ±{spread(self.ours):.0%}, peer ±{spread(self.peer):.0%}"
        )


def alternate(ours: Timed, peer: Timed, *, rounds: int) -> Turns:
    """Time both in turns. With more than one round there is one before that does not count.

    Args:
        ours: does it once; returns the seconds that count.
        peer: the same, for what it is held against.
        rounds: how often; at least once.
    """
    seconds = [(ours(), peer()) for _ in range(turns(rounds))]
    return Turns(*zip(*seconds[-rounds:], strict=True))


def turns(rounds: int) -> int:
    """How many rounds to do for so many that count: a first one warms up what there is to warm."""
    return rounds + (rounds > 1)


def stopwatch(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def spread(seconds: Sequence[float]) -> float:
    """Half the distance from the fastest to the slowest, as a part of the median."""
    return (max(seconds) - min(seconds)) / 2 / statistics.median(seconds)


def percentile(seconds: Sequence[float], part: float) -> float:
    """The smallest of the values that `part` of them (0 to 1] do not exceed."""
    ranked = sorted(seconds)
    return ranked[max(0, -int(-len(ranked) * part // 1) - 1)]


class WrongAnswer(AssertionError):
    """Both sides were to come to the same, and did not: no figure is given."""


def must_equal(ours: object, peer: object, what: str) -> None:
    """Refuse to time what does not give the same.

    Raises:
        WrongAnswer: it does not.
    """
    if ours != peer:
        raise WrongAnswer(f"{what}: ours gives {_short(ours)}, the peer {_short(peer)}")


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) <= 200 else f"{text[:200]}…"
