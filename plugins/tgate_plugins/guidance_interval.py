"""`guidance_interval`: guidance only between two points of the run (arXiv 2404.07724)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_gates
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class GuidanceInterval(Policy):
    """Guidance off before `start` and from `stop` on, as shares of the run.

    Unlike other policies it means to change the picture: at high noise guidance costs variety, at
    low noise it does nothing. The first step is guided in any case.

    Args:
        start: where guidance begins.
        stop: where it ends.
        gates: what closes outside.
    """

    name = "guidance_interval"
    start: float = 0.0
    stop: float = 0.6
    gates: Collection[str] = ("guidance",)
    estimator = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise OptionError(
                f"start={self.start!r} and stop={self.stop!r} must satisfy 0 <= start < stop <= 1."
            )
        check_gates(self.gates)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self._at(step.progress)

    def plan(self, total: int) -> Sequence[Answer]:
        return [self._at(index / total) for index in range(total)]

    def _at(self, progress: float) -> Decision:
        if self.start <= progress < self.stop:
            return Decision(reason="inside the interval")
        return Decision(frozenset(self.gates), reason="outside the interval")


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("guidance_interval", GuidanceInterval)
