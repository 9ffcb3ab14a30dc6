"""Runs made up for a policy: steps, noise levels, signals; and a gated run of a fake backbone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Site
from tgate_sampling.decision import Decision, as_decision
from tgate_sampling.gating import gate
from tgate_sampling.policy import Decider, Policy, as_policy, describe
from tgate_sampling.report import Report
from tgate_sampling.signals import Signal, Signals, SiteSignal
from tgate_sampling.steps import Noise, StepContext
from tgate_sampling.testing.cases import AdapterCase, plugged
from tgate_sampling.testing.fakes import FakeAdapter, FakeBackbone, fake_backbone
from tgate_sampling.testing.results import claim

#: Numbers of steps: the shortest runs there are, an odd one, a usual one.
TOTALS = (1, 2, 7, 25)
#: Noise levels of Stable Diffusion, largest and smallest.
SPAN = (14.6, 0.03)
#: How fast signals fall from step to step: a run that settles early, and one that hardly does.
PACES = (0.5, 0.95)


@dataclass(frozen=True)
class PolicyCase:
    """A policy to be made, as often as a check needs one.

    Args:
        factory: its class, or a function without arguments that returns it; or a policy itself.
    """

    factory: Callable[[], Any] | Policy

    def policy(self) -> Policy:
        """A policy; a fresh one where there is a factory."""
        if isinstance(self.factory, Policy):
            return self.factory
        made = self.factory()
        claim(
            isinstance(made, (Policy, str)) or callable(made),
            f"the factory returned {made!r}: return a policy, or a function of the step",
        )
        return as_policy(made, {})


@dataclass(frozen=True)
class Course:
    """What happens in a made-up run.

    Args:
        steps: how many there are.
        known: whether the policy is told so.
        evaluation: which of a step's evaluations it is asked at.
        pace: how fast signals fall.
    """

    steps: int
    known: bool = True
    evaluation: int = 0
    pace: float = PACES[0]

    def context(self, index: int) -> StepContext:
        """One step of it."""
        share = index / max(1, self.steps - 1)
        sigma = SPAN[0] * (SPAN[1] / SPAN[0]) ** share
        noise = Noise(lambda: sigma, lambda: 999 * (1 - share), lambda: SPAN)
        return StepContext(index, self.steps if self.known else None, self.evaluation, noise)

    def walk(self, policy: Policy, decide: Decider | None = None) -> Iterator[Decision]:
        """Its decisions, one by one, as the policy wishes them."""
        decide, label = decide or policy.begin(), describe(policy)
        closed: frozenset[str] = frozenset()
        for index in range(self.steps):
            # What is closed is not measured; and for a change it takes two outputs.
            heard = {
                kind: made_up_signal(index, self.pace)
                for kind in policy.signals
                if kind not in closed and index > (kind != "guidance")
            }
            decision = as_decision(decide(self.context(index), Signals(heard)), label)
            closed = decision.closed
            yield decision


def made_up_signal(index: int, pace: float) -> Signal:
    """A signal of two samples that falls with the step."""
    changes = tuple(0.5 * pace**index * share for share in (1.0, 0.5))
    cosines = tuple(1 - change / 10 for change in changes)
    delta = tuple(c * (1 - pace) / 10 for c in changes) if index > 2 else ()
    return Signal(changes, cosines, delta, {"a site": SiteSignal(changes, cosines)})


def courses(**more: Any) -> list[Course]:
    """All made-up runs: every number of steps, at every pace."""
    return [Course(total, pace=pace, **more) for total in TOTALS for pace in PACES]


def key(decision: Decision) -> tuple[Any, ...]:
    """What a decision does; its reason is for people."""
    return decision.closed, decision.estimator, decision.merge, decision.rows


def keys(decisions: Sequence[Decision] | Iterator[Decision]) -> list[tuple[Any, ...]]:
    """What decisions do."""
    return [key(d) for d in decisions]


def where(first: list[Any], second: list[Any]) -> int:
    """The first place where two lists of one length differ; -1 where none does."""
    pairs = zip(first, second, strict=True)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), -1)


class _AnyDepth(FakeAdapter):
    """For policies that name a branch of their own."""

    def branches(self, backbone: nn.Module) -> int:
        return 1000

    def blocks(self, backbone: nn.Module, branch: int) -> Sequence[Site]:
        return super().blocks(backbone, 0)


def gated_run(policy: Policy, steps: int) -> Report:
    """A run of a fake backbone under a policy, with guidance."""
    model = fake_backbone()
    case = AdapterCase(_AnyDepth, fake_backbone)
    batch, course = case.batch(model, 4), Course(steps)
    contexts = [course.context(i) for i in range(steps)]
    times = [float(c.timestep or 0) for c in contexts]
    sigmas = [float(c.sigma or math.nan) for c in contexts]
    with plugged(_AnyDepth, FakeBackbone):
        gating = gate(model, policy, layout="uncond_first")
    with gating, torch.no_grad():
        for value in gating.steps(times, sigmas=sigmas):
            model(**batch.at(value))
    return gating.report
