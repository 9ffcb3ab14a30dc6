"""`interleave`: look at the unconditional branch every few steps, and estimate it in between."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Interleave(Policy):
    """Guide the first steps, then every `every`-th one; the steps between cost one branch.

    Looks are counted from the end of the run, so that its last step is always one between looks: an
    estimate is nearly free there, since no later step builds on it. On the model of docs/quality.md
    that and a first third in full make the difference between losing to fewer steps at equal cost
    and beating it.

    Args:
        every: distance between looks.
        warm_up: guided steps at the start, where guidance turns fastest.
        start: the same as a share of the run, whichever is longer. Runs of 7, 12 and 22 steps cost
            as many rows as 6, 10 and 18 full ones.
        gates: what closes between looks. Cross-attention stays open by default: it is some percent
            of the work, and a look re-opens it anyway.

    >>> [bool(d.closed) for d in Interleave().plan(7) or ()]
    [False, False, False, False, True, False, True]
    """

    name = "interleave"
    every: int = 2
    warm_up: int = 3
    start: float = 0.3
    gates: Collection[str] = ("guidance",)
    estimator = "linear"

    def __post_init__(self) -> None:
        check_count(1, every=self.every, warm_up=self.warm_up)
        if not 0 <= self.start < 1:
            raise OptionError(f"start={self.start!r} must be a share of the run, 0 to below 1.")
        check_gates(self.gates)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self._at(step.index, step.total)

    def plan(self, total: int) -> Sequence[Answer] | None:
        return [self._at(index, total) for index in range(total)]

    def _at(self, index: int, total: int | None) -> Decision:
        if total is None:  # the sampler finds its end as it goes: looks are counted from the start
            first, since = self.warm_up, index - (self.warm_up - 1)
        else:
            # 1e-9: 0.3 * 10 is 3.0000000000000004 in floating point, and 3 steps are meant.
            first = max(self.warm_up, math.ceil(self.start * total - 1e-9))
            since = index - (total - 1) - 1
        if index < first or since % self.every == 0:
            return Decision(reason="a look at both branches")
        return Decision(frozenset(self.gates), reason="between looks")


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("interleave", Interleave)
