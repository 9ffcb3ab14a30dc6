"""diffusers pipelines: no gate decision is wrong, measured against `scheduler.step` itself."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import pipes
from tests.truth import (
    ClockUNet,
    clock_backbone,
    evaluations,
    true_evaluations,
    wrong_decisions,
    wrong_steps,
)
from tgate_plugins.diffusers_pipeline import PipelineDriver
from tgate_sampling.adapter import Call
from tgate_sampling.report import Report
from tgate_sampling.steps import Outside, Position

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

GATES = ("guidance", "cross")


@pytest.fixture(autouse=True)
def _backbone() -> Iterator[None]:
    with clock_backbone(), torch.no_grad():
        yield


class Stepped:
    """Counts the steps a scheduler has finished, by what it says of itself after each `step()`."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.step = scheduler, scheduler.step
        self.done = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        moved = self.step(*args, **kwargs)
        self.done += self._has_finished()
        return moved

    def _has_finished(self) -> bool:
        scheduler = self.scheduler
        if scheduler.order == 2:  # first order again: the second evaluation has been made
            return bool(scheduler.state_in_first_order)
        if not hasattr(scheduler, "prk_timesteps"):
            return True
        if scheduler.config.skip_prk_steps:  # PNDM keeps the sample it will start from once more
            return scheduler.cur_sample is None
        return not isinstance(scheduler.cur_model_output, torch.Tensor)  # all four are summed up


def make(name: str, *, img2img: bool = False, **settings: Any) -> tuple[Any, ClockUNet]:
    """A pipeline whose backbone asks the scheduler for the true step."""
    unet = ClockUNet()
    pipe = pipes.pipeline(unet, pipes.scheduler(name, **settings), img2img=img2img)
    instrument(pipe)
    return pipe, unet


def instrument(pipe: Any) -> None:
    """Put the recorder in the scheduler's place; each run of the pipeline starts at step 0."""
    scheduler = pipe.scheduler
    stepped = scheduler.step = Stepped(scheduler)
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def begin(*args: Any, **kwargs: Any) -> Any:
        stepped.done = 0
        return set_timesteps(*args, **kwargs)

    scheduler.set_timesteps = begin
    pipe.unet.true_step = lambda: stepped.done


def check(report: Report, unet: ClockUNet, gate: int, total: int) -> None:
    """Everything the clock says is what the scheduler did."""
    assert wrong_steps(report, unet.truth) == []
    assert wrong_decisions(report, unet.truth, gate, gates=GATES) == []
    assert evaluations(report) == true_evaluations(unet.truth)
    assert (report.total, report.complete) == (total, True)
    assert max(unet.truth) == total - 1


@pytest.mark.parametrize("steps", [1, 4, 10, 30, 1000])
@pytest.mark.parametrize("name", pipes.SCHEDULERS)
def test_no_decision_is_wrong(name: str, steps: int) -> None:
    """Steps, total, evaluations a step, decisions and what was carried out, at every length."""
    if name == "pndm_prk" and steps < 4:
        pytest.skip("PNDM's own Runge-Kutta start needs four timesteps")
    # With SD's spacing a run of 1000 steps would start at timestep 1000, which does not exist.
    pipe, unet = make(name, **({"timestep_spacing": "trailing"} if steps == 1000 else {}))
    gate = max(1, round(0.4 * steps))
    with tg.gate(pipe, "fixed_step", gate_step=gate) as gating:
        pipes.generate(pipe, steps)
    check(gating.report, unet, gate, steps)


@pytest.mark.parametrize("gate", [1, 2, 9])
@pytest.mark.parametrize("name", pipes.SCHEDULERS)
def test_no_decision_is_wrong_for_the_first_and_the_last_gate(name: str, gate: int) -> None:
    """Not even one evaluation of the step before the gate is gated, nor one of the last missed."""
    pipe, unet = make(name)
    with tg.gate(pipe, "fixed_step", gate_step=gate) as gating:
        pipes.generate(pipe, 10)
    check(gating.report, unet, gate, 10)


