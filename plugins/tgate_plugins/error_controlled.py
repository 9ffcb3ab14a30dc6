"""`error_controlled` and `budgeted`: look where the estimate is bad, as this run itself shows.

At every look the truth is at hand, so the error that the estimator would have made is known: per
sample, relative to the guided output, guidance scale included. Both policies place their looks by
it, the first to keep a tolerance, the second to spend a given number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates, check_positive
from tgate_plugins.interleave import Interleave
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext

#: An estimate's error grows with about this power of the steps since the last look.
GROWTH = 1.5

LOOK = Decision(reason="a look at both branches")


@dataclass(frozen=True)
class ErrorControlled(Interleave):
    """`interleave`, but a step is estimated only where this run's own looks say it may be.

    After a look `gap` steps after the one before, with error e, an estimate k steps later is
    expected to be wrong by e (k / gap) ** 1.5. Where that passes the tolerance the step is looked
    at instead; the sample that is estimated worst decides for the batch.

    Args:
        every, warm_up, start, gates: as for `interleave`.
        tolerance: relative error of the guided output that is accepted in a step; the guidance
            scale is part of it, so that high guidance and few steps are guided in full.
    """

    name = "error_controlled"
    tolerance: float = 0.4
    signals = ("guidance",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(tolerance=self.tolerance)

    def plan(self, total: int) -> None:
        return None

    def begin(self) -> Decider:
        gap, last, error = 1, 0, math.inf

        def decide(step: StepContext, signals: Signals) -> Answer:
            nonlocal gap, last, error
            if "guidance" in signals:
                now = step.index - 1
                gap, last = max(1, now - last), now
                error = signals["guidance"].worst_change
            wish = self._at(step.index, step.total)
            if expected(error, gap, step.index - last) <= self.tolerance:
                return wish
            return LOOK

        return decide


def expected(error: float, gap: int, ahead: int) -> float:
    """The error of an estimate `ahead` steps after a look, which would have been wrong by `error`.

    Args:
        error: of the estimate at that look.
        gap: how many steps after the look before.
        ahead: how many steps from the look to the estimate.

    >>> expected(0.2, 2, 2), round(expected(0.2, 2, 1), 3)
    (0.2, 0.071)
    """
    return float(error * (ahead / gap) ** GROWTH)


@dataclass(frozen=True)
class Budgeted(Policy):
    """Spend a given number of backbone rows, looking more where the estimate is worse.

    The looks that remain are spread evenly over the steps that remain; after a look that was
    estimated worse than this run's average the next comes sooner, after a better one later. The
    budget is kept to the row in runs that know their number of steps and take one evaluation each.

    Args:
        rows: backbone rows of an image, at least one a step; or
        speedup: how much cheaper than full guidance, above 1 and below 2.
        warm_up: guided steps at the start, as far as the budget goes.
        gates: what closes between looks.

    Raises:
        OptionError: both or neither of rows and speedup are given, or one is out of range.
    """

    name = "budgeted"
    rows: int | None = None
    speedup: float | None = None
    warm_up: int = 3
    gates: Collection[str] = ("guidance",)
    signals = ("guidance",)
    estimator = "linear"

    def __post_init__(self) -> None:
        if (self.rows is None) == (self.speedup is None):
            raise OptionError("budgeted takes either rows or speedup: say, for instance, rows=36.")
        if self.rows is not None:
            check_count(2, rows=self.rows)
        if self.speedup is not None and not 1 < self.speedup < 2:
            raise OptionError(
                f"speedup={self.speedup!r} must lie between 1 and 2: a step without guidance costs "
                "half of one with."
            )
        check_count(1, warm_up=self.warm_up)
        check_gates(self.gates)

    def looks(self, total: int) -> int:
        """How many steps of a run may be guided, the first included.

        >>> Budgeted(rows=36).looks(23), Budgeted(speedup=1.25).looks(20)
        (13, 12)
        """
        rows = self.rows if self.rows is not None else int(2 * total / (self.speedup or 1) + 1e-9)
        return min(total, max(1, rows - total))

    def begin(self) -> Decider:
        left: int | None = None
        last, errors = 0, list[float]()

        def decide(step: StepContext, signals: Signals) -> Answer:
            nonlocal left, last
            if step.total is None:  # a sampler that finds its steps as it goes has no budget
                return LOOK
            if left is None:
                left = self.looks(step.total)
            if "guidance" in signals:
                errors.append(signals["guidance"].worst_change)
            gap = (step.total - step.index) / max(1, left) * _urgency(errors)
            due = step.index < self.warm_up or step.index - last >= round(max(1.0, gap))
            if left > 0 and (due or left >= step.total - step.index):
                left, last = left - 1, step.index
                return LOOK
            return Decision(frozenset(self.gates), reason="within the budget")

        return decide


def _urgency(errors: list[float]) -> float:
    """Below 1 where the last look was estimated worse than the looks before it, else above."""
    if len(errors) < 2 or errors[-1] <= 0:
        return 1.0
    usual = sum(errors[:-1]) / (len(errors) - 1)
    return float(min(1.5, max(0.5, (usual / errors[-1]) ** (1 / GROWTH))))


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("error_controlled", ErrorControlled)
    register("budgeted", Budgeted)
