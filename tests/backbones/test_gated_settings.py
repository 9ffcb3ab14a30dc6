"""Every tiny pipeline under other settings: call after call on one gating, and other policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

GATE, CLOSE = gated.GATE, gated.CLOSE
GATES = ("guidance", "cross")

#: One after the other on one gating.
CALLS: list[dict[str, Any]] = [
    {"steps": 4},
    {"steps": 4, "guidance": False},
    {"steps": 4, "batch": 2},
    {"steps": 3},
    {"steps": 4},
]

#: Long enough for a look after the warm-up of `interleave` and the default policy.
LONG = 6

#: Those whose backbone has deep blocks to skip.
UNETS = [
    name
    for name, row in pipelines.PIPELINES.items()
    if row.backbone == "unet" and name not in ("svd", "animatediff", "text-to-video", "kandinsky3")
]

#: Beside the table's own: without guidance there is nothing to close.
ONE_BRANCH = ("guidance", "nothing to close: this run has one branch")

#: The reference keeps the uncond rows, which come second where each branch has its own call.
KEEPS_COND = ("rows", "the conditional one runs")


def events(row: Any, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The table's event, or these where it has none."""
    return [gated.EVENTS[row.name]] if row.name in gated.EVENTS else list(more)


def check_call(row: Any, how: dict[str, Any], latents: torch.Tensor, report: Any) -> None:
    """One call of several: latents, rows, steps and events are its own."""
    guided, steps = how.get("guidance", True), how["steps"]
    truth = gated.expected(row, gated.made(row.name), range(GATE, steps), GATES, **how)
    alike = not guided or row.layout == "separate" or "guidance" not in gated.closable(row)
    assert oracles.distance(latents, truth) <= (0 if alike else CLOSE)
    assert report.total == steps
    if not guided:
        assert report.rows[0] == report.rows[1]
        told = {e.kind: e.message for e in report.events}
        assert ONE_BRANCH[1] in told["guidance"]
        assert set(told) <= {"guidance", "aside", "remark"}
    else:
        gated.check_events(report, *events(row))


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_call_after_call_with_other_settings(name: str) -> None:
    """Guidance off, two prompts, fewer steps, and the first again: each is as on its own gating."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    latents = []
    with tg.gate(pipe, "fixed_step", gate_step=GATE) as gating:
        for how in CALLS:
            latents.append(row.call(pipe, **how))
    assert len(gating.runs) == len(CALLS)
    for call in zip(CALLS, latents, gating.runs, strict=True):
        check_call(row, *call)
    assert torch.equal(latents[0], latents[-1])


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_interleaved_looks_renew_what_is_held(name: str) -> None:
    """`interleave` with `hold`: every gap is filled from the look before it."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    run = gated.run(row, pipe, {"steps": LONG}, "interleave", estimator="hold")
    closed = run.report.closed.get("guidance", ())
    truth = gated.expected(row, pipe, closed, ("guidance",), steps=LONG)
    alike = row.layout == "separate" or not closed
    assert oracles.distance(run.latents, truth) <= (0 if alike else CLOSE)
    gated.check_events(run.report, *events(row))
    if "guidance" in gated.closable(row) and name not in gated.OWN_STEPS:
        looks = [step for step in range(closed[0], closed[-1]) if step not in closed]
        assert looks, "a run without a look between gaps tests nothing"


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_the_default_policy_runs(name: str) -> None:
    """With a tolerance that lets it close it saves rows, by `linear`, without an event."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    run = gated.run(row, pipe, {"steps": LONG}, "error_controlled", tolerance=10.0)
    assert run.latents.isfinite().all()
    gated.check_events(run.report, *events(row))
    if name in gated.OWN_STEPS:
        return  # the expert that is not gated runs too
    closed = run.report.closed.get("guidance", ())
    assert bool(closed) == ("guidance" in gated.closable(row))
    assert run.forwards == gated.rows_of(row, LONG, closed)


@pytest.mark.parametrize("name", ["sd", "svd", "pix2pix", "z-image", "wan", "modular-sdxl"])
def test_the_default_policy_computes_in_full_where_it_cannot_estimate(name: str) -> None:
    """With every estimate beyond its tolerance: the bare pipeline's latents, to the bit."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    run = gated.run(row, pipe, {"steps": LONG}, "error_controlled", tolerance=1e-9)
    assert run.report.closed == {}
    assert torch.equal(run.latents, row.call(pipe, steps=LONG))


@pytest.mark.parametrize("name", pipelines.PIPELINES)
def test_the_reference_schedule_runs(name: str) -> None:
    """`tgate`: all its phases, on every kind of backbone; guidance is off after the gate."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    schedule = {"gate_step": 3, "sp_interval": 2, "fi_interval": 2, "warm_up": 0}
    run = gated.run(row, pipe, {"steps": LONG}, "tgate", **schedule)
    assert run.latents.isfinite().all()
    if name in gated.OWN_STEPS:
        return  # its steps end where the gate would be
    apart = row.layout == "separate"
    gated.check_events(run.report, *events(row, *([KEEPS_COND] if apart else [])))
    able = gated.closable(row)
    closed = {
        **({"guidance": (3, 4, 5)} if "guidance" in able else {}),
        **({"cross": (3, 4, 5), "self": (1, 3, 5)} if "cross" in able else {}),
    }
    assert run.report.closed == closed
    assert run.forwards == gated.rows_of(row, LONG, closed.get("guidance", ()))


@pytest.mark.parametrize("name", UNETS)
def test_deep_blocks_are_skipped_beside_the_other_gates(name: str) -> None:
    """`compose=["block"]`: all three gates close where they can."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    run = gated.run(row, pipe, {"steps": LONG}, "fixed_step", gate_step=GATE, compose=["block"])
    assert run.latents.isfinite().all()
    gated.check_events(run.report, *events(row))
    able = gated.closable(row)
    closed = {gate: tuple(range(GATE, LONG)) for gate in GATES if gate in able}
    if able:  # the step before the gate stores attention, and runs its blocks
        closed["block"] = (2, 4, 5)
    assert run.report.closed == closed
    assert run.forwards == gated.rows_of(row, LONG, closed.get("guidance", ()))