@pytest.mark.parametrize("strength", [1.0, 0.9, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("name", pipes.SCHEDULERS)
def test_img2img_counts_its_own_steps(name: str, strength: float) -> None:
    """A run that starts late has fewer steps, and they are numbered from its own first one."""
    pipe, unet = make(name, img2img=True)
    with tg.gate(pipe, "fixed_step", fraction=0.4) as gating:
        pipes.generate(pipe, 10, strength=strength)
    total = max(unet.truth) + 1
    check(gating.report, unet, max(1, -(-4 * total // 10)), total)
    if name != "pndm_prk":  # which enters its list of calls as if each were a step
        assert total == round(10 * strength)


def test_a_run_cut_short_at_its_end_counts_its_own_steps() -> None:
    """A pipeline that leaves the last timesteps out says so in `num_timesteps`."""
    pipe, unet = make("pndm")

    class Cut(type(pipe)):  # type: ignore[misc]
        """The loop of a pipeline with `denoising_end`, as in SDXL."""

        def __call__(self, stop: int) -> None:
            self.scheduler.set_timesteps(10)
            timesteps = self.scheduler.timesteps[:stop]
            self._num_timesteps, self._guidance_scale = len(timesteps), 1.0
            latents = torch.ones(1, 4, 8, 8)
            for t in timesteps:
                latents = self.scheduler.step(self.unet(latents, t)[0], t, latents).prev_sample
            self.maybe_free_model_hooks()

    pipe.__class__ = Cut
    with tg.gate(pipe, "fixed_step", gate_step=2, gates=["cross"]) as gating:
        pipe(7)
    assert wrong_steps(gating.report, unet.truth) == []
    assert (gating.report.total, gating.report.complete) == (6, True)


def test_run_after_run_starts_at_step_0() -> None:
    """One gating, runs of other lengths: each has a report of its own, all of them right."""
    pipe, unet = make("heun")
    seen = []
    with tg.gate(pipe, "fixed_step", fraction=0.5) as gating:
        for steps in (4, 10, 10, 3):
            unet.truth.clear()
            pipes.generate(pipe, steps)
            seen.append(list(unet.truth))
    assert [r.total for r in gating.runs] == [4, 10, 10, 3]
    assert [wrong_steps(r, t) for r, t in zip(gating.runs, seen, strict=True)] == [[]] * 4


def test_another_scheduler_is_seen() -> None:
    """A user may swap `pipe.scheduler` between runs; it is read late."""
    pipe, unet = make("euler")
    with tg.gate(pipe, "fixed_step", gate_step=3) as gating:
        pipes.generate(pipe, 6)
        pipe.scheduler = pipes.scheduler("kdpm2")
        instrument(pipe)
        unet.truth.clear()
        pipes.generate(pipe, 6)
    check(gating.report, unet, 3, 6)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_the_layout_is_known_by_itself(guidance_scale: float) -> None:
    """With guidance two rows become one past the gate; without, one stays one."""
    pipe, _ = make("ddim")
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        pipes.generate(pipe, 4, guidance_scale=guidance_scale)
    assert gating.report.rows == ((6, 8) if guidance_scale > 1 else (4, 4))
    assert [e for e in gating.report.events if e.kind == "layout"] == []


# -- planted wrong clocks -------------------------------------------------------------------------


class Shifted(PipelineDriver):
    """A clock that is some steps off."""

    shift = 0

    def locate(self, call: Call) -> Position | Outside:
        where = super().locate(call)
        assert isinstance(where, Position)
        index = max(0, where.step.index + self.shift)
        return dataclasses.replace(where, step=dataclasses.replace(where.step, index=index))


class Early(Shifted):
    shift = 1


class Late(Shifted):
    shift = -1


class CountsEvaluations(PipelineDriver):
    """The clock of everybody who counts forward calls."""

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._count = -1

    def locate(self, call: Call) -> Position | Outside:
        where = super().locate(call)
        assert isinstance(where, Position)
        self._count += 1
        step = dataclasses.replace(where.step, index=self._count, evaluation=0)
        return dataclasses.replace(where, step=step)


def drive(clock: type[PipelineDriver], name: str, gate: int) -> tuple[Report, ClockUNet]:
    """A run of 30 steps that `clock` drives."""
    pipe, unet = make(name)
    with tg.gate(pipe, "fixed_step", gate_step=gate) as gating, gating.driven_by(clock(pipe)):
        pipes.generate(pipe, 30)
    return gating.report, unet


@pytest.mark.parametrize("clock", [Early, Late, CountsEvaluations])
@pytest.mark.parametrize("name", ["pndm", "pndm_prk", "heun"])
@pytest.mark.parametrize("gate", [1, 12, 29])
def test_a_planted_wrong_clock_is_caught(name: str, gate: int, clock: type[PipelineDriver]) -> None:
    """The same checks, on the same run, fail with a wrong clock and pass with ours."""
    wrong, unet = drive(clock, name, gate)
    assert wrong_decisions(wrong, unet.truth, gate, gates=GATES) != []
    assert wrong_steps(wrong, unet.truth) != []
    ours, unet = drive(PipelineDriver, name, gate)
    assert wrong_decisions(ours, unet.truth, gate, gates=GATES) == []
    assert wrong_steps(ours, unet.truth) == []
