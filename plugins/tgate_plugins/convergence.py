"""`convergence`: gates close once cross-attention has stopped moving."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates, check_positive
from tgate_sampling.decision import DEFAULT_GATES, Answer, Decision
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Convergence(Policy):
    """Close when cross-attention outputs change little from step to step, several times running.

    The convergence that arXiv 2404.02747 (section 3) observes, measured in the run at hand instead
    of assumed: the relative L2 change of every cross-attention output, averaged over sites, of the
    sample in the batch that moves most.

    Args:
        threshold: relative change per step that counts as still. 0.05 is half of what the busiest
            steps of emoji-sd show, and closes about half way through a run of 25.
        patience: how many still steps in a row; 2, because one quiet step happens by chance.
        gates: what closes.
    """

    name = "convergence"
    threshold: float = 0.05
    patience: int = 2
    gates: Collection[str] = DEFAULT_GATES
    signals = ("cross",)

    def __post_init__(self) -> None:
        check_positive(threshold=self.threshold)
        check_count(1, patience=self.patience)
        check_gates(self.gates)

    def begin(self) -> Decider:
        still = 0
        closed = False

        def decide(step: StepContext, signals: Signals) -> Answer:
            nonlocal still, closed
            if not closed and "cross" in signals:
                change = signals["cross"].worst_change
                still = still + 1 if change <= self.threshold else 0
                closed = still >= self.patience
            if not closed:
                return False
            return Decision(frozenset(self.gates), reason=f"change <= {self.threshold:g}")

        return decide


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("convergence", Convergence)
