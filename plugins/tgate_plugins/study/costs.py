"""What a picture took: by the gating's own report, or counted where a method has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tgate_plugins.cli.bench import WARM_UP_STEPS, Cost, backbone_calls, cost_of
from tgate_plugins.methods.counting import macs_of
from tgate_plugins.study.models import Loaded, call
from tgate_sampling.cost import CostModel, Footprint
from tgate_sampling.report import Report


class Remembered(CostModel):
    """A gating's cost model that shares its counts with those of the same backbone before it.

    Args:
        own: the gating's.
        known: by the shapes of a call; added to.
    """

    def __init__(self, own: CostModel, known: dict[str, Footprint | None]) -> None:
        super().__init__(own.blueprint)
        self._own, self._known = own, known

    def footprint(self, key: str) -> Footprint | None:
        if key not in self._known:
            self._known[key] = self._own.footprint(key)
        return self._known[key]


def reported(report: Report, known: dict[str, Footprint | None]) -> Cost:
    """What a gated run computed."""
    return cost_of(replace(report, cost=Remembered(report.cost, known)))


def counted(pipe: Any, run: Callable[[], Any]) -> Cost:
    """What one call of a pipeline computes in its backbone, by counting it."""
    macs, rows = macs_of(pipe, run)
    return Cost(rows, macs)


def unit(loaded: Loaded) -> Cost:
    """What one backbone call of the bare pipeline costs, by a short run."""
    subject = loaded.subject
    steps = min(subject.steps, WARM_UP_STEPS)
    cost = counted(
        loaded.pipe,
        lambda: call(loaded, subject.prompts[0], 0, steps, subject.guidance_scale),
    )
    return cost.times(1 / backbone_calls(loaded.pipe, steps))
