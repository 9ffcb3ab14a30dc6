"""`adaptive_guidance`: guidance closes once both branches agree (arXiv 2312.12487)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class AdaptiveGuidance(Policy):
    """Close when cos(cond, uncond) of the denoised predictions passes a threshold.

    Measured per sample; the batch closes when its last sample agrees. While closed it looks again
    every `look_every` steps, and stays open if the branches have parted.

    Args:
        threshold: the cosine that counts as agreement; on emoji-sd (guidance 4) denoised
            predictions pass 0.99 about half way through.
        hysteresis: how far the cosine may fall below before guidance re-opens.
        look_every: steps between looks while closed.
        gates: what closes.
    """

    name = "adaptive_guidance"
    threshold: float = 0.99
    hysteresis: float = 0.005
    look_every: int = 4
    gates: Collection[str] = ("guidance",)
    signals = ("guidance",)

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise OptionError(f"threshold={self.threshold!r} is a cosine: between -1 and 1.")
        if not 0 <= self.hysteresis <= 1:
            raise OptionError(f"hysteresis={self.hysteresis!r} must lie between 0 and 1.")
        check_count(1, look_every=self.look_every)
        check_gates(self.gates)

    def begin(self) -> Decider:
        closed, looked = False, 0

        def decide(step: StepContext, signals: Signals) -> Answer:
            nonlocal closed, looked
            if "guidance" in signals:
                looked = step.index - 1
                slack = self.hysteresis if closed else 0.0
                closed = signals["guidance"].worst_cosine >= self.threshold - slack
            if not closed or step.index - looked >= self.look_every:
                return Decision(reason="branches differ" if not closed else "a look")
            return Decision(frozenset(self.gates), reason=f"cosine >= {self.threshold:g}")

        return decide


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("adaptive_guidance", AdaptiveGuidance)
