"""A policy that says what it is told: checks of adapters need decisions they know."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from tgate_sampling.decision import Answer, Decision
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Script(Policy):
    """Closes what its script says, step by step; the last line holds on.

    Args:
        closed: gates to close in each step.
        gates: what it may ever close, whether or not the script does.
        signals: kinds to measure.
        estimator: how a closed guidance gate is filled.
        heard: the signals of every step, as they come in.

    >>> Script([(), ("cross",)]).begin()(StepContext.at(5, 9), Signals()).closed
    frozenset({'cross'})
    """

    name = "script"
    closed: Sequence[Collection[str]] = ((),)
    gates: Collection[str] = ("guidance", "cross", "self", "text")
    signals: Collection[str] = ()
    estimator: str = "hold"
    heard: list[Signals] = field(default_factory=list, repr=False, compare=False)

    def begin(self) -> Decider:
        def decide(step: StepContext, signals: Signals) -> Answer:
            self.heard.append(signals)
            line = self.closed[min(step.index, len(self.closed) - 1)]
            return Decision(frozenset(line), reason="the script says so")

        return decide
