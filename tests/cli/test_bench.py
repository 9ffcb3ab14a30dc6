"""One picture by one method: cost, failures, and the steps a budget buys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tgate_sampling as tg
from tgate_plugins.cli.bench import Bench, Cost, Method, say, steps_within
from tgate_plugins.cli.spec import Spec
from tgate_sampling.errors import OptionError

UNGATED = Method("ungated", "ungated", 6)


def gated(text: str, steps: int = 6) -> Method:
    return Method(text, "gated", steps, Spec.parse(text))


@pytest.fixture
def bench(pipe: Any) -> Bench:
    made = Bench(pipe, {"guidance_scale": 4.0})
    made.warm_up(["a cat"], 6)
    return made


def per_step(rows: float) -> Callable[[int], Cost]:
    return lambda steps: Cost(rows * steps, None)


@pytest.mark.parametrize(
    ("rows", "steps"), [(50, 25), (51, 25), (49, 24), (35, 17), (2, 1), (1, None), (900, 25)]
)
def test_a_budget_buys_the_most_steps_that_cost_no_more(rows: int, steps: int | None) -> None:
    assert steps_within(Cost(rows, None), per_step(2), 25) == steps


def test_a_budget_counts_macs_where_they_are_known() -> None:
    assert steps_within(Cost(40, 100.0), lambda steps: Cost(2 * steps, 10.0 * steps), 25) == 10


def test_rounding_in_a_mean_costs_no_step() -> None:
    assert steps_within(Cost(0.1 * 3 * 10, None), per_step(0.3), 25) == 10


def test_the_same_picture_comes_of_the_same_seed(bench: Bench) -> None:
    one, two = (bench.shoot(UNGATED, "a cat", 3) for _ in range(2))
    other = bench.shoot(UNGATED, "a cat", 4)
    assert (one.image == two.image).all()
    assert (one.image != other.image).any()


def test_a_policy_that_never_closes_draws_what_the_bare_pipeline_draws(bench: Bench) -> None:
    bare, open_ = bench.shoot(UNGATED, "a cat", 0), bench.shoot(gated("never"), "a cat", 0)
    assert (bare.image == open_.image).all()
    assert open_.cost.rows == bare.cost.rows == 12
    assert open_.cost.macs == pytest.approx(bare.cost.macs)


def test_a_gated_run_costs_what_its_report_says(bench: Bench, pipe: Any) -> None:
    shot = bench.shoot(gated("fixed_step:gate_step=2"), "a cat", 0)
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        pipe("a cat", num_inference_steps=6, guidance_scale=4.0)
    macs = gating.report.macs
    assert macs is not None
    assert shot.cost == Cost(8, macs.done.true)
    assert shot.closed == {"guidance": (2, 3, 4, 5), "cross": (2, 3, 4, 5)}


def test_the_pipeline_is_left_free_and_a_method_may_come_again(bench: Bench, pipe: Any) -> None:
    method = gated("fixed_step:gate_step=2")
    first, second = (bench.shoot(method, "a cat", 0) for _ in range(2))
    assert (first.image == second.image).all()
    assert first.cost == second.cost
    with tg.gate(pipe, "never"):
        pass


@dataclass(frozen=True)
class Broken(tg.Policy):
    """Fails at step 3."""

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        if step.index == 3:
            raise ZeroDivisionError("it broke")
        return False


def test_a_failure_is_an_answer_and_the_next_run_is_unharmed(
    bench: Bench, new_policy: Callable[..., None]
) -> None:
    new_policy("broken", Broken)
    before = bench.shoot(UNGATED, "a cat", 0)
    failed = bench.shoot(gated("broken"), "a cat", 0)
    after = bench.shoot(UNGATED, "a cat", 0)
    assert failed.image is None
    assert failed.error == "ZeroDivisionError: it broke"
    assert (before.image == after.image).all()


def test_a_picture_of_nan_is_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_call", lambda *_, **__: np.full((4, 4, 3), math.nan))
    shot = bench.shoot(UNGATED, "a cat", 0)
    assert shot.image is None
    assert shot.error is not None
    assert "holds NaN: try --dtype float32" in shot.error


def test_the_warm_up_tells_what_one_call_costs(bench: Bench) -> None:
    assert bench.unit.rows == 2
    assert bench.unit.macs is not None
    assert bench.ungated(6) == bench.unit.times(6)


def test_without_guidance_a_call_has_one_row(pipe: Any) -> None:
    bench = Bench(pipe, {"guidance_scale": 1.0})
    bench.warm_up(["a cat"], 1)
    assert bench.unit.rows == 1


def test_the_warm_up_takes_the_next_prompt_where_one_fails(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, called = Bench(pipe, {"guidance_scale": 4.0}), []
    honest = bench._call

    def picky(prompt: str, **settings: Any) -> Any:
        called.append(prompt)
        if prompt == "bad":
            raise RuntimeError("not this one")
        return honest(prompt, **settings)

    monkeypatch.setattr(bench, "_call", picky)
    bench.warm_up(["bad", "good", "never asked"], 2)
    assert called == ["bad", "good"]


def test_a_model_that_cannot_draw_at_all_is_bad_input(pipe: Any) -> None:
    with pytest.raises(OptionError, match=r"cannot draw even ungated \(ValueError: .*divisible"):
        Bench(pipe, {"width": 33, "height": 33}).warm_up(["a cat", "a dog"], 2)


def test_a_scheduler_that_wants_more_than_steps_is_counted_by_its_order(
    bench: Bench, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wants_more(self: Any, *_: Any) -> None:
        raise ValueError("mu is missing")

    monkeypatch.setattr(type(pipe.scheduler), "set_timesteps", wants_more)
    assert bench.calls(7) == 7


def test_an_exception_is_said_in_one_line() -> None:
    assert say(ValueError("a\n  b")) == "ValueError: a b"
    assert say(MemoryError()) == "MemoryError"
