"""`hyperfeast online` against the demo's Redis."""

from collections.abc import Callable

import pytest

from acceptance.shell import DemoRun, Shell


@pytest.mark.slow
def test_what_is_online_is_copied_and_a_second_run_has_nothing_to_do(demo: DemoRun) -> None:
    first = demo.shell.json("online", "convert", "--to", "packed")
    by_view = {one["view"]: one for one in first}
    assert {"market_technical_v1", "personal_baseline_v1"} <= set(by_view)
    market = by_view["market_technical_v1"]
    assert market["rows"] > 0
    assert market["written"] + market["already_there"] == market["rows"]
    assert market["removed"] is False

    second = demo.shell.json("online", "convert", "--to", "packed")
    assert [(one["written"], one["already_there"]) for one in second] == [
        (0, one["rows"]) for one in second
    ]


@pytest.mark.slow
def test_one_view_is_copied_back_and_people_get_a_table(demo: DemoRun) -> None:
    demo.shell.json("online", "convert", "--to", "packed")
    ran = demo.shell.hyperfeast(
        "online", "convert", "--to", "feast", "--view", "market_technical_v1"
    )
    assert ran.returncode == 0, ran.stderr
    assert "market_technical_v1" in ran.stdout
    assert "personal_baseline_v1" not in ran.stdout
    assert "layout: feast" in ran.stdout


def test_a_layout_that_is_none_is_a_mistaken_call(make_shell: Callable[..., Shell]) -> None:
    ran = make_shell().hyperfeast("online", "convert", "--to", "sideways")
    assert ran.returncode == 2
    assert "'sideways' is not one of 'feast', 'packed'" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_without_a_layout_it_is_asked_for_in_one_line(make_shell: Callable[..., Shell]) -> None:
    ran = make_shell().hyperfeast("online", "convert")
    assert ran.returncode == 2
    assert "--to" in ran.stderr
    assert "feast, packed" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_view_that_is_none_is_named_in_one_line(demo: DemoRun) -> None:
    ran = demo.shell.hyperfeast(
        "online", "convert", "--to", "packed", "--view", "market_tecnical_v1"
    )
    assert ran.returncode == 2
    assert "no feature view market_tecnical_v1 is online: there are" in ran.stderr
    assert ran.stderr.count("\n") == 1
