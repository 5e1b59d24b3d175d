"""The benches' arithmetic, and a tiny run of each on real servers. No time is asserted."""

import json
from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import market
from bench.__main__ import BENCHES, main
from bench.harness import Turns, WrongAnswer, alternate, must_equal, percentile, spread
from hyperfeast.servers import Endpoints

KEYS = ["bench", "case", "ours_s", "peer_s", "ratio", "rows", "peak_mb"]
CASES = {
    "aggregates": {
        "query", "query-all-symbols", "latency-p50", "latency-p99", "correction", "refresh-day",
    },
    "features": {
        "vs-pandas", "vs-talib", "end-to-end", "end-to-end-vs-copy", "new-bars", "correction",
    },
    "ingest": {"vs-copy", "unchanged", "unchanged-vs-first", "changed"},
    "materialize": {"vs-feast", "vs-wire", "packed", "packed-vs-wire"},
    "online": {
        f"{layout}{case}{percentile}"
        for layout in ("", "packed-")
        for case in ("single", "single-matrix", "batch-100")
        for percentile in ("", "-p99")
    },
    "query": {"year-p50", "year-p99", "year-as-known-p50", "year-as-known-p99"},
    "storage": {"compression", "compression-floats", "compression-daily"},
    "training-set": {
        "spine-1000-ttl", "spine-100000-ttl", "spine-5000-nottl", "spine-1000000-ttl", "sql-spine",
        "linear-250000", "linear-500000", "linear-1000000", "rows-5150000",
    },
}  # fmt: skip


def test_both_sides_take_turns_and_the_first_turn_does_not_count() -> None:
    order: list[str] = []
    seconds = iter([9.0, 1.0, 3.0, 2.0])

    def ours() -> float:
        order.append("A")
        return next(seconds)

    def peer() -> float:
        order.append("B")
        return 4.0

    both = alternate(ours, peer, rounds=3)
    assert "".join(order) == "ABABABAB"
    assert list(both.ours) == [1.0, 3.0, 2.0]
    assert (both.ours_s, both.peer_s, both.ratio) == (2.0, 4.0, 2.0)


def test_a_single_round_has_no_warm_up() -> None:
    assert list(alternate(lambda: 1.0, lambda: 2.0, rounds=1).ours) == [1.0]


def test_noise_is_half_the_range_over_the_median() -> None:
    assert spread([1.0, 2.0, 3.0]) == 0.5
    assert Turns([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]).note == "3 turns, ours ±50%, peer ±0%"


@given(st.lists(st.floats(0, 1e3), min_size=1), st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(
    seconds: list[float], part: float
) -> None:
    found = percentile(seconds, part)
    not_above = [
        value
        for value in seconds
        if sum(one <= value for one in seconds) >= part * len(seconds) - 1e-9
    ]
    assert found == min(not_above)


def test_a_wrong_answer_gives_no_figure() -> None:
    must_equal([1], [1], "rows")
    with pytest.raises(WrongAnswer, match=r"rows: ours gives \[1\], the peer \[2\]"):
        must_equal([1], [2], "rows")


@pytest.mark.parametrize("tick", [True, False])
def test_the_market_is_the_same_each_time_and_consistent(tick: bool) -> None:
    first, again = (
        pl.concat(market.minutes(2, 3, first=date(2024, 1, 1), tick=tick)) for _ in range(2)
    )
    assert first.equals(again)
    assert first.height == 2 * 3 * 1440
    assert first.select("symbol", "ts").is_unique().all()
    low, high = pl.min_horizontal("open", "close"), pl.max_horizontal("open", "close")
    assert first.filter((pl.col("low") > low) | (pl.col("high") < high)).is_empty()
    assert (first["volume"] == first["volume"].round()).all()
    assert (first["close"] == first["close"].round(2)).all() is tick


def test_one_row_in_so_many_is_corrected() -> None:
    bars = pl.concat(market.daily(1, 250))
    changed = market.corrected(bars, every=100)
    assert (bars["volume"] != changed["volume"]).sum() == 3
    assert bars.drop("volume").equals(changed.drop("volume"))


_SLOW = ("features", "online", "materialize", "training-set")
_TINY = [
    pytest.param(name, marks=[pytest.mark.slow] if name in _SLOW else [])
    for name in sorted(BENCHES.keys() - {"storage"})
]


@pytest.mark.parametrize("name", _TINY)
def test_a_tiny_run(
    name: str,
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYPERFEAST_TEST_DSN", endpoints.postgres_dsn)
    main([name, "--rows", "3000", "--rounds", "1", "--json"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    _check(figures, name)
    for figure in figures:
        assert figure["rows"] >= (1 if name in _SLOW else 2880)
        assert figure["ours_s"] > 0
    if name == "ingest":
        assert all(20 < figure["peak_mb"] < 2000 for figure in figures)


@pytest.mark.slow
def test_a_tiny_run_of_storage(capsys: pytest.CaptureFixture[str]) -> None:
    main(["storage", "--rows", "3000", "--json"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    _check(figures, "storage")
    assert all(figure["ratio"] > 0 for figure in figures)


def test_a_table_for_people(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HYPERFEAST_TEST_DSN", endpoints.postgres_dsn)
    main(["query", "--rows", "400", "--rounds", "1"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["bench", "case", "rows", "ours", "peer", "ratio", "peak", "MB"]
    assert {line.split()[1] for line in lines} == CASES["query"]


def test_a_bench_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nothing"])
    assert "choose from" in capsys.readouterr().err


def _check(figures: list[dict[str, object]], bench: str) -> None:
    assert all(sorted(figure) == sorted(KEYS) for figure in figures)
    assert {figure["case"] for figure in figures} == CASES[bench]
    assert {figure["bench"] for figure in figures} == {bench}
