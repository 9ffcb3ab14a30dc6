"""Pipelines that compute what they call the timestep: the clock reads their loops, and never waits.

Flow matching hands its backbone t / 1000, 1 - t / 1000 or a copy, so that no view tells where it
came from. The truth is again what the scheduler's own `step` has done.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tests.truth import wrong_steps
from tgate_plugins.diffusers_pipeline import ASTRAY, PipelineDriver
from tgate_sampling.adapter import Call
from tgate_sampling.report import Report
from tgate_sampling.steps import Outside, Position, first_value, gate_index

pipelines = load_helper("backbones/pipelines.py")
kit = pipelines.kit
every = load_helper("plugins/test_every_scheduler.py")
syncs = load_helper("core/test_no_hidden_syncs.py")

pytestmark = [pytest.mark.filterwarnings(text) for text in every.homes.WARNINGS]

FRACTION = 0.4

#: All whose timesteps are no views of `scheduler.timesteps`; LEdits++ gates nothing at all.
COMPUTED = [n for n, how in pipelines.TIMESTEPS.items() if how != "view" and n != "ledits"]

#: Schedulers without `step_index`, and such as take a timestep twice, in pipelines that take any.
OTHERS = [
    (name, scheduler, settings)
    for name in ("hunyuan-dit", "sana", "lumina", "allegro")
    for scheduler, settings in (
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("PNDMScheduler", {"skip_prk_steps": False}),
        ("DDIMScheduler", {}),
        ("HeunDiscreteScheduler", {}),
    )
]


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@functools.cache
def made(name: str) -> Any:
    return pipelines.PIPELINES[name].build()


def driven(
    name: str, *steps: int, clock: Any = None, **extra: Any
) -> list[tuple[Report, list[int]]]:
    """Runs in a row under one gating: each one's report, and the true step of its calls."""
    row, pipe = pipelines.PIPELINES[name], made(name)
    truths: list[list[int]] = []
    with ExitStack() as stack:
        stepped = stack.enter_context(every.watched(pipe.scheduler))
        for backbone in (row.backbone, *row.experts):
            hooked = getattr(pipe, backbone).register_forward_pre_hook
            stack.enter_context(hooked(lambda *_: truths[-1].append(stepped.done)))
        gating = stack.enter_context(tg.gate(pipe, "fixed_step", fraction=FRACTION))
        if clock is not None:
            stack.enter_context(gating.driven_by(clock(pipe)))
        for number in steps:
            truths.append([])
            row.call(pipe, steps=number, **extra)
    return list(zip(gating.runs, truths, strict=True))


def wrong(report: Report, truth: Sequence[int], *, guided: bool) -> list[Any]:
    """Everything in which a report is not what the scheduler did; a step's calls may be apart."""
    total = max(truth) + 1
    gate = gate_index(total, fraction=FRACTION)
    said, true = (report.total, report.complete), (total, True)
    found: list[Any] = [] if said == true else [(said, true)]
    for step in report.steps if guided else ():
        saved = sum(call.ran for call in step.calls) < sum(call.rows for call in step.calls)
        must = step.index >= gate
        found += [step.index] if {saved, "guidance" in step.decision.closed} != {must} else []
    return found + wrong_steps(report, truth)


@pytest.mark.parametrize("name", COMPUTED)
def test_no_decision_is_wrong(name: str) -> None:
    """At any number of steps, and as well in the second of two runs in a row."""
    guided = pipelines.PIPELINES[name].layout != "single"
    told = driven(name, 1, 2, 2, 5, 5)
    assert [wrong(report, truth, guided=guided) for report, truth in told] == [[]] * 5


@pytest.mark.parametrize(("name", "scheduler", "settings"), OTHERS)
def test_no_decision_is_wrong_with_another_scheduler(
    name: str, scheduler: str, settings: dict[str, Any]
) -> None:
    """Neither a count of the scheduler's own nor a timestep of its own for each call is needed."""
    pipe = made(name)
    pipe.scheduler, own = getattr(diffusers, scheduler)(**settings), pipe.scheduler
    try:
        told = driven(name, 4, 6)
    finally:
        pipe.scheduler = own
    assert [wrong(report, truth, guided=True) for report, truth in told] == [[], []]


