"""Checks of policies: what they may say, and what a run must be able to do with it."""

from __future__ import annotations

from typing import Any

from tgate_sampling.decision import GATES
from tgate_sampling.policy import MEASURED
from tgate_sampling.run import choose_filling
from tgate_sampling.testing.made_up import (
    PACES,
    Course,
    PolicyCase,
    courses,
    gated_run,
    keys,
    where,
)
from tgate_sampling.testing.results import DoesNotApplyError, claim


def check_answers_are_legal(case: PolicyCase) -> None:
    """In runs of any length every step gets a bool, gate names, or a `Decision`."""
    for course in courses():
        list(course.walk(case.policy()))


def check_settings_are_legal(case: PolicyCase) -> None:
    """Gates, signals, estimator and merge rule exist, and go together."""
    policy = case.policy()
    for option, known in (("gates", GATES), ("signals", MEASURED)):
        for name in getattr(policy, option):
            claim(name in known, f"{option} holds {name!r}: it must be one of {', '.join(known)}")
    choose_filling(policy, None, None, None)
    claim(policy.warm_up >= 0, f"warm_up={policy.warm_up} must be 0 or more")


def check_only_declared_gates_close(case: PolicyCase) -> None:
    """What a policy closes is among its `gates`."""
    policy = case.policy()
    for course in courses():
        for index, decision in enumerate(course.walk(policy)):
            odd = sorted(decision.closed - set(policy.gates))
            claim(
                not odd,
                f"step {index} of {course.steps} closes {', '.join(odd)}, and gates declares only "
                f"{', '.join(sorted(policy.gates)) or 'none'}: add it there",
            )


def check_first_step_is_computed(case: PolicyCase) -> None:
    """In a gated run of a tiny model the first step is full, and every step has its decision."""
    steps = 6
    report = gated_run(case.policy(), steps)
    claim(
        report.complete and len(report.steps) == steps,
        f"a run of {steps} steps ended after {len(report.steps)}: answer every step",
    )
    _claim_full(report.steps[0], "the first step")


def _claim_full(step: Any, what: str) -> None:
    closed = set(step.decision.closed)
    for call in step.calls:
        closed |= {kind for kind, names in call.reused.items() if names}
        closed |= {"guidance"} if call.ran < call.rows else set()
    claim(
        not closed,
        f"{what} closed {', '.join(sorted(closed))}, where nothing is stored yet: return plain "
        "decisions, whose without() opens gates",
    )


def check_one_step_run_works(case: PolicyCase) -> None:
    """A run of one step is planned, decided and carried out in full."""
    policy = case.policy()
    list(Course(1).walk(policy))
    policy.plan(1)
    report = gated_run(policy, 1)
    claim(len(report.steps) == 1, "a run of one step has no step in its report")
    _claim_full(report.steps[0], "the only step of a run")


def check_unknown_total_works(case: PolicyCase) -> None:
    """A sampler that finds its steps as it goes has `step.total` None, and is answered."""
    for pace in PACES:
        list(Course(12, known=False, pace=pace).walk(case.policy()))


def check_plan_agrees_with_decide(case: PolicyCase) -> None:
    """A plan has an answer for every step, and the one that `decide` gives."""
    policy = case.policy()
    planned = False
    for course in courses():
        plan = policy.plan(course.steps)
        if plan is None:
            continue
        planned = True
        claim(
            len(plan) == course.steps,
            f"plan({course.steps}) has {len(plan)} answers: give one for every step",
        )
        decided = keys(course.walk(policy))
        said = keys(Course(course.steps).walk(policy, lambda step, _: plan[step.index]))  # noqa: B023  # used up in this turn
        claim(
            said == decided,
            f"plan({course.steps}) and decide disagree in step {where(said, decided)}: let both "
            "ask one function",
        )
    if not planned:
        raise DoesNotApplyError("the policy has no plan")
