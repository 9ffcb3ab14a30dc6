"""What a comparison makes of its pictures: groups of equal cost, rows, and one sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tgate_plugins.cli.bench import Cost, Method, Shot
from tgate_plugins.cli.metrics import Spread
from tgate_plugins.cli.spec import Spec
from tgate_plugins.cli.summary import Group, Row, arrange, mean_cost, score, summarize
from tgate_plugins.cli.tables import cells, verdict

SPEC = Spec("never")
UNGATED = Method("ungated", "ungated", 10)
FEWER = Method("fewer", "fewer steps", 6)
GATED = Method("gated", "gated", 10, SPEC)


def shot(
    method: Method,
    level: float,
    *,
    prompt: str = "p",
    rows: float = 20,
    seconds: float = 1.0,
    beside: float = 0.0,
) -> Shot:
    """A flat picture; `level` is its distance from the ungated one, which is 0."""
    image = np.full((8, 8, 3), level, np.float32)
    return Shot(*(method.label, prompt, 0, image, seconds, Cost(rows, rows * 10)), beside=beside)


def broken(method: Method, prompt: str = "p") -> Shot:
    return Shot(method.label, prompt, 0, error="RuntimeError: it broke")


def rows_of(*shots: Shot) -> dict[str, Row]:
    methods, rivals = [UNGATED, GATED, FEWER], {"gated": "fewer"}
    rows = summarize(score(shots, "ungated"), methods, rivals)
    return {row.method.label: row for row in rows}


def test_a_row_says_cost_time_and_distance() -> None:
    row = rows_of(
        shot(UNGATED, 0, seconds=8.0, beside=8.0),
        shot(GATED, 0.1, rows=14, beside=2.0),
        shot(FEWER, 0.01, rows=12),
    )["gated"]
    assert (row.images, row.failed, row.cost) == (1, 0, Cost(14, 140))
    assert row.speedup == pytest.approx(20 / 14)
    assert row.faster == pytest.approx(2.0)
    assert row.psnr is not None
    assert row.psnr.mean == pytest.approx(20.0, abs=1e-3)
    assert row.gain == pytest.approx(-20.0, abs=1e-3)


def test_times_are_medians() -> None:
    shots = [shot(UNGATED, 0, prompt=str(i), seconds=s) for i, s in enumerate((9.0, 1.0, 2.0))]
    assert rows_of(*shots)["ungated"].seconds == 2.0


def test_a_time_is_set_beside_the_ungated_runs_of_its_own_round() -> None:
    rows = rows_of(
        shot(UNGATED, 0, seconds=8.0, beside=8.0),
        shot(GATED, 0, seconds=4.0, beside=8.0),
        shot(FEWER, 0, seconds=1.0, beside=2.0),
    )
    assert (rows["gated"].faster, rows["fewer"].faster) == (2.0, 2.0)


def test_a_time_without_an_ungated_one_beside_it_has_no_ratio() -> None:
    assert rows_of(broken(UNGATED), shot(GATED, 0))["gated"].faster is None


def test_the_ungated_picture_is_identical_to_itself() -> None:
    row = rows_of(shot(UNGATED, 0))["ungated"]
    assert row.psnr == Spread(math.inf, math.inf, 1)
    assert row.to_dict()["identical"] == 1
    assert row.to_dict()["psnr"] == {"mean": None, "worst": None}


def test_a_failed_run_is_counted_and_measured_by_nobody() -> None:
    row = rows_of(
        shot(UNGATED, 0),
        shot(UNGATED, 0, prompt="q"),
        shot(GATED, 0.1),
        broken(GATED, "q"),
    )["gated"]
    assert (row.images, row.failed) == (1, 1)
    assert row.psnr is not None
    assert row.psnr.worst == pytest.approx(20.0, abs=1e-3)


def test_a_method_that_always_failed_has_a_row_without_numbers() -> None:
    row = rows_of(shot(UNGATED, 0), broken(GATED))["gated"]
    assert (row.images, row.failed, row.cost, row.psnr) == (0, 1, None, None)
    assert [cell.plain for cell in cells(row)] == ["  gated (1 failed)", *["-"] * 10]


def test_without_the_reference_picture_nothing_is_measured() -> None:
    row = rows_of(broken(UNGATED), shot(GATED, 0.1))["gated"]
    assert row.cost is not None
    assert (row.psnr, row.speedup, row.gain) == (None, None, None)


def test_the_gain_is_over_pictures_that_both_made() -> None:
    row = rows_of(
        shot(UNGATED, 0),
        shot(UNGATED, 0, prompt="hard"),
        shot(GATED, 0.1),
        broken(GATED, "hard"),
        shot(FEWER, 0.1),
        shot(FEWER, 1.0, prompt="hard"),
    )["gated"]
    assert row.gain == pytest.approx(0.0, abs=1e-3)


def test_a_method_that_loses_nothing_beats_every_rival_and_json_holds_no_infinity() -> None:
    row = rows_of(shot(UNGATED, 0), shot(GATED, 0), shot(FEWER, 0.1))["gated"]
    assert row.gain == math.inf
    assert row.to_dict()["psnr_gain_over_rival"] == {"mean": None, "worst": None}
    assert verdict([row]).startswith("1 of 1 gated methods come nearer")


def test_a_rival_that_is_the_reference_itself_judges_nobody() -> None:
    rows = summarize(
        score([shot(UNGATED, 0), shot(GATED, 0.1)], "ungated"),
        [UNGATED, GATED],
        {"gated": "ungated"},
    )
    assert rows[1].gain is None
    assert verdict(rows) == "No gated method has a fewer-steps run to be compared with."


def test_the_verdict_names_those_that_win_and_says_how_they_do_at_worst() -> None:
    won = Row(GATED, 1, 0, rival="fewer", gain=1.5, worst_gain=-0.25)
    lost = Row(Method("other", "gated", 10, SPEC), 1, 0, rival="fewer", gain=-3.0, worst_gain=-3.0)
    assert verdict([won, lost]) == (
        "1 of 2 gated methods come nearer to the reference than fewer steps of no higher cost: "
        "gated (mean +1.50, worst -0.25 dB)."
    )
    assert verdict([lost]).endswith(
        "0 of 1 gated methods come nearer to the reference than fewer steps of no higher cost."
    )


def test_the_cost_of_a_method_is_a_mean_over_its_runs() -> None:
    shots = [shot(GATED, 0, rows=10), shot(GATED, 0, rows=14), broken(GATED), shot(UNGATED, 0)]
    assert mean_cost(shots, GATED) == Cost(12, 120)
    assert mean_cost([broken(GATED)], GATED) is None


def test_macs_that_were_not_always_counted_are_not_averaged() -> None:
    uncounted = Shot(GATED.label, "q", 0, np.zeros((8, 8, 3), np.float32), 1.0, Cost(10, None))
    assert mean_cost([shot(GATED, 0, rows=20), uncounted], GATED) == Cost(15, None)


def test_methods_stand_in_groups_before_the_run_they_must_beat() -> None:
    a, b, c = (Method(name, "gated", 10, SPEC) for name in "abc")
    six, seven = Method("6", "fewer steps", 6), Method("7", "fewer steps", 7)
    groups = arrange([UNGATED], [a, b, c], {"a": six, "b": seven, "c": six})
    assert groups == [
        Group("ungated", (UNGATED,)),
        Group("the cost of 6 steps", (a, c, six)),
        Group("the cost of 7 steps", (b, seven)),
    ]


def test_a_method_that_saves_nothing_or_failed_stands_apart() -> None:
    a, b = (Method(name, "gated", 10, SPEC) for name in "ab")
    groups = arrange([UNGATED], [a, b], {"a": UNGATED})
    assert groups[1:] == [
        Group("saves less than one step", (a,)),
        Group("nothing to compare with", (b,)),
    ]
