"""Policies that look at guidance where the run itself says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tgate_sampling as tg
from tests import pipes
from tests.compose import toys
from tests.kload import sampling
from tgate_plugins.error_controlled import Budgeted, ErrorControlled, expected
from tgate_plugins.interleave import Interleave
from tgate_sampling.errors import OptionError
from tgate_sampling.policy import DEFAULT_POLICY
from tgate_sampling.signals import Signal, Signals
from tgate_sampling.testing import tiny_denoiser, tiny_unet

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]


def guidance(*, error: float = 0.0, cosine: float = 0.0) -> Signals:
    return Signals({"guidance": Signal((error,), (cosine,))})


def drive(policy: tg.Policy, total: int, answer: Any) -> str:
    """One character a step: `#` where guidance closes; `answer(index)` is what a look measures."""
    decide, marks, before = policy.begin(), [], Signals()
    for index in range(total):
        decision: Any = decide(tg.StepContext.at(index, total), before)
        closed = "guidance" in decision.closed
        marks.append("#" if closed else ".")
        before = Signals() if closed else answer(index)
    return "".join(marks)


@pytest.mark.parametrize("total", [5, 7, 12, 22, 25])
def test_a_perfect_estimate_is_interleaved(total: int) -> None:
    """With no error every step closes that `interleave` closes."""
    plan = Interleave().plan(total)
    marks = "".join("#" if d.closed else "." for d in plan)
    assert drive(ErrorControlled(), total, lambda i: guidance(error=0.0)) == marks


def test_a_bad_estimate_is_never_used() -> None:
    """With an error above the tolerance every step is guided."""
    assert drive(ErrorControlled(), 12, lambda i: guidance(error=1.0)) == "." * 12


@pytest.mark.parametrize(
    ("errors", "marks"),
    [
        ({}, "...#.#..#"),
        ({2: 0.5}, ".....#..#"),
        # Wrong by 0.9 over two steps is wrong by 0.32 over one.
        ({4: 0.9}, "...#.#..#"),
        ({4: 2.0}, "...#....#"),
    ],
)
def test_one_bad_look_costs_the_estimates_that_rest_on_it(
    errors: dict[int, float], marks: str
) -> None:
    """What would have been estimated is looked at, and judged by its own distance afterwards."""
    policy = ErrorControlled(tolerance=0.4)
    assert drive(policy, 9, lambda i: guidance(error=errors.get(i, 0.1))) == marks


@given(error=st.floats(0, 2), gap=st.integers(1, 6))
def test_an_estimate_is_worse_the_longer_ago_the_look(error: float, gap: int) -> None:
    """At the distance that was measured it is as measured, before that less, after it more."""
    assert expected(error, gap, gap) == pytest.approx(error)
    assert expected(error, gap, gap + 1) >= expected(error, gap, gap) >= expected(error, gap, 1)


@settings(deadline=None)
@given(
    errors=st.lists(st.floats(0, 1), min_size=40, max_size=40),
    total=st.integers(1, 40),
    extra=st.integers(1, 40),
)
def test_a_budget_is_never_exceeded(errors: Sequence[float], total: int, extra: int) -> None:
    """Whatever is measured, a run of `total` steps costs at most the rows it was given."""
    policy = Budgeted(rows=total + extra)
    marks = drive(policy, total, lambda i: guidance(error=errors[i]))
    assert marks[0] == "."
    assert total + marks.count(".") <= max(total + extra, total + 1)


def test_a_budget_is_spent() -> None:
    """With nothing to prefer, looks are spread and all are used."""
    marks = drive(Budgeted(rows=36), 23, lambda i: guidance(error=0.1))
    assert marks.count(".") == 13


def test_a_speedup_is_a_budget() -> None:
    """1.25x of 40 rows are 32."""
    assert Budgeted(speedup=1.25).looks(20) == 12


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "either rows or speedup"),
        ({"rows": 30, "speedup": 1.5}, "either rows or speedup"),
        ({"speedup": 2.5}, "between 1 and 2"),
        ({"rows": 1}, "2 or more"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(options: dict[str, Any], sentence: str) -> None:
    """One sentence, before anything is touched."""
    with pytest.raises(OptionError, match=sentence):
        tg.get_policy("budgeted", **options)


def test_adaptive_guidance_closes_where_the_branches_agree_and_looks_again() -> None:
    """Closed from step 4 on, a look every third step; re-opened when they part."""
    policy = tg.get_policy("adaptive_guidance", threshold=0.9, hysteresis=0.05, look_every=3)
    cosines = {3: 0.95, 6: 0.86, 9: 0.80, 10: 0.89, 11: 0.91}
    marks = drive(policy, 14, lambda i: guidance(cosine=cosines.get(i, 0.0)))
    assert marks == "....##.##...##"


def test_guidance_interval_closes_outside() -> None:
    """The first step is guided by the run in any case; the plan itself follows the interval."""
    policy = tg.get_policy("guidance_interval", start=0.2, stop=0.6)
    plan: Any = policy.plan(10)
    assert "".join("#" if d.closed else "." for d in plan) == "##....####"


def test_guidance_signals_are_the_error_and_the_cosine_of_this_run() -> None:
    """Measured at each look: what the estimate would have cost, and cos of denoised branches."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    seen: list[Signals] = []

    @tg.policy(name="spy_on_guidance", gates=("guidance",), signals=("guidance",))
    def spy(step: tg.StepContext, signals: tg.Signals) -> bool:
        seen.append(signals)
        return False

    with tg.gate(pipe, spy):
        toys.generate(pipe, steps=5)
    assert [len(s) for s in seen] == [0, 1, 1, 1, 1]
    for signals in seen[1:]:
        (kind,) = signals.values()
        assert list(kind.sites) == ["denoised"]
        assert 0 <= kind.worst_change < 10
        assert -1 <= kind.worst_cosine <= 1.0001


def test_the_default_needs_no_number_and_falls_back_to_full_guidance() -> None:
    """On a random network no estimate is good, so the default computes everything, bitwise."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    bare = toys.generate(pipe, steps=6)
    with tg.gate(pipe) as gating:
        gated = toys.generate(pipe, steps=6)
    assert gating.report.policy == f"{DEFAULT_POLICY}()" == "error_controlled()"
    if not gating.report.closed:
        assert torch.equal(gated, bare)


def test_a_sampler_without_a_policy_takes_the_default() -> None:
    """`wrap_sampler(sample)` alone does the same."""
    sample = tg.wrap_sampler("euler")
    sigmas = sampling.get_sigmas_karras(8, 0.05, 14.0)
    with torch.no_grad():
        sample(tiny_denoiser(), torch.ones(1, 4, 8, 8), sigmas, disable=True)
    assert sample.report.policy == "error_controlled()"


@pytest.mark.parametrize("policy", ["error_controlled", "adaptive_guidance"])
def test_an_exact_estimate_changes_nothing(policy: str) -> None:
    """Where delta never changes, `hold` is exact: the gated latents are the full ones."""
    oracle = toys.Oracle()
    oracle.delta = lambda cond, level: torch.full_like(cond, 0.05)
    pipe = pipes.pipeline(oracle, toys.scheduler("ddim"))
    full = toys.generate(pipe, steps=10)
    options = {"threshold": -1.0} if policy == "adaptive_guidance" else {}
    with toys.oracle_backbone(), tg.gate(pipe, policy, estimator="hold", **options) as gating:
        gated = toys.generate(pipe, steps=10)
    assert gating.report.closed["guidance"]
    torch.testing.assert_close(gated, full, rtol=1e-5, atol=1e-5)
