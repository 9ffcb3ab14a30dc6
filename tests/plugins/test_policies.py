"""The policies' own rules, on steps and signals made up for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tgate_sampling as tg
from tgate_plugins.convergence import Convergence
from tgate_plugins.cosine_delta import CosineDelta
from tgate_plugins.fixed_step import FixedStep
from tgate_plugins.tgate import TGate
from tgate_sampling import StepContext
from tgate_sampling._manager import new_manager
from tgate_sampling.decision import as_decision
from tgate_sampling.errors import OptionError
from tgate_sampling.settle import settle_all
from tgate_sampling.signals import Signal, Signals
from tgate_sampling.steps import Noise, gate_index

quick = settings(max_examples=60, deadline=None, derandomize=True)

NOTHING = Signals()


def closes(
    policy: tg.Policy, steps: list[StepContext], told: list[Signals] | None = None
) -> list[bool]:
    """Whether anything closes, step by step."""
    decide = policy.begin()
    told = told or [NOTHING] * len(steps)
    return [bool(as_decision(decide(s, t), "x").closed) for s, t in zip(steps, told, strict=True)]


def run_of(total: int | None, count: int, sigmas: list[float] | None = None) -> list[StepContext]:
    return [StepContext.at(i, total, sigma=sigmas[i] if sigmas else None) for i in range(count)]


# -- fixed_step ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "total", "first"),
    [
        ({"gate_step": 1}, 6, 1),
        ({"gate_step": 4}, 6, 4),
        ({"gate_step": 9}, 6, 6),
        ({"fraction": 0.4}, 25, 10),
        ({"fraction": 0.28}, 25, 7),  # 0.28 * 25 is 7.000000000000001
        ({"fraction": 0.01}, 6, 1),
        ({"fraction": 1.0}, 6, 6),
        ({"fraction": 1}, 6, 6),
    ],
)
def test_fixed_step_closes_at_a_step_or_a_share_of_the_run(
    options: dict[str, Any], total: int, first: int
) -> None:
    """Steps 0 to g - 1 are full and g is the first gated one; g is at least 1."""
    policy = FixedStep(**options)
    assert closes(policy, run_of(total, total)) == [i >= first for i in range(total)]


def test_fixed_step_closes_at_a_noise_level() -> None:
    """At or below sigma; where no noise level is known it stays open."""
    policy = FixedStep(sigma=2.0)
    sigmas = [9.0, 2.5, 2.0, 0.5]
    assert closes(policy, run_of(4, 4, sigmas)) == [False, False, True, True]
    assert closes(policy, run_of(4, 4)) == [False] * 4
    assert policy.plan(4) is None


def test_fixed_step_without_a_total_takes_the_log_of_sigma() -> None:
    """dpm_adaptive knows no number of steps: half of the way from 16 to 1 is 4."""
    sigmas = [16.0, 8.0, 4.0, 2.0]
    steps = [
        StepContext(i, None, 0, Noise(lambda s=s: s, span=lambda: (16.0, 1.0)))  # type: ignore[misc]
        for i, s in enumerate(sigmas)
    ]
    assert closes(FixedStep(fraction=0.5), steps) == [False, False, True, True]
    assert closes(FixedStep(gate_step=3), steps) == [False, False, False, True]


@given(st.integers(1, 60), st.floats(0.001, 1.0))
@quick
def test_a_fraction_is_never_before_its_time(total: int, fraction: float) -> None:
    """The gate step is the first whose share of the run reaches the fraction."""
    index = gate_index(total, fraction=fraction)
    assert 1 <= index <= total
    assert index >= fraction * total - 1e-6
    assert index == 1 or index - 1 < fraction * total


# -- planned and live ---------------------------------------------------------------------------

PLANNED = st.one_of(
    st.builds(FixedStep, gate_step=st.integers(1, 30)),
    st.builds(FixedStep, fraction=st.floats(0.01, 1.0)),
    st.builds(
        TGate,
        gate_step=st.integers(1, 30),
        sp_interval=st.integers(1, 7),
        fi_interval=st.integers(1, 5),
        warm_up=st.integers(0, 12),
    ),
)


@given(PLANNED, st.integers(1, 30))
@quick
def test_a_plan_says_what_decide_says(policy: tg.Policy, total: int) -> None:
    """A planned policy may also be asked step by step."""
    plan = policy.plan(total)
    assert plan is not None
    decide = policy.begin()
    live = [as_decision(decide(s, NOTHING), "x") for s in run_of(total, total)]
    assert [as_decision(a, "x") for a in plan] == live


@pytest.mark.parametrize("name", sorted(new_manager().policies))
@pytest.mark.parametrize("total", [1, 2, 7, 25])
def test_every_policy_that_plans_plans_every_step(name: str, total: int) -> None:
    """A plan has an answer a step, closes only declared gates, and agrees with decide."""
    needed = {"fixed_step": {"gate_step": 3}, "budgeted": {"speedup": 1.5}}
    policy = tg.get_policy(name, **needed.get(name, {}))
    plan = policy.plan(total)
    if plan is None:
        return
    decisions = [as_decision(a, name) for a in plan]
    assert len(decisions) == total
    assert {g for d in decisions for g in d.closed} <= set(policy.gates)
    assert not settle_all(decisions, merge=policy.merge)[0].closed
    decide = policy.begin()
    assert [as_decision(decide(s, NOTHING), name) for s in run_of(total, total)] == decisions


def test_never_never_closes() -> None:
    """And gates nothing, so that no site is touched."""
    policy = tg.get_policy("never")
    assert closes(policy, run_of(5, 5)) == [False] * 5
    assert list(policy.gates) == []


# -- convergence --------------------------------------------------------------------------------


def changes(*values: float | None) -> list[Signals]:
    """Signals of cross-attention with a worst sample, and one that moves less."""
    return [
        NOTHING if v is None else Signals({"cross": Signal((v, v / 2), (1.0, 1.0))}) for v in values
    ]


@pytest.mark.parametrize(
    ("patience", "told", "expected"),
    [
        (1, [None, 0.5, 0.1, 0.5], [False, False, True, True]),
        (2, [None, 0.1, 0.1, 0.1], [False, False, True, True]),
        (2, [None, 0.1, 0.2, 0.1, 0.05], [False, False, False, False, True]),
        (3, [None, 0.1, 0.1, 0.2, 0.1], [False] * 5),
        (1, [None, None, 0.1, None, None], [False, False, True, True, True]),
        (1, [0.1, 0.11], [True, True]),
    ],
)
def test_convergence_waits_until_attention_is_still(
    patience: int, told: list[float | None], expected: list[bool]
) -> None:
    """Closes after `patience` steps in a row at or below the threshold, and stays closed."""
    policy = Convergence(threshold=0.1, patience=patience)
    assert closes(policy, run_of(len(told), len(told)), changes(*told)) == expected


def test_convergence_heeds_the_sample_that_moves_most() -> None:
    """One restless prompt keeps the batch open."""
    restless = Signals({"cross": Signal((0.01, 0.9), (1.0, 1.0))})
    assert closes(Convergence(patience=1), run_of(2, 2), [restless] * 2) == [False, False]


# -- cosine_delta -------------------------------------------------------------------------------


def cosines(*pairs: tuple[float, float | None]) -> list[Signals]:
    return [Signals({"cross": Signal((0.0,), (c,), () if d is None else (d,))}) for c, d in pairs]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([(0.999, None), (0.999, 0.0)], [False, True]),
        ([(0.98, 0.0), (0.995, 0.02), (0.995, 0.001)], [False, False, True]),
        ([(0.995, -0.02), (0.99, -0.005)], [False, True]),
        ([(0.999, 0.0), (0.5, -0.5)], [True, True]),
    ],
)
def test_cosine_delta_waits_until_the_cosine_is_high_and_steady(
    told: list[tuple[float, float | None]], expected: list[bool]
) -> None:
    """A high cosine alone is not enough, nor a steady one; once closed it stays closed."""
    policy = CosineDelta(min_cosine=0.99, max_delta=0.005)
    assert closes(policy, run_of(len(told), len(told)), cosines(*told)) == expected


@pytest.mark.parametrize("policy", [Convergence(patience=1), CosineDelta()])
def test_a_run_remembers_nothing_of_the_one_before(policy: tg.Policy) -> None:
    """What a policy must remember lives in the decider that begin() makes."""
    quiet = Signals({"cross": Signal((0.0,), (1.0,), (0.0,))})
    assert closes(policy, run_of(2, 2), [quiet, NOTHING]) == [True, True]
    assert closes(policy, run_of(2, 2)) == [False, False]


@pytest.mark.parametrize("name", ["convergence", "cosine_delta"])
def test_adaptive_policies_close_in_a_real_run(kit: Any, name: str) -> None:
    """With a generous threshold they close a tiny model's gates, after the first measured step."""
    options = {
        "convergence": {"threshold": 10.0, "patience": 1},
        "cosine_delta": {"min_cosine": -1.0, "max_delta": 2.0},
    }
    pipe = kit.make_pipe()
    with tg.gate(pipe, name, **options[name]) as gating:
        kit.call(pipe, steps=12)
    first = 2 if name == "convergence" else 3
    assert gating.report.closed["cross"] == tuple(range(first, 12))
    assert gating.report.closed["guidance"] == tuple(range(first, 12))


