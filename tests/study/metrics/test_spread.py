"""Means, tails and bootstrap intervals with known answers."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgate_plugins.study.metrics import Better, Summary, difference, summarize
from tgate_sampling.errors import OptionError

INF = math.inf
values = st.lists(st.floats(-100, 100), min_size=1, max_size=40)


def draws(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(n)


def width(summary: Summary) -> float:
    return summary.high - summary.low


def test_mean_tail_and_worst_are_those_of_the_values() -> None:
    found = summarize(np.arange(101.0))
    assert (found.mean, found.p5, found.worst, found.n, found.identical) == (50, 5, 0, 101, 0)


@pytest.mark.parametrize(
    ("better", "p5", "worst"), [("more", -9, -10), ("less", 9, 10), ("zero", -9, -10)]
)
def test_which_tail_is_bad_depends_on_the_metric(better: Better, p5: float, worst: float) -> None:
    found = summarize(np.linspace(-10, 10, 201), better=better)
    assert (found.p5, found.worst) == (pytest.approx(p5), pytest.approx(worst))


def test_the_worst_shift_is_the_farthest_from_zero_with_its_sign() -> None:
    assert summarize([0.1, -0.3, 0.2], better="zero").worst == -0.3
    assert summarize([0.1, -0.3, 0.4], better="zero").worst == 0.4


def test_the_interval_of_independent_values_is_the_normal_one() -> None:
    # 1.96 s / sqrt(n), which the bootstrap meets up to n / (n - 1) and its own noise.
    sample = draws(400)
    found = summarize(sample)
    half = 1.96 * sample.std() / 20
    assert found.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


def test_four_seeds_that_say_the_same_count_as_one() -> None:
    """Whole prompts are resampled, so copies of a picture narrow no interval."""
    once = draws(100)
    copies, prompts = np.repeat(once, 4), np.repeat(np.arange(100), 4)
    grouped = summarize(copies, prompts)
    assert grouped.low == pytest.approx(summarize(once).low)
    assert grouped.high == pytest.approx(summarize(once).high)
    # The planted offender: a bootstrap over pictures is fooled to half the width.
    assert width(summarize(copies)) == pytest.approx(width(grouped) / 2, rel=0.1)


def test_prompts_may_be_texts_and_have_any_number_of_seeds_in_any_order() -> None:
    found = summarize([1.0, 5.0, 3.0, 1.0], ["a", "b", "b", "a"])
    assert found.mean == 2.5
    # Two prompts: means of (a, a), (a, b), (b, b) with odds 1 : 2 : 1.
    assert (found.low, found.high) == (1.0, 4.0)
    # A resample of a and a holds two pictures, of a and b three: means of all pictures drawn.
    assert summarize([1.0, 4.0, 4.0], ["a", "b", "b"]).mean == 3.0


def test_nineteen_of_twenty_intervals_hold_the_true_mean() -> None:
    held = [
        found.low <= 0 <= found.high
        for seed in range(200)
        for found in [summarize(draws(60, seed), seed=seed)]
    ]
    assert 0.90 <= np.mean(held) <= 0.98


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    sample = draws(50)
    assert summarize(sample, seed=3) == summarize(sample, seed=3)
    assert summarize(sample, seed=3).low != summarize(sample, seed=4).low


def test_blocks_of_resamples_change_no_interval() -> None:
    # 5,000 groups are drawn in ten blocks.
    sample = draws(5000)
    half = 1.96 * sample.std() / math.sqrt(5000)
    found = summarize(sample)
    assert found.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


@settings(max_examples=50, deadline=None)
@given(sample=values, seed=st.integers(0, 9))
def test_the_interval_covers_the_mean_and_lies_within_the_values(
    sample: list[float], seed: int
) -> None:
    found = summarize(sample, seed=seed)
    slack = 1e-9
    assert min(sample) - slack <= found.low <= found.mean + slack
    assert found.mean - slack <= found.high <= max(sample) + slack
    assert found.worst == min(sample) <= found.p5


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60), st.integers(0, 5)), min_size=1))
def test_a_difference_turned_around_changes_its_sign(pairs: Any) -> None:
    a, b, prompts = (np.array(x) for x in zip(*pairs, strict=True))
    one, other = difference(a, b, prompts), difference(b, a, prompts)
    assert other.mean == pytest.approx(-one.mean, abs=1e-9)
    assert other.low == pytest.approx(-one.high, abs=1e-9)
    assert other.high == pytest.approx(-one.low, abs=1e-9)


def test_a_difference_is_paired() -> None:
    """A gain of 0.1 on every picture is certain, however much the pictures differ."""
    base = 20 + 10 * draws(40)
    found = difference(base + 0.1, base)
    assert [found.mean, found.low, found.high, found.worst] == pytest.approx([0.1] * 4)
    # The planted offender: two intervals, unpaired, overlap.
    assert summarize(base + 0.1).low < summarize(base).high


def test_identical_pictures_are_counted_and_left_out_of_mean_and_tail() -> None:
    found = summarize([INF, 30.0, 20.0, INF])
    assert (found.mean, found.worst, found.n, found.identical) == (25.0, 20.0, 4, 2)
    assert found.high <= 30.0


def test_all_identical_is_infinite_and_null_in_json() -> None:
    found = summarize([INF, INF])
    assert found == Summary(INF, INF, INF, INF, INF, 2, identical=2)
    nulls = dict.fromkeys(("mean", "low", "high", "p5", "worst"))
    assert found.to_dict() == nulls | {"n": 2, "identical": 2, "behind": 0}


def test_what_was_not_asked_is_not_counted() -> None:
    assert summarize([1.0, math.nan, 0.0]).n == 2
    assert summarize([1.0, math.nan, 0.0], ["a", "b", "a"]).mean == 0.5


@pytest.mark.parametrize("nothing", [[], [math.nan]])
def test_nothing_measured_is_nothing_said(nothing: list[float]) -> None:
    found = summarize(nothing)
    assert found.n == 0
    assert found.to_dict()["mean"] is None


def test_ungated_against_itself_differs_by_nothing() -> None:
    """PSNR infinite in both, accuracy the same: difference 0, not NaN."""
    psnr = difference([INF, INF], [INF, INF])
    assert (psnr.mean, psnr.low, psnr.high, psnr.n, psnr.identical) == (0, 0, 0, 2, 0)
    assert difference([1.0, 0.0], [1.0, 0.0]).mean == 0


def test_a_rival_that_equals_the_reference_is_not_hidden() -> None:
    found = difference([30.0, 31.0, INF], [29.0, INF, 40.0])
    assert (found.mean, found.n, found.identical, found.behind) == (1.0, 3, 1, 1)
    assert found.worst == -INF
    assert found.to_dict()["worst"] is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_that_is_nowhere_finite_is_infinite_or_unknown(sign: int) -> None:
    assert summarize([sign * INF]).mean == sign * INF
    both = summarize([INF, -INF])
    assert math.isnan(both.mean)
    assert (both.identical, both.behind, both.n) == (1, 1, 2)


def test_a_summary_is_a_value_that_json_can_say() -> None:
    found = summarize([1.0, 2.0])
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["mean"] == 1.5
    with pytest.raises(FrozenInstanceError):
        found.mean = 3.0


def test_groups_of_another_length_are_refused() -> None:
    with pytest.raises(OptionError, match="one value and one group a picture"):
        summarize([1.0, 2.0], [0])


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(OptionError, match="as many values of both"):
        difference([1.0, 2.0], [1.0])
