"""Checks of adapters: which rows run while guidance is closed, and what changed rows do."""

from __future__ import annotations

import math

import torch
from torch import nn

from tgate_sampling.layout import as_layout, block
from tgate_sampling.report import Report
from tgate_sampling.testing.cases import TIMES, AdapterCase
from tgate_sampling.testing.results import DoesNotApplyError, claim

#: Another batch size takes other kernels: so much of the largest value may differ.
TOLERANCE = 1e-4

#: Branches lie in both orders, so that nothing rests on which half is which.
LAYOUTS = ("uncond_first", "cond_first")


def check_row_wise_inputs_travel(case: AdapterCase) -> None:
    """With guidance closed, the cond rows come out as if the model had been given them alone."""
    model = case.model()
    need_two_branches(case, model)
    for layout in LAYOUTS:
        batch = case.batch(model, 4)
        cond = cond_rows(layout, 4)
        alone = case.bare(model, case.part(model, batch, cond), TIMES[1])
        outputs, report = case.run(
            model,
            [(), ("guidance",)],
            [(batch, TIMES[0]), (batch, TIMES[1])],
            estimator="none",
            layout=layout,
        )
        claim_guidance_closed(report)
        claim(
            close(part_of(outputs[1], cond, 4), alone),
            f"with guidance closed ({layout}) the cond rows differ from the bare model's on these "
            "rows alone: take() must cut every row-wise input to the same rows, and nothing else",
        )


def need_two_branches(case: AdapterCase, model: nn.Module) -> None:
    """Go on if guidance takes two branches of this backbone.

    Raises:
        DoesNotApplyError: it takes one.
    """
    if not case.guided(model):
        raise DoesNotApplyError("guidance is an input of this model: there is one branch")


def claim_guidance_closed(report: Report) -> None:
    """Go on if guidance was closed and rows were saved.

    Raises:
        DoesNotApplyError: this backbone keeps guidance open, and says why.
    """
    reasons = [e.message for e in report.events if e.kind == "guidance"]
    if reasons:
        raise DoesNotApplyError(reasons[0])
    ran, asked = report.rows
    events = "; ".join(e.message for e in report.events) or "none"
    claim(
        ran < asked,
        f"guidance was to close, and all {asked} rows ran: let read() return the call's own sample "
        f"and timestep (events: {events})",
    )


def cond_rows(layout: str, rows: int) -> slice:
    """The cond rows of a layout."""
    return block(as_layout(layout) or (), "cond", rows)


def part_of(output: torch.Tensor, part: slice, rows: int) -> torch.Tensor:
    """Some rows of an output; frames may lie beside the batch."""
    unit = output.shape[0] // rows
    return output[part.start * unit : part.stop * unit]


def close(some: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two outputs differ by no more than rounding."""
    if some.shape != other.shape:
        return False
    largest = float(other.abs().max())
    return math.isfinite(largest) and float((some - other).abs().max()) <= TOLERANCE * largest


def check_changed_rows_compute_in_full(case: AdapterCase) -> None:
    """A batch that grows or shrinks between two steps computes anew, with an event."""
    model = case.model()
    small, large = case.batch(model, 2), case.batch(model, 4)
    calls = list(zip((small, large, large, small), TIMES, strict=True))
    bare = [case.bare(model, *call) for call in calls]
    outputs, report = case.run(model, [(), case.gates(model)], calls)
    for step in (1, 3):
        claim(
            torch.equal(outputs[step], bare[step]),
            f"step {step}, where the rows changed from {calls[step - 1][0].rows} to "
            f"{calls[step][0].rows}, differs from the bare model's: read() must return this call's "
            "own sample, and nothing kept may outlive its shape",
        )
    claim(outputs[2].shape == bare[2].shape, "the step after the rows changed has another shape")
    claim(
        bool(report.events),
        "the rows changed in a run and no event says so: read() must return this call's own sample",
    )