# -- what they refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("fixed_step", {}, "takes one of gate_step, fraction and sigma, and got none"),
        ("fixed_step", {"gate_step": 3, "sigma": 1.0}, "got gate_step and sigma"),
        ("fixed_step", {"gate_step": 0}, "gate_step=0 must be 1 or more"),
        ("fixed_step", {"gate_step": -2}, "gate_step=-2 must be 1 or more"),
        ("fixed_step", {"gate_step": 0.4}, r"did you mean fraction=0\.4\?"),
        ("fixed_step", {"gate_step": 2.5}, "gate_step=2.5 must be a whole number"),
        ("fixed_step", {"gate_step": True}, "gate_step=True must be a whole number"),
        ("fixed_step", {"gate_step": "3"}, "gate_step='3' must be a whole number"),
        ("fixed_step", {"fraction": 0}, "fraction=0 must be above 0"),
        ("fixed_step", {"fraction": 1.5}, "fraction=1.5 must be above 0 and at most 1"),
        ("fixed_step", {"fraction": 10}, r"Did you mean gate_step=10\?"),
        ("fixed_step", {"fraction": float("nan")}, "fraction=nan must be"),
        ("fixed_step", {"sigma": -1.0}, r"sigma=-1\.0 must be a number above 0"),
        ("fixed_step", {"gate_step": 3, "gates": "cross"}, "collection of names"),
        ("fixed_step", {"gate_step": 3, "gates": ()}, "collection of names"),
        ("fixed_step", {"gate_step": 3, "gates": ("corss",)}, "Did you mean 'cross'"),
        ("tgate", {"gate_step": 0}, "gate_step=0 must be 1 or more"),
        ("tgate", {"sp_interval": 0}, "sp_interval=0 must be a whole number, 1 or more"),
        ("tgate", {"fi_interval": 1.5}, "fi_interval=1.5 must be a whole number"),
        ("tgate", {"warm_up": -1}, "warm_up=-1 must be a whole number, 0 or more"),
        ("convergence", {"threshold": 0}, "threshold=0 must be a number above 0"),
        ("convergence", {"patience": 0}, "patience=0 must be a whole number, 1 or more"),
        ("cosine_delta", {"min_cosine": 1.5}, "min_cosine=1.5 must lie between -1 and 1"),
        ("cosine_delta", {"max_delta": 0}, "max_delta=0 must be a number above 0"),
    ],
)
def test_an_option_out_of_range_is_one_sentence(
    name: str, options: dict[str, Any], says: str
) -> None:
    """With what was given, and what would be right."""
    with pytest.raises(OptionError, match=says):
        tg.get_policy(name, **options)
