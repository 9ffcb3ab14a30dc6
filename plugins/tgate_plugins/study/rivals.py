"""The run that every method must beat: as many ungated steps as cost no more."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from tgate_plugins.cli.bench import Cost, steps_within
from tgate_plugins.study.spec import Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import Way, fewer


def mean_cost(state: State, subject: Subject, way: Way) -> Cost | None:
    """Mean over a method's pictures; None where there is none, or none was counted."""
    good = state.good(subject.name, way.label, subject.images)
    costs = [cost for record in good if (cost := state.cost(record, way)) is not None]
    if not costs:
        return None
    macs = [c.macs for c in costs if c.macs is not None]
    return Cost(fmean(c.rows for c in costs), fmean(macs) if len(macs) == len(costs) else None)


def rivals(state: State, subject: Subject, known: Known) -> dict[str, Way]:
    """For the label of each method the bare run that it must beat.

    It is a function of the log alone, so that a study that goes on finds the same ones.
    """
    found: dict[str, Way] = {}
    for way in known.running:
        if way.part in ("baseline", "figure"):
            continue
        cost = mean_cost(state, subject, way)
        steps = cost and steps_within(cost, _bare(known), subject.steps)
        if steps:
            found[way.label] = known.ways[0] if steps == subject.steps else Way.of(fewer(steps))
    return found


def _bare(known: Known) -> Callable[[int], Cost]:
    """What so many ungated steps compute; the survey looked at every number up to the run's."""

    def cost(steps: int) -> Cost:
        found = known.bare_cost(steps)
        assert found is not None, f"the survey did not look at {steps} steps"
        return found

    return cost
