"""`tgate`: the schedule of the reference implementation (arXiv 2404.02747, tgate 1.0.0), exactly.

Kept as one point in the space of policies, for comparison and for people who come from there. It
turns guidance off after the gate and follows the *negative* prompt, as the reference does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gate_step
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class TGate(Policy):
    """T-GATE's planning, gate and fidelity phases.

    Step c is 0-based. Before step `gate_step` - 1 self-attention is computed up to `warm_up`, then
    at multiples of `sp_interval`; that step computes everything, and the mean of both branches is
    kept; from `gate_step` on one branch runs, cross-attention is reused, and self-attention is
    computed at multiples of `fi_interval`. Both intervals count from step 0.

    Args:
        gate_step: the first gated step.
        sp_interval: self-attention interval of the planning phase; 1 never reuses it.
        fi_interval: self-attention interval after the gate.
        warm_up: steps of full self-attention at the start.
    """

    name = "tgate"
    gate_step: int = 10
    sp_interval: int = 5
    fi_interval: int = 1
    warm_up: int = 2
    gates: Collection[str] = ("guidance", "cross", "self")
    estimator = "none"
    merge = "mean"
    runs = "uncond"

    def __post_init__(self) -> None:
        check_gate_step(self.gate_step)
        check_count(1, sp_interval=self.sp_interval, fi_interval=self.fi_interval)
        check_count(0, warm_up=self.warm_up)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self._at(step.index)

    def plan(self, total: int) -> Sequence[Answer]:
        return [self._at(c) for c in range(total)]

    def _at(self, c: int) -> Decision:
        if c < self.gate_step - 1:
            if c > self.warm_up and c % self.sp_interval:
                return Decision(frozenset({"self"}), reason="planning: self-attention reused")
            return Decision(reason="planning")
        if c == self.gate_step - 1:
            return Decision(reason="gate")
        reused = {"guidance", "cross"} | ({"self"} if c % self.fi_interval else set())
        return Decision(frozenset(reused), rows="uncond", reason="fidelity")


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("tgate", TGate)
