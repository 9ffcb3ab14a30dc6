"""Checks of policies: they are values, which runs, copies and evaluations leave alone."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
from typing import Any

import torch

from tgate_sampling.policy import RESERVED, FunctionPolicy, Policy, describe
from tgate_sampling.testing.made_up import (
    PACES,
    Course,
    PolicyCase,
    courses,
    gated_run,
    key,
    keys,
    where,
)
from tgate_sampling.testing.results import ConformanceError, claim


def check_runs_decide_alike(case: PolicyCase) -> None:
    """The same run twice, by one policy, gives the same decisions."""
    policy = case.policy()
    for course in courses():
        first, second = keys(course.walk(policy)), keys(course.walk(policy))
        claim(
            first == second,
            f"two equal runs of {course.steps} steps were decided otherwise in step "
            f"{where(first, second)}: keep the state of a run in what begin() returns, and decide "
            "nothing by chance",
        )


def check_runs_do_not_mix(case: PolicyCase) -> None:
    """Two runs at once, step by step in turns, are decided as each would be alone."""
    policy = case.policy()
    slow, fast = Course(25, pace=PACES[1]), Course(25, pace=PACES[0])
    alone = [keys(course.walk(policy)) for course in (slow, fast)]
    walks = [course.walk(policy, policy.begin()) for course in (slow, fast)]
    together: list[list[Any]] = [[], []]
    for steps in zip(*walks, strict=True):
        for own, decision in zip(together, steps, strict=True):
            own.append(key(decision))
    for own, expected in zip(together, alone, strict=True):
        claim(
            own == expected,
            f"beside another run step {where(own, expected)} was decided otherwise than alone: "
            "let every begin() return a decider with state of its own",
        )


def check_evaluations_agree(case: PolicyCase) -> None:
    """The decision of a step holds for all its evaluations, whichever it is asked at."""
    policy = case.policy()
    for course in courses():
        first = keys(course.walk(policy))
        second = keys(dataclasses.replace(course, evaluation=1).walk(policy))
        claim(
            first == second,
            f"step {where(first, second)} of {course.steps} is decided otherwise at its second "
            "evaluation: decide by step.index or step.progress, since the decision holds for the "
            "whole step",
        )


def check_options_stay(case: PolicyCase) -> None:
    """Runs leave a policy's attributes as they were."""
    policy = case.policy()
    before = copy.deepcopy(vars(policy))
    for course in courses():
        list(course.walk(policy))
        policy.plan(course.steps)
    gated_run(policy, 4)
    # A cached property is computed from the options and forgets nothing.
    cached = {
        n for n, v in inspect.getmembers(type(policy)) if isinstance(v, functools.cached_property)
    }
    after = {k: v for k, v in vars(policy).items() if k in before or k not in cached}
    odd = sorted(k for k in before.keys() | after.keys() if not _same(before, after, k))
    claim(
        not odd,
        f"a run changed {', '.join(odd)} of the policy, which the next run then reads: keep what a "
        "run must remember in what begin() returns",
    )


def _same(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    if name not in before or name not in after:
        return False
    old, new = before[name], after[name]
    if isinstance(new, torch.Tensor):
        return isinstance(old, torch.Tensor) and torch.equal(old, new)
    # A deep copy of an object without an equality of its own equals nothing.
    plain = all("__eq__" not in vars(base) for base in type(new).__mro__[:-1])
    if plain and hasattr(new, "__dict__") and type(old) is type(new):
        return bool(vars(old) == vars(new))
    return bool(old == new)


def check_copies_decide_alike(case: PolicyCase) -> None:
    """Copies and pickles of a policy decide as it does."""
    policy = case.policy()
    copies: list[Policy] = [copy.copy(policy), copy.deepcopy(policy)]
    try:
        copies.append(pickle.loads(pickle.dumps(policy)))
    except Exception as error:
        raise ConformanceError(
            f"the policy cannot be pickled ({type(error).__name__}: {error}): define its class and "
            "the functions it holds at the top of a module, and keep locks and handles out of it"
        ) from error
    for other in copies:
        for course in courses():
            claim(
                keys(course.walk(other)) == keys(course.walk(policy)),
                f"a copy of the policy decides otherwise in a run of {course.steps} steps: let "
                "__init__ only store its arguments",
            )


def check_description_says_the_options(case: PolicyCase) -> None:
    """`describe` gives one line with the policy's name and the options that were set."""
    policy = case.policy()
    said = describe(policy)
    claim(
        bool(said.strip()) and "\n" not in said and " at 0x" not in said,
        f"a report would call the policy {said!r}: give it a one-line name",
    )
    # A function's name is all there is to say: what else it was given are no options.
    options = (
        {} if isinstance(policy, FunctionPolicy) else inspect.signature(type(policy)).parameters
    )
    for option in options.values():
        value = getattr(policy, option.name, option.default)
        hidden = option.name in {"name", *RESERVED} or _hides(policy, option.name)
        if hidden or value is option.default or value == option.default:
            continue
        claim(
            f"{option.name}={value!r}" in said,
            f"a report would call the policy {said!r}, without its {option.name}={value!r}: make "
            "it a frozen dataclass, whose fields are its options",
        )


def _hides(policy: Policy, option: str) -> bool:
    """Whether a dataclass leaves this field out of its repr on purpose."""
    if not dataclasses.is_dataclass(policy):
        return False
    return any(f.name == option and not f.repr for f in dataclasses.fields(policy))
