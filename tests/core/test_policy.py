"""What goes where a policy goes, and how it is named and asked."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

import tgate_sampling as tg
from tgate_sampling._manager import manager
from tgate_sampling.errors import OptionError, PluginError, PolicyError, UnknownNameError
from tgate_sampling.policy import FunctionPolicy, as_policy, describe
from tgate_sampling.signals import Signals
from tgate_sampling.testing import tiny_unet

FIRST = tg.StepContext.at(0, 10)


@dataclasses.dataclass(frozen=True)
class Every(tg.Policy):
    """Closes every `k`-th step."""

    name = "every"
    k: int = 2

    def decide(self, step: tg.StepContext, signals: Signals) -> bool:
        return step.index % self.k == 0


def late(step: tg.StepContext) -> bool:
    return step.progress >= 0.5


def by_signal(step: tg.StepContext, signals: Signals) -> bool:
    return "cross" in signals


@pytest.mark.parametrize(
    ("value", "options", "says"),
    [
        ("fixed_step", {"gate_step": 3}, "fixed_step(gate_step=3)"),
        (Every(3), {}, "every(k=3)"),
        (Every, {}, "every()"),
        (late, {}, "late"),
        (by_signal, {}, "by_signal"),
        (lambda step: False, {}, "<lambda>"),
    ],
)
def test_a_policy_is_a_name_a_value_a_class_or_a_function(
    value: Any, options: dict[str, Any], says: str
) -> None:
    """All of them gate, and describe themselves in one line."""
    made = as_policy(value, options)
    assert isinstance(made, tg.Policy)
    assert describe(made) == says


def test_a_function_is_asked_with_as_much_as_it_takes() -> None:
    """f(step), or f(step, signals)."""
    seen: list[tuple[Any, ...]] = []

    def one(step: tg.StepContext) -> bool:
        seen.append((step,))
        return True

    def two(step: tg.StepContext, signals: Signals) -> bool:
        seen.append((step, signals))
        return True

    signals = Signals()
    assert as_policy(one, {}).decide(FIRST, signals) is True
    assert as_policy(two, {}).decide(FIRST, signals) is True
    assert seen == [(FIRST,), (FIRST, signals)]


def test_a_default_argument_is_the_function_s_own() -> None:
    """`lambda step, gate=5: ...` is a function of the step: gate keeps its 5."""
    made = as_policy(lambda step, gate=5: step.index >= gate, {})
    assert [made.decide(tg.StepContext.at(i, 10), Signals()) for i in (4, 5)] == [False, True]


def test_signals_may_be_optional() -> None:
    """A second parameter called `signals` is given them, default or not."""
    made = as_policy(lambda step, signals=None: signals is not None, {})
    assert made.decide(FIRST, Signals()) is True


def test_the_decorator_registers_for_the_session() -> None:
    """@policy makes a function a policy with a name; running it again replaces it."""
    for answer in (True, False):

        @tg.policy
        def session_policy(step: tg.StepContext, answer: bool = answer) -> bool:
            return answer

        assert isinstance(session_policy, FunctionPolicy)
        assert session_policy(FIRST) is answer
        found = tg.get_policy("session_policy")
        assert found.decide(FIRST, Signals()) is answer
    assert "session_policy" in tg.policies()


def test_the_decorator_takes_a_name_gates_and_signals() -> None:
    """What it may close and wants measured is said beside it."""

    @tg.policy(name="another name", gates=("cross",), signals=("self",))
    def function(step: tg.StepContext) -> set[str]:
        return {"cross"}

    found = tg.get_policy("another name")
    assert (set(found.gates), set(found.signals)) == ({"cross"}, {"self"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gates": ("corss",)}, "gates='corss' is unknown. Did you mean 'cross'"),
        ({"signals": ("corss",)}, "signals='corss' is unknown. Did you mean 'cross'"),
    ],
)
def test_the_decorator_refuses_what_does_not_exist(options: dict[str, Any], says: str) -> None:
    """A misspelt gate or signal would otherwise be silently open, or silently absent."""
    with pytest.raises(OptionError, match=says):
        tg.policy(name="misspelt", **options)(late)
    assert "misspelt" not in tg.policies()


def test_a_session_policy_does_not_take_a_plugin_s_name() -> None:
    """The error names both owners."""
    with pytest.raises(PluginError, match=r"this session .*'never'.*tgate_plugins.never"):
        tg.policy(name="never")(late)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: tg.get_policy("fixd_step"), UnknownNameError, "Did you mean 'fixed_step'"),
        (
            lambda: tg.get_policy("fixed_step", gatestep=3),
            OptionError,
            "'fixed_step' has no option 'gatestep'. Did you mean 'gate_step'",
        ),
        (lambda: tg.get_policy("never", gate_step=3), OptionError, "no option 'gate_step'"),
        (lambda: as_policy(Every(2), {"k": 3}), OptionError, "options go with a policy's name"),
        (lambda: as_policy(3, {}), OptionError, "neither a name, a policy nor a function"),
    ],
)
def test_a_wrong_policy_is_one_sentence(call: Any, error: Any, says: str) -> None:
    """Unknown names and options come with the nearest."""
    with pytest.raises(error, match=says):
        call()


def test_describe_names_only_what_was_set() -> None:
    """Defaults are left out, also of a class that is no dataclass."""

    class Plain(tg.Policy):
        def decide(self, step: tg.StepContext, signals: Signals) -> bool:
            return False

    assert describe(Every()) == "every()"
    assert describe(Plain()) == "Plain"


def test_a_policy_must_decide() -> None:
    """The base class says what is missing."""
    with pytest.raises(NotImplementedError, match=r"Policy must define decide\(step, signals\)"):
        tg.Policy().decide(FIRST, Signals())


def run_with(kit: Any, policy: Any, **options: Any) -> Any:
    unet = tiny_unet()
    before = kit.snapshot(unet)
    gating = tg.attach(unet, policy, layout="uncond_first", **options)
    try:
        kit.walk(unet, [901, 601, 301, 1], gating=gating)
    finally:
        gating.detach()
        assert kit.snapshot(unet) == before
    return gating


def test_a_policy_s_error_comes_out_with_its_name(kit: Any) -> None:
    """The error is the policy's own, with a note that says whose and where."""

    def broken(step: tg.StepContext) -> bool:
        return bool(1 / (2 - step.index))

    with pytest.raises(ZeroDivisionError) as caught:
        run_with(kit, broken)
    assert caught.value.__notes__ == ["raised by policy 'broken' at step 2"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "policy 'odd' answered None"),
        ({"text"}, "policy 'odd' closed text, and declares only cross"),
        ({"croos"}, "Did you mean 'cross'"),
    ],
)
def test_a_policy_s_wrong_answer_is_an_error_in_the_run(kit: Any, answer: Any, says: str) -> None:
    """It does not run on with something else."""

    @tg.policy(name="odd", gates=("cross",))
    def odd(step: tg.StepContext) -> Any:
        return answer if step.index == 1 else False

    with pytest.raises(PolicyError, match=says):
        run_with(kit, odd)


