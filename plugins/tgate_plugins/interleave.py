"""`interleave`: look at the unconditional branch every few steps, and estimate it in between."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Interleave(Policy):
    """Guide the first steps, then every `every`-th one; the steps between cost one branch.

    A single hard gate loses to sampling with fewer steps; guidance that is interleaved, its delta
    forecast in between, wins at equal cost on the models measured in docs/quality.md.

    Args:
        every: distance between looks after the warm-up.
        warm_up: guided steps at the start, where guidance turns fastest.
        gates: what closes between looks. Cross-attention stays open by default: it is some percent
            of the work, and a look re-opens it anyway.

    >>> [bool(d.closed) for d in Interleave(every=2, warm_up=3).plan(8)]
    [False, False, False, True, False, True, False, True]
    """

    name = "interleave"
    every: int = 2
    warm_up: int = 3
    gates: Collection[str] = ("guidance",)
    estimator = "forecast"

    def __post_init__(self) -> None:
        check_count(1, every=self.every, warm_up=self.warm_up)
        check_gates(self.gates)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self._at(step.index)

    def plan(self, total: int) -> Sequence[Answer]:
        return [self._at(index) for index in range(total)]

    def _at(self, index: int) -> Decision:
        since = index - (self.warm_up - 1)  # steps since the warm-up's last look
        if since <= 0 or since % self.every == 0:
            return Decision(reason="a look at both branches")
        return Decision(frozenset(self.gates), reason="between looks")


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("interleave", Interleave)
