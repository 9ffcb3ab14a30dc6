"""At eight steps or fewer, attention gates of measuring policies stay where they pay."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.few_steps import FEW, SHARE, WORTH, kept_open
from tgate_sampling.testing import tiny_unet


def begins(total: int, gate: str = "cross") -> list[int]:
    """The steps in which a measured gate may begin to close."""
    wish = tg.Decision(frozenset({gate}))
    return [i for i in range(total) if not kept_open(wish, (), index=i, total=total)]


@pytest.mark.parametrize(
    ("total", "steps"),
    [(1, []), (2, [1]), (3, []), (4, [2]), (5, [3]), (6, [3]), (7, [4]), (8, [4, 5])],
)
def test_cross_begins_to_close_half_way_or_not_at_all(total: int, steps: list[int]) -> None:
    """Earlier is less tested than T-GATE's LCM settings, later saves less than it is worth."""
    assert begins(total) == steps


@pytest.mark.parametrize("total", range(1, FEW + 1))
def test_whatever_may_close_saves_what_it_is_worth(total: int) -> None:
    """At least 3 % of the run, at cross-attention's usual share of a forward."""
    assert all(SHARE * (total - i) / total >= WORTH - 1e-9 for i in begins(total))


@pytest.mark.parametrize("gate", ["self", "block"])
@pytest.mark.parametrize("total", [4, 8])
def test_self_attention_and_blocks_stay_open(gate: str, total: int) -> None:
    """Between so few steps they move too far; no published setting reuses them."""
    assert begins(total, gate) == []


def test_guidance_always_pays() -> None:
    """Closed in the last of eight steps it saves a sixteenth of the run."""
    assert all(begins(total, "guidance") == list(range(total)) for total in range(1, 9))
    assert 1 / (2 * FEW) >= WORTH


@pytest.mark.parametrize("total", [9, 25, None])
@pytest.mark.parametrize("gate", ["cross", "self", "block"])
def test_longer_runs_are_left_alone(gate: str, total: int | None) -> None:
    """And so are runs whose sampler finds its steps as it goes."""
    assert kept_open(tg.Decision(frozenset({gate})), (), index=1, total=total) == {}


def test_what_is_closed_may_stay_closed() -> None:
    """The rule is about beginning to close."""
    assert kept_open(tg.Decision(frozenset({"cross"})), {"cross"}, index=7, total=8) == {}


def lcm_pipe(kit: Any, **unet: Any) -> Any:
    pipe = kit.make_pipe(tiny_unet(**unet))
    pipe.scheduler = diffusers.LCMScheduler(prediction_type="v_prediction")
    return pipe


def run(kit: Any, policy: Any, *, steps: int, scale: float = 1.0, **options: Any) -> tg.Report:
    """One LCM run of a gated pipeline."""
    pipe = lcm_pipe(kit)
    with tg.gate(pipe, policy, **options) as gating:
        kit.call(pipe, steps=steps, guidance_scale=scale)
    return gating.report


def test_a_measuring_policy_waits_for_half_of_the_run(kit: Any) -> None:
    """It would have closed at step 2 of 8; it closes at 4, and the report says why."""
    report = run(kit, "convergence", threshold=10.0, patience=1, steps=8)
    assert report.closed == {"cross": (4, 5, 6, 7)}
    kept = [e for e in report.events if e.kind == "few steps cross"]
    assert [e.step for e in kept] == [2]
    assert "cross stays open before half of 8 steps" in kept[0].message
    assert "fixed_step(gate_step=2)" in kept[0].message


def test_too_late_to_pay_is_said_with_its_share(kit: Any) -> None:
    """Convergence that shows at step 3 of 4 would save some 2 % of the run."""
    report = run(kit, "convergence", threshold=10.0, patience=2, steps=4)
    assert report.closed == {}
    kept = [e for e in report.events if e.kind == "few steps cross"]
    assert [e.step for e in kept] == [3]
    assert "would save some 2% of the run, and below 3% is not worth it" in kept[0].message


def test_guidance_closes_while_attention_waits(kit: Any) -> None:
    """The gate that pays does not wait for the one that does not."""
    report = run(kit, "convergence", threshold=10.0, patience=1, steps=8, scale=4.0)
    assert report.closed == {"guidance": (2, 3, 4, 5, 6, 7), "cross": (4, 5, 6, 7)}
    assert report.rows == (10, 16)


def test_a_run_kept_open_is_the_bare_run(kit: Any) -> None:
    """Bit for bit."""
    pipe = lcm_pipe(kit)
    bare = kit.call(pipe, steps=4, guidance_scale=1.0)
    with tg.gate(pipe, "convergence", threshold=10.0):
        assert torch.equal(kit.call(pipe, steps=4, guidance_scale=1.0), bare)


@pytest.mark.parametrize("gate_step", [1, 2, 3])
@pytest.mark.parametrize("policy", ["fixed_step", "tgate"])
def test_a_step_that_was_named_is_obeyed(kit: Any, policy: str, gate_step: int) -> None:
    """Whatever the rule thinks of it."""
    report = run(kit, policy, gate_step=gate_step, steps=4)
    assert report.closed["cross"] == tuple(range(gate_step, 4))
    assert [e.kind for e in report.events] == ["guidance"]


def test_a_function_of_the_step_is_obeyed(kit: Any) -> None:
    """It says the step, as a number would; self-attention included."""

    def early(step: tg.StepContext) -> set[str]:
        return {"cross", "self"} if step.index >= 1 else set()

    report = run(kit, early, steps=4)
    assert report.closed == {"cross": (1, 2, 3), "self": (1, 2, 3)}


def test_a_function_that_measures_is_bound_by_the_rule(kit: Any) -> None:
    """It cannot know how little is left to save."""

    @tg.policy(name="measures", signals=("cross",))
    def measures(step: tg.StepContext, signals: tg.Signals) -> set[str]:
        return {"cross", "self"} if step.index >= 1 else set()

    report = run(kit, measures, steps=4)
    assert report.closed == {"cross": (2, 3)}
    assert {e.kind for e in report.events} >= {"few steps cross", "few steps self"}


def test_in_a_stack_only_measured_gates_are_bound(kit: Any) -> None:
    """A block gate with an interval beside a policy that measures keeps its interval."""
    report = run(
        kit,
        "convergence",
        threshold=10.0,
        steps=4,
        gates=("cross",),
        compose=[tg.get_policy("block", interval=2)],
    )
    assert report.closed["block"] == (1, 3)


def test_nine_steps_are_as_the_policy_says(kit: Any) -> None:
    """The rule ends at eight."""
    report = run(kit, "convergence", threshold=10.0, patience=1, steps=9)
    assert report.closed == {"cross": tuple(range(2, 9))}
    assert [e.kind for e in report.events] == ["guidance"]