@pytest.mark.parametrize(
    "decision",
    [
        tg.Decision(frozenset({"guidance", "cross"}), merge="mean"),
        tg.Decision(frozenset({"guidance"}), rows="uncond"),
    ],
    ids=["mean", "uncond rows"],
)
def test_a_decision_must_fit_the_gating_s_estimator_too(kit: Any, decision: tg.Decision) -> None:
    """mean, or the uncond rows, would silently turn off the guidance that `hold` keeps alive."""

    def conflicting(step: tg.StepContext) -> tg.Decision:
        return decision

    with pytest.raises(OptionError, match="cannot go with estimator='hold'"):
        run_with(kit, conflicting)
    run_with(kit, conflicting, estimator="none")


def test_what_a_backbone_has_not_stays_open_with_a_reason(kit: Any) -> None:
    """A UNet has no text stream: the gate is left open, and the report says so."""

    def textual(step: tg.StepContext) -> set[str]:
        return {"text", "cross"}

    policy = tg.policy(name="textual", gates=("text", "cross"))(textual)
    report = run_with(kit, policy).report
    assert report.closed == {"cross": (1, 2, 3)}
    assert report.steps[1].decision.reason == "not gated on this backbone"


def test_the_default_policy_is_registered() -> None:
    """gate(pipe) names no policy."""
    from tgate_sampling.policy import DEFAULT_POLICY

    assert DEFAULT_POLICY in manager().policies


@tg.policy
def picked_up(step: tg.StepContext) -> bool:
    return step.index >= 3


def test_a_decorated_function_is_copied_and_pickled() -> None:
    """The decorator takes the function's name, so pickle finds the policy under it."""
    for twin in (copy.deepcopy(picked_up), pickle.loads(pickle.dumps(picked_up))):
        assert [twin.decide(tg.StepContext.at(i), Signals()) for i in (2, 3)] == [False, True]
