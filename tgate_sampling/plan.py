"""One backbone call between its two hooks: what was asked, and what of it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from tgate_sampling.adapter import Call
from tgate_sampling.cache import Slot
from tgate_sampling.driver import Driver
from tgate_sampling.layer import Layer
from tgate_sampling.layout import Layout, block
from tgate_sampling.run import CallRecord, Run, StepRecord
from tgate_sampling.steps import Position


@dataclass(frozen=True)
class Partner:
    """The conditional call that an unconditional one of the same evaluation belongs to.

    Args:
        where: the call's place.
        result: what the backbone returned.
        output: the predicted tensor in it; a copy where somebody might write into the result.
    """

    where: Position
    result: object
    output: torch.Tensor


@dataclass
class Plan:
    """One backbone call between its two hooks.

    Args:
        run, step, where: what it belongs to.
        call, driver: what was asked, and who tells where it stands.
        slot: what calls of this number keep.
        layout: the branches the caller asked for.
        branches: those that run; none where the call can be answered without the backbone.
        rows: how many rows the caller asked for.
        partner: the cond call, if this one is the uncond call of a pair.
        pairs: whether this is the cond call of a pair.
        shape: key of the call's shapes, for counting.
        reused: names of the sites that are not computed, by kind.
        layers: block layers that are active.
    """

    run: Run
    step: StepRecord
    where: Position
    call: Call
    driver: Driver
    slot: Slot
    layout: Layout
    branches: Layout
    rows: int
    partner: Partner | None = None
    pairs: bool = False
    shape: str = ""
    reused: dict[str, frozenset[str]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    @property
    def ran(self) -> int:
        """How many rows run."""
        return self.rows * len(self.branches) // len(self.layout)

    @property
    def part(self) -> slice | None:
        """The rows that run, or None for all of them or none."""
        if self.ran in (0, self.rows):
            return None
        return block(self.layout, self.branches[0], self.rows)

    @property
    def measures(self) -> bool:
        """Whether signals are taken in this call: the first of a step's first evaluation."""
        return self.where.call == 0 and self.where.step.evaluation == 0

    @property
    def judges(self) -> bool:
        """Whether guidance is measured in this call: with a pair, in its second half."""
        first = self.partner.where if self.partner is not None else self.where
        return first.call == 0 and first.step.evaluation == 0

    @property
    def others(self) -> Layout:
        """The branches beside cond that this call was asked for."""
        return tuple(b for b in self.layout if b != "cond")

    def skipped(self, backbone: nn.Module) -> frozenset[str]:
        """The topmost modules that this call did not run; asked after it."""
        blocks = self.reused.get("block", frozenset[str]())
        return blocks.union(*(x.skipped(backbone) for x in self.layers))

    def record(self, backbone: nn.Module) -> CallRecord:
        """What the call did, for the report."""
        sites = {k: names for k, names in self.reused.items() if k != "block"}
        return CallRecord(self.shape, self.rows, self.ran, sites, self.skipped(backbone))