def test_no_decision_is_wrong_where_timesteps_are_rounded() -> None:
    """HunyuanDiT casts them to the latents' dtype, where 917 is 916."""
    pipe = made("hunyuan-dit").to(torch.bfloat16)
    embeds = {n: value.bfloat16() for n, value in kit.texts(kit.Draw(), 1).items()}
    try:
        told = driven("hunyuan-dit", 12, **embeds, **{f"{n}_2": v for n, v in embeds.items()})
    finally:
        pipe.to(torch.float32)
    assert [wrong(report, truth, guided=True) for report, truth in told] == [[]]


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "HeunDiscreteScheduler"])
def test_a_scheduler_that_is_put_back_for_each_view_is_one_run(scheduler: str) -> None:
    """A panorama's scheduler gets copies of its own state, whose timesteps are other tensors."""
    first = made("sd").components | {"scheduler": getattr(diffusers, scheduler)()}
    pipe = kit.quiet(
        diffusers.StableDiffusionPanoramaPipeline(**first, requires_safety_checker=False)
    )
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        pipelines.PIPELINES["sd"].call(pipe, steps=4, height=64, width=64)
    assert [run.total for run in gating.runs] == [4]
    assert gating.report.closed == {"cross": (2, 3)}  # by its property it never guides


def test_a_pipeline_whose_loop_cannot_be_read_is_left_alone() -> None:
    """Its scheduler's own count is not trusted: some pipelines move copies of it alone."""
    pipe = pipelines.PIPELINES["sd"].build()

    class Odd(type(pipe)):  # type: ignore[misc]
        def __call__(self) -> None:
            self.scheduler.set_timesteps(3)
            for now in self.scheduler.timesteps.clone():
                self.unet(torch.ones(2, 4, 8, 8), now, torch.ones(2, kit.TOKENS, kit.TEXT_DIM))

    pipe.__class__ = Odd
    with tg.gate(pipe, "fixed_step", gate_step=1) as gating:
        pipe()
    assert gating.runs == []
    assert [event.message for event in gating.events] == [ASTRAY]


@pytest.mark.parametrize("clock", ["Early", "Late"])
def test_a_planted_wrong_clock_is_caught(clock: str) -> None:
    """The same check, on the same run, fails with a wrong clock and passes with ours."""
    for planted, right in ((getattr(every.clocks, clock), False), (PipelineDriver, True)):
        ((report, truth),) = driven("flux-true-cfg", 5, clock=planted)
        assert (wrong(report, truth, guided=True) == []) is right


# -- device synchronisations ----------------------------------------------------------------------


class AroundHooks(syncs.Waits):  # type: ignore[misc]
    """Watches our hooks and not the backbone: some forwards read masks on the host themselves."""

    def around(self, backbone: Any) -> None:
        mode = self._kit.Watch(self._seen)

        def begin(*_: Any) -> None:
            self.watching = True
            mode.__enter__()

        def end(*_: Any) -> None:
            mode.__exit__(None, None, None)
            self.watching = False

        for hooked in (backbone.register_forward_pre_hook, backbone.register_forward_hook):
            hooked(begin, prepend=True)
            hooked(end)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> AroundHooks:
    return AroundHooks(monkeypatch, load_helper("core/kit.py"))


def waits_of(name: str, waits: AroundHooks, clock: Any = PipelineDriver) -> Report:
    """A gated run of six steps with a policy whose steps are fixed, watched."""
    row, pipe = pipelines.PIPELINES[name], pipelines.PIPELINES[name].build()
    with tg.gate(pipe, "fixed_step", gate_step=3, refresh=2, merge="both") as gating:
        waits.around(row.denoiser(pipe))
        with gating.driven_by(clock(pipe)):
            row.call(pipe, steps=6)
    return gating.report


@pytest.mark.parametrize("name", [*COMPUTED, "sd", "sd3", "wan"])
def test_a_fixed_policy_never_waits(waits: AroundHooks, name: str) -> None:
    """Wherever the timestep comes from, and whatever it is worth."""
    report = waits_of(name, waits)
    assert waits.found == {}
    assert (report.total, report.complete) == (6, True)


class ByValue(PipelineDriver):
    """The clock of everybody who looks a timestep up."""

    def locate(self, call: Call) -> Position | Outside:
        first_value(call.timestep)
        return super().locate(call)


def test_a_planted_wait_is_caught(waits: AroundHooks) -> None:
    """A clock that reads each call's timestep waits once a call."""
    report = waits_of("sana", waits, ByValue)
    assert waits.found["item"] == len(report.steps)
