"""`block`: DeepCache as a gate of our own, for every sampler, scheduler and loop.

Deep features change slowly between steps (arXiv 2312.00858). The DeepCache package finds the step
by looking its timestep up, so that repeated timesteps (Heun, PNDM) make its pattern drift, and it
needs a pipeline; this gate asks our clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_positive
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Block(Policy):
    """Run the deep blocks in every `interval`-th step, and reuse their features in between.

    Args:
        interval: one full step in so many.
        branch: how much always runs: 0 leaves the shallowest layer, every further one adds a layer
            (three to a block, as in DeepCache's `cache_branch_id`).
        center: where full steps crowd, as a share of the run; None spaces them evenly. Needs a
            sampler that knows its number of steps.
        power: how much they crowd there; 1 is even.

    >>> [bool(d.closed) for d in Block(interval=3).plan(7)]
    [False, True, True, False, True, True, False]
    """

    name = "block"
    interval: int = 3
    branch: int = 0
    center: float | None = None
    power: float = 1.4
    gates: Collection[str] = ("block",)

    def __post_init__(self) -> None:
        check_count(1, interval=self.interval)
        check_count(0, branch=self.branch)
        check_positive(power=self.power)
        if self.center is not None and not 0 <= self.center <= 1:
            raise OptionError(f"center={self.center!r} must be a share of the run, 0 to 1.")

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        if self.center is None or step.total is None:
            return self._answer(step.index % self.interval == 0)
        full = full_steps(step.total, self.interval, self.center, self.power)
        return self._answer(step.index in full)

    def plan(self, total: int) -> Sequence[Answer]:
        full = full_steps(total, self.interval, self.center, self.power)
        return [self._answer(index in full) for index in range(total)]

    def _answer(self, full: bool) -> Decision:
        if full:
            return Decision(reason="deep blocks run")
        return Decision(frozenset(self.gates), reason="deep blocks reused")


def full_steps(total: int, interval: int, center: float | None, power: float) -> frozenset[int]:
    """The steps in which deep blocks run; always the first.

    Evenly spaced, or spaced by |u| ** power around the centre, with u even.

    >>> sorted(full_steps(20, 5, 0.5, 1.4))
    [0, 7, 12, 19]
    """
    if center is None:
        return frozenset(range(0, total, interval))
    count = max(2, -(-total // interval))
    middle = center * (total - 1)
    low, high = -(middle ** (1 / power)), (total - 1 - middle) ** (1 / power)
    evenly = [low + (high - low) * k / (count - 1) for k in range(count)]
    spread = (middle + (1 if u >= 0 else -1) * abs(u) ** power for u in evenly)
    return frozenset({0} | {min(total - 1, max(0, round(x))) for x in spread})


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("block", Block)
