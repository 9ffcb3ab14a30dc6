"""What the charts draw: the line of fewer steps, the points, the curves, the strips."""

from __future__ import annotations

import pytest

from tgate_plugins.study.report.charts import lines, pareto, settled, short_names
from tgate_plugins.study.report.strips import decisions, strips, words
from tgate_plugins.study.report.values import Curves, Method, Model, Spread


def bare(label: str, steps: int, psnr: float | None) -> Method:
    found = {"converged.psnr": Spread(psnr, psnr - 1, psnr + 1)} if psnr else {}
    return Method(
        label,
        part="baseline",
        steps=steps,
        pictures=2,
        macs=1e8 * steps,
        seconds=steps,
        measures=found,
    )


def test_the_line_is_fewer_steps_in_order_and_ends_in_the_ungated_run() -> None:
    """The converged run is on no chart: at its cost everything else would be one heap."""
    found = pareto(
        Model(
            "m",
            steps=25,
            converged_steps=200,
            methods=(
                bare("ungated", 25, 33),
                bare("converged steps=200", 200, None),
                bare("fewer_steps steps=20", 20, 30),
                bare("fewer_steps steps=5", 5, 20),
                Method("a", part="ours", pictures=2, macs=2e9, fid=4.0),
                Method("b", status="failed"),
            ),
        )
    )
    assert [(p["label"], p["macs"]) for p in found["line"]] == [
        ("fewer_steps steps=5", 5e8),
        ("fewer_steps steps=20", 2e9),
        ("ungated", 2.5e9),
    ]
    assert found["line"][0]["values"]["converged.psnr"] == {"mean": 20, "low": 19, "high": 21}
    assert [p["label"] for p in found["points"]] == ["a"]
    assert [m["key"] for m in found["measures"]] == ["converged.psnr", "fid"]


def test_a_point_carries_the_verdict_of_its_interval() -> None:
    """Shape and colour in the chart come from it."""
    gain = {"converged.psnr": Spread(1.0, 0.5, 1.5)}
    winner = Method("a", part="ours", pictures=2, over_rival=gain)
    found = pareto(Model("m", prompts=("a", "b"), methods=(winner, Method("b", pictures=2))))
    assert [p["verdict"] for p in found["points"]] == ["better", "unknown"]


def test_curves_leave_out_what_a_logarithm_cannot_show() -> None:
    """Zero and a gap are both gaps."""
    found = lines(Curves(4, {"mid_block.attentions.0.attn2": (None, 0.5, 0.0, 0.1)}))
    assert found == [
        {
            "site": "mid_block.attentions.0.attn2",
            "name": "mid 0",
            "values": [None, 0.5, None, 0.1],
        }
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((None, 0.5, 0.009, 0.008), "from step 2 on."),
        ((None, 0.5, 0.009, None), "from step 2 on."),
        (
            (None, 0.5, 0.02, None),
            "in step 2, the last one measured, its output still changes by 2.0 %.",
        ),
        ((None, 0.001, 0.5, 0.001), "from step 3 on."),
        ((None, None), "Nothing was measured."),
    ],
)
def test_the_sentence_of_the_curves_is_read_off_them(
    values: tuple[float | None, ...], said: str
) -> None:
    """A gap at the end is no standstill."""
    assert settled(Curves(len(values), {"a": values})).endswith(said)


def test_short_names_stay_distinct() -> None:
    """Two sites of one short name keep their long ones."""
    names = ["blocks.0.attn1", "blocks.0.attn2"]
    assert short_names(names) == {n: n for n in names}


def test_a_strip_has_a_cell_a_step_and_words_for_who_cannot_see_it() -> None:
    """Guidance and cross always, another gate where it closes."""
    found = strips(Method("a", steps=6, closed={"guidance": (2, 3, 5), "self": (4,), "block": ()}))
    assert [(s.gate, s.cells, s.skipped) for s in found] == [
        ("guidance", "■■··■·", 3),
        ("cross", "■■■■■■", 0),
        ("self", "■■■■·■", 1),
    ]
    assert [s.words for s in found] == [
        "guidance closed in 3 of 6 steps: 2 to 3, 5",
        "cross open in all 6 steps",
        "self closed in 1 of 6 steps: 4",
    ]


def test_steps_beyond_the_run_are_not_drawn() -> None:
    """A log may name them; the strip has only so many cells."""
    assert words("cross", [1, 9], 3) == "cross closed in 1 of 3 steps: 1"


def test_methods_that_close_nothing_have_no_strip() -> None:
    """An event is worth a line all the same."""
    found = decisions(
        [
            Method("open", steps=3, pictures=1, closed={"guidance": ()}),
            Method("told", steps=3, pictures=1, events=("step 0: layout unknown",)),
            Method("shut", steps=3, pictures=1, closed={"cross": (1,)}),
            Method("never", status="failed", steps=3, closed={"cross": (1,)}),
        ]
    )
    assert [(d.method.label, len(d.strips)) for d in found] == [("told", 0), ("shut", 2)]
