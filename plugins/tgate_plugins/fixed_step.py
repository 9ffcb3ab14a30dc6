"""`fixed_step`: gates close at a given point of the run and stay closed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_fraction, check_gate_step, check_gates, check_positive
from tgate_sampling.decision import DEFAULT_GATES, Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext, gate_index


@dataclass(frozen=True)
class FixedStep(Policy):
    """Close at a step, a fraction of the run, or a noise level. Say exactly one.

    Args:
        gate_step: the first gated step; steps before it are full.
        fraction: the same as a share of the run's own steps, so that other step counts and
            img2img need no retuning: the gate step is max(1, ceil(fraction * total)).
        sigma: close once the noise level is at or below this; survives any schedule.
        gates: what closes.

    Raises:
        OptionError: none or several are given, or one is out of range.

    >>> FixedStep(gate_step=2).plan(4)[1:3] == [False, FixedStep(gate_step=2).closed]
    True
    """

    name = "fixed_step"
    gate_step: int | None = None
    fraction: float | None = None
    sigma: float | None = None
    gates: Collection[str] = DEFAULT_GATES

    def __post_init__(self) -> None:
        said = [n for n in ("gate_step", "fraction", "sigma") if getattr(self, n) is not None]
        if len(said) != 1:
            raise OptionError(
                f"fixed_step takes one of gate_step, fraction and sigma, and got "
                f"{' and '.join(said) or 'none'}: say, for instance, gate_step=10."
            )
        if self.gate_step is not None:
            check_gate_step(self.gate_step)
        if self.fraction is not None:
            check_fraction(self.fraction)
        if self.sigma is not None:
            check_positive(sigma=self.sigma)
        check_gates(self.gates)

    @property
    def closed(self) -> Decision:
        """What holds from the gate on."""
        return Decision(frozenset(self.gates), reason="past the gate")

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self.closed if self._past_gate(step) else False

    def _past_gate(self, step: StepContext) -> bool:
        if self.sigma is not None:
            return step.sigma is not None and step.sigma <= self.sigma
        if step.total is None and self.fraction is not None:
            return step.progress >= self.fraction
        return step.index >= gate_index(
            step.total or 0, gate_step=self.gate_step, fraction=self.fraction
        )

    def plan(self, total: int) -> Sequence[Answer] | None:
        if self.sigma is not None:
            return None
        first = gate_index(total, gate_step=self.gate_step, fraction=self.fraction)
        return [self.closed if i >= first else False for i in range(total)]


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("fixed_step", FixedStep)
