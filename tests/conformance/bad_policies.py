"""Policies with one sin each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tgate_sampling as tg
from tests.conftest import load_helper

Offender = load_helper("conformance/offender.py").Offender


class Mumbles(tg.Policy):
    """Names a gate where a set of names is wanted."""

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> Any:
        return "cross" if step.index else False


class Contradicts(tg.Policy):
    """Wants the mean of both branches, and guidance kept alive."""

    merge = "mean"
    estimator = "hold"

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index > 2


class ClosesTooMuch(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> set[str]:
        return {"self"} if step.index > 1 else set()


class Stubborn(tg.Decision):
    """A decision that does not give in."""

    def without(self, gates: Collection[str], reason: str) -> tg.Decision:
        return self


class ClosesAtOnce(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> tg.Decision:
        return Stubborn(frozenset({"cross"}))


class NeedsTwoSteps(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index > 3

    def plan(self, total: int) -> list[bool]:
        return [index / (total - 1) > 0.5 for index in range(total)]


class NeedsATotal(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index >= step.total // 2  # type: ignore[operator]


class CountsItsLife(tg.Policy):
    """Closes after so many steps, of whichever run."""

    def __init__(self) -> None:
        self.steps = 0

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        self.steps += 1
        return self.steps > 5


class OneRunAtATime(tg.Policy):
    """Starts anew with each run, and has one place for all of them."""

    def begin(self) -> Any:
        self._open = 0
        return super().begin()

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        self._open += 1
        return self._open > 5


class WaitsForASecondLook(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.evaluation > 0


class Adapts(tg.Policy):
    """Makes its option fit the run, and the next run pays."""

    def __init__(self, gate_step: int = 10) -> None:
        self.gate_step = gate_step

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        self.gate_step = min(self.gate_step, step.total or 10)
        return step.index >= self.gate_step


class Locks(tg.Policy):
    """Holds something that does not travel."""

    def __init__(self) -> None:
        self.when = lambda step: step.index > 2

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return bool(self.when(step))


class KnowsItself(tg.Policy):
    """Decides by who it is."""

    def __init__(self) -> None:
        self.born = id(self)

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return id(self) == self.born and step.index > 2


class HidesItsOption(tg.Policy):
    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.progress >= self.share


class PlansOtherwise(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index >= 3

    def plan(self, total: int) -> list[bool]:
        return [index > 3 for index in range(total)]


class PlansTooLittle(tg.Policy):
    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.index >= 3

    def plan(self, total: int) -> list[bool]:
        return [index >= 3 for index in range(total - 1)]


POLICIES = {
    "mumbles": Offender("check_answers_are_legal", lambda: Mumbles, "answered 'cross' (str)"),
    "no policy": Offender("check_answers_are_legal", lambda: dict, "the factory returned {}"),
    "contradicts": Offender(
        "check_settings_are_legal", lambda: Contradicts, "merge='mean' cannot go with"
    ),
    "closes too much": Offender(
        "check_only_declared_gates_close", lambda: ClosesTooMuch, "closes self, and gates declares"
    ),
    "closes at once": Offender(
        "check_first_step_is_computed", lambda: ClosesAtOnce, "the first step closed cross"
    ),
    "needs two steps": Offender(
        "check_one_step_run_works", lambda: NeedsTwoSteps, "ZeroDivisionError"
    ),
    "needs a total": Offender("check_unknown_total_works", lambda: NeedsATotal, "TypeError"),
    "counts its life": Offender(
        "check_runs_decide_alike", lambda: CountsItsLife, "were decided otherwise"
    ),
    "one run at a time": Offender(
        "check_runs_do_not_mix", lambda: OneRunAtATime, "beside another run"
    ),
    "waits for a second look": Offender(
        "check_evaluations_agree", lambda: WaitsForASecondLook, "at its second evaluation"
    ),
    "adapts": Offender("check_options_stay", lambda: Adapts, "a run changed gate_step"),
    "locks": Offender("check_copies_decide_alike", lambda: Locks, "cannot be pickled"),
    "knows itself": Offender(
        "check_copies_decide_alike", lambda: KnowsItself, "a copy of the policy decides otherwise"
    ),
    "hides its option": Offender(
        "check_description_says_the_options",
        lambda: lambda: HidesItsOption(share=0.25),
        "without its share=0.25",
    ),
    "plans otherwise": Offender(
        "check_plan_agrees_with_decide", lambda: PlansOtherwise, "disagree in step 3"
    ),
    "plans too little": Offender(
        "check_plan_agrees_with_decide", lambda: PlansTooLittle, "has 0 answers"
    ),
}
