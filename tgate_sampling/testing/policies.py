"""`check_policy`: whether a policy keeps the promises that a run rests on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from tgate_sampling.policy import Policy
from tgate_sampling.testing import policy_answers as answers
from tgate_sampling.testing import policy_values as values
from tgate_sampling.testing.made_up import PolicyCase
from tgate_sampling.testing.results import CheckResult, OnFail, run_checks

#: All of them, the simplest first.
POLICY_CHECKS: Final[tuple[Callable[[PolicyCase], None], ...]] = (
    answers.check_answers_are_legal,
    answers.check_settings_are_legal,
    answers.check_only_declared_gates_close,
    answers.check_first_step_is_computed,
    answers.check_one_step_run_works,
    answers.check_unknown_total_works,
    values.check_runs_decide_alike,
    values.check_runs_do_not_mix,
    values.check_evaluations_agree,
    values.check_options_stay,
    values.check_copies_decide_alike,
    values.check_description_says_the_options,
    answers.check_plan_agrees_with_decide,
)


def check_policy(
    factory: Callable[[], Any] | Policy,
    *,
    on_fail: OnFail = "raise",
    skip: Collection[str] = (),
) -> list[CheckResult]:
    """Run every check on a policy; no weights and no diffusers needed.

    Args:
        factory: the policy's class, a function without arguments that returns a policy, or a
            policy.
        on_fail: "raise" stops at the first failure, "collect" returns them all.
        skip: names of checks to leave out.

    Raises:
        ConformanceError: a check failed, and `on_fail` is "raise".

    Example:
        >>> import tgate_sampling as tg
        >>> results = check_policy(lambda: tg.get_policy("fixed_step", gate_step=3))
        >>> {r.passed for r in results}
        {True}
    """
    return run_checks(POLICY_CHECKS, PolicyCase(factory), on_fail=on_fail, skip=skip)
