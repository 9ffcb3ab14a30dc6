"""Each check catches its planted offender, and no check is without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.errors import OptionError
from tgate_sampling.testing import (
    ADAPTER_CHECKS,
    PLUGIN_CHECKS,
    POLICY_CHECKS,
    CheckResult,
    ConformanceError,
    FakeAdapter,
    check_adapter,
    check_plugin,
    check_policy,
    fake_backbone,
)

offenders = load_helper("conformance/offenders.py")

#: What each kind of offender is put through.
DOORS: dict[str, tuple[dict[str, Any], Any, Callable[..., list[CheckResult]]]] = {
    "adapters": (
        offenders.ADAPTERS,
        ADAPTER_CHECKS,
        lambda c, **more: check_adapter(c.adapter, c.model_factory, inputs=c.inputs, **more),
    ),
    "policies": (offenders.POLICIES, POLICY_CHECKS, check_policy),
    "plugins": (offenders.PLUGINS, PLUGIN_CHECKS, check_plugin),
}


def others(checks: Any, name: str) -> list[str]:
    return [check.__name__ for check in checks if check.__name__ != name]


@pytest.mark.parametrize(
    ("kind", "sin"), [(kind, sin) for kind, (sins, _, _) in DOORS.items() for sin in sins]
)
def test_an_offender_is_caught(kind: str, sin: str) -> None:
    """By its own check, with a sentence that says what the sin is."""
    sins, checks, door = DOORS[kind]
    offender = sins[sin]
    skip = others(checks, offender.check)
    (result,) = door(offender.make(), on_fail="collect", skip=skip)
    assert (result.name, result.passed) == (offender.check, False)
    assert offender.says in result.message


@pytest.mark.parametrize("kind", DOORS)
def test_every_check_has_an_offender(kind: str) -> None:
    """A check that nothing can fail proves nothing."""
    sins, checks, _ = DOORS[kind]
    assert {offender.check for offender in sins.values()} == {c.__name__ for c in checks}


@pytest.mark.parametrize("kind", DOORS)
def test_every_check_says_what_it_asks_for(kind: str) -> None:
    """One sentence of its own, for people who read a failing item's name."""
    _, checks, _ = DOORS[kind]
    firsts = [(check.__doc__ or "").strip().split("\n\n")[0] for check in checks]
    assert all(first.endswith(".") for first in firsts)
    assert len(set(firsts)) == len(checks)


#: Sins that spoil one thing only: every other check must pass, or it checks something else too.
NARROW = {
    "adapters": ["takes other rows", "flipped rows", "returns float32", "takes over"],
    "policies": ["hides its option", "plans otherwise", "waits for a second look"],
    "plugins": ["has a default", "registers at import", "a layer that is none"],
}


@pytest.mark.parametrize(("kind", "sin"), [(k, s) for k, sins in NARROW.items() for s in sins])
def test_a_narrow_sin_fails_one_check(kind: str, sin: str) -> None:
    """Checks do not fail for each other's reasons."""
    sins, _, door = DOORS[kind]
    results = door(sins[sin].make(), on_fail="collect")
    assert [r.name for r in results if not r.passed] == [sins[sin].check]


def test_a_failure_raises_unless_collected() -> None:
    """The check's name, then its sentence; the error is an assertion and one of ours."""
    expected = r"^check_only_declared_gates_close: step \d of \d+ closes self, and gates declares"
    with pytest.raises(ConformanceError, match=expected) as caught:
        check_policy(offenders.policies.ClosesTooMuch)
    assert isinstance(caught.value, AssertionError)


def test_a_collected_result_is_a_line() -> None:
    """Passed, failed with the sentence, or left out with the reason."""
    skip = others(POLICY_CHECKS, "check_plan_agrees_with_decide")
    lines = [
        str(check_policy(policy, on_fail="collect", skip=skip)[0])
        for policy in (
            offenders.policies.PlansTooLittle,
            offenders.policies.ClosesTooMuch,
            tg.get_policy("never"),
        )
    ]
    assert lines == [
        "FAILED   check_plan_agrees_with_decide: plan(1) has 0 answers: give one for every step",
        "left out check_plan_agrees_with_decide: the policy has no plan",
        "passed   check_plan_agrees_with_decide",
    ]


def test_what_is_skipped_is_not_run() -> None:
    """A check by name; a name that is none is refused, with the nearest."""
    names = [r.name for r in check_adapter(FakeAdapter, fake_backbone, skip=["check_open_is_free"])]
    assert names == [c.__name__ for c in ADAPTER_CHECKS if c.__name__ != "check_open_is_free"]
    with pytest.raises(OptionError, match="Did you mean 'check_open_is_free'"):
        check_adapter(FakeAdapter, fake_backbone, skip=["check_open_is_fre"])
    with pytest.raises(OptionError, match="Did you mean 'collect'"):
        check_adapter(FakeAdapter, fake_backbone, on_fail="colect")  # type: ignore[arg-type]
