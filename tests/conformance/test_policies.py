"""Every policy we ship keeps the promises asked of everybody's."""

from __future__ import annotations

import functools
from typing import Any

import tgate_sampling as tg
from tgate_sampling._manager import new_manager
from tgate_sampling.testing import check_policy, parametrize_policy_checks

#: Options of those that do not run on their defaults, and of those with more than one way.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "fixed_step": [{"gate_step": 3}, {"fraction": 0.4}, {"sigma": 2.0}],
    "budgeted": [{"speedup": 1.5}, {"rows": 30}],
    "interleave": [{}, {"every": 3, "warm_up": 1, "gates": ("guidance", "cross")}],
    "tgate": [{}, {"gate_step": 5, "sp_interval": 3, "fi_interval": 2}],
}


def label(name: str, options: dict[str, Any]) -> str:
    return "-".join([name, *(f"{k}={v}" for k, v in options.items())])


BUILT_IN = {
    label(name, options): functools.partial(tg.get_policy, name, **options)
    for name in new_manager().policies
    for options in OPTIONS.get(name, [{}])
}


@parametrize_policy_checks(BUILT_IN)
def test_built_in_policies(case: Any, check: Any) -> None:
    """One item for each policy and check."""
    check(case)


def third(step: tg.StepContext) -> bool:
    return step.progress >= 1 / 3


def loud(step: tg.StepContext, signals: tg.Signals) -> set[str]:
    return {"cross"} if "cross" in signals and signals["cross"].worst_change < 0.1 else set()


def test_a_function_is_a_policy_too() -> None:
    """Of the step, or of the step and its signals; a function has no options to describe."""
    heard = functools.partial(tg.policy, signals=("cross",), gates=("cross",))
    for function in (third, heard()(loud)):
        results = check_policy(lambda function=function: function, on_fail="collect")
        assert [r.name for r in results if not r.passed] == []
