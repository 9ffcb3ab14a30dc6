"""`cosine_delta`: gates close once attention points the same way and has stopped turning."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tgate_plugins._options import check_gates, check_positive
from tgate_sampling.decision import DEFAULT_GATES, Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class CosineDelta(Policy):
    """Close when the cosine of successive cross-attention outputs is high and steady.

    Both are of the least converged sample in the batch. The cosine alone is not enough: with many
    steps each one is small, and a high cosine may still be on its way.

    Args:
        min_cosine: cos(y_i, y_{i-1}), averaged over sites, that counts as converged. Attention is
            never far from its last step: on emoji-sd the least similar steps still show 0.995.
        max_delta: how much that cosine may still change from one step to the next.
        gates: what closes.
    """

    name = "cosine_delta"
    min_cosine: float = 0.999
    max_delta: float = 0.001
    gates: Collection[str] = DEFAULT_GATES
    signals = ("cross",)

    def __post_init__(self) -> None:
        check_positive(max_delta=self.max_delta)
        if not -1 <= self.min_cosine <= 1:
            raise OptionError(f"min_cosine={self.min_cosine!r} must lie between -1 and 1.")
        check_gates(self.gates)

    def begin(self) -> Decider:
        closed = False

        def decide(step: StepContext, signals: Signals) -> Answer:
            nonlocal closed
            if not closed and "cross" in signals:
                cosine = signals["cross"].worst_cosine
                delta = signals["cross"].worst_cosine_delta
                closed = cosine >= self.min_cosine and delta is not None and delta <= self.max_delta
            if not closed:
                return False
            return Decision(frozenset(self.gates), reason=f"cosine >= {self.min_cosine:g}, steady")

        return decide


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("cosine_delta", CosineDelta)
