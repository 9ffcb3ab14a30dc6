"""The table of methods: groups of equal cost, the row to beat at the foot of each."""

from __future__ import annotations

from tgate_plugins.study.report.table import columns, groups
from tgate_plugins.study.report.values import Method, Model, Spread

MINUS = "\N{MINUS SIGN}"


def base(label: str, steps: int) -> Method:
    return Method(label, part="baseline", steps=steps, pictures=2, macs=1e9 * steps)


def gains(label: str, rival: str, mean: float, **other: object) -> Method:
    over = {"converged.psnr": Spread(mean, mean - 0.5, mean + 0.5)}
    return Method(label, part="ours", pictures=2, rival=rival, over_rival=over, **other)  # type: ignore[arg-type]  # fields are of all kinds


UNGATED, CONVERGED = base("ungated", 25), base("converged steps=200", 200)
TEN, TWENTY = base("fewer_steps steps=10", 10), base("fewer_steps steps=20", 20)


def model(*methods: Method) -> Model:
    return Model("m", steps=25, converged_steps=200, prompts=("a", "b"), methods=methods)


def test_the_row_to_beat_closes_each_group_of_equal_cost() -> None:
    """Dearest group first, in it the largest gain first."""
    low, high, late = (
        gains("low", TEN.label, -1),
        gains("high", TEN.label, 2),
        gains("x", TWENTY.label, 0),
    )
    found = groups(model(UNGATED, TEN, TWENTY, low, late, high, CONVERGED))
    assert [([m.label for m in g.members], g.rival and g.rival.label) for g in found] == [
        (["converged steps=200", "ungated"], None),
        (["x"], "fewer_steps steps=20"),
        (["high", "low"], "fewer_steps steps=10"),
    ]
    assert [g.pinned for g in found] == ["top", "", ""]


def test_what_saves_less_than_a_step_stands_over_the_ungated_run() -> None:
    """Its rival is the ungated run itself."""
    found = groups(model(UNGATED, gains("x", "ungated", -1)))
    assert (found[1].title, found[1].rival) == ("saves less than a step", UNGATED)


def test_every_method_is_in_the_table_whatever_became_of_it() -> None:
    """Refused, failed, not yet run, without rival, explaining: none is lost."""
    others = (
        Method("refused", status="refused"),
        Method("failed", status="failed"),
        Method("pending"),
        Method("stray", part="ours", pictures=1, rival="fewer_steps steps=3"),
        Method("figure", part="figure", pictures=1),
    )
    found = groups(model(UNGATED, *others))
    assert {g.title: [m.label for m in g.members] for g in found} == {
        "what is compared with": ["ungated"],
        "no fewer-steps run to compare with": ["stray"],
        "figures: they explain, and save nothing": ["figure"],
        "did not run": ["refused", "failed", "pending"],
    }
    assert found[-1].pinned == "bottom"


def test_columns_that_nobody_fills_are_left_out() -> None:
    """No FID without 2,000 pictures, no column of dashes either."""
    titles = [c.title for c in columns(model(UNGATED, TEN))]
    assert titles == ["steps", "MACs", "made"]
    assert "FID" in [c.title for c in columns(model(Method("a", pictures=1, fid=3.0)))]


def test_a_difference_shows_interval_verdict_and_bar() -> None:
    """The bar is by square roots, zero in the middle, the widest end at the edge."""
    found = model(TEN, gains("a", TEN.label, 0.3), gains("b", TEN.label, -3.5))
    column = next(c for c in columns(found) if c.title == "to converged, dB")
    even, worse, rival = (column.fill(m) for m in (*found.methods[1:], TEN))
    assert (even.main, even.small, even.verdict) == (
        "+0.30",
        f"{MINUS}0.20 to +0.80; no difference",
        "same",
    )
    assert (worse.main, worse.verdict) == (f"{MINUS}3.50", "worse")
    assert worse.bar is not None
    assert (worse.bar.left, round(worse.bar.middle, 1)) == (0.0, 3.2)
    assert (rival.sort, rival.bar, rival.verdict) == (None, None, None)


def test_identical_pictures_have_no_psnr_and_say_so() -> None:
    """An infinite mean is not a number, but it is not missing."""
    exact = Method("a", pictures=3, measures={"ungated.psnr": Spread(n=3, identical=3)})
    some = Method("b", pictures=3, measures={"ungated.psnr": Spread(30, 29, 31, n=3, identical=1)})
    column = next(c for c in columns(model(exact, some)) if c.title == "PSNR, dB")
    assert column.fill(exact).main == "identical"
    assert (column.fill(some).main, column.fill(some).small) == (
        "30.0",
        "29.0 to 31.0; 1 identical",
    )
