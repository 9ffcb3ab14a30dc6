"""Calls that a pipeline's user makes on its backbone in the middle of a run are none of the run's.

They come from a callback: the pipeline is on the stack, the scheduler between two steps, and the
timestep of the last call at hand. What is asked for is computed in full, to the bit, and the run
goes on as if nobody had asked.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import pipes
from tests.conftest import load_helper
from tests.truth import ClockUNet, clock_backbone
from tgate_plugins import _callers
from tgate_plugins.diffusers_pipeline import FOREIGN
from tgate_sampling.report import Report

pipelines = load_helper("backbones/pipelines.py")
homes = load_helper("plugins/scheduler_homes.py")

pytestmark = [pytest.mark.filterwarnings(text) for text in homes.WARNINGS]

STEPS = 5

#: All ways to make a timestep, most ways to lay out the branches, and both kinds of callback.
NAMES = (
    *("sd", "sdxl", "pixart-alpha", "sd3", "wan", "pix2pix"),
    *("flux", "flux-true-cfg", "chroma", "aura-flow", "qwen-image", "lumina", "lumina2"),
    *("z-image", "hunyuan-dit", "sana", "wan-ti2v", "allegro"),
)

#: What a user does at the end of each step, given the timestep: the tensor it is after.
Ask = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad(), clock_backbone():
        yield


@functools.cache
def made(name: str) -> Any:
    return pipelines.PIPELINES[name].build()


def ask_backbone(name: str, pipe: Any) -> Ask:
    """The user makes the run's first call again; where a view is given, with the loop's own."""
    row, given = pipelines.PIPELINES[name], []
    backbone = row.denoiser(pipe)

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given.append(copy.deepcopy((args, kwargs)))

    with backbone.register_forward_pre_hook(note, with_kwargs=True):
        row.call(pipe, steps=STEPS)

    def ask(t: torch.Tensor) -> torch.Tensor:
        args, kwargs = copy.deepcopy(given[0])
        if pipelines.TIMESTEPS[name] == "view" and "timestep" in kwargs:
            kwargs["timestep"] = t.expand(kwargs["timestep"].shape)
        elif pipelines.TIMESTEPS[name] == "view":
            args = (args[0], t, *args[2:])
        output = backbone(*args, **kwargs)[0]
        tensor: torch.Tensor = torch.stack(output) if isinstance(output, list) else output
        return tensor

    return ask


def ask_pipeline(name: str, pipe: Any) -> Ask:
    """The user runs another pipeline on the same backbone."""
    fresh = type(pipe.scheduler).from_config(pipe.scheduler.config)
    other = copy.copy(pipe)
    other.scheduler = fresh
    return lambda t: pipelines.PIPELINES[name].call(other, steps=3)


def hears(pipe: Any, ask: Ask, heard: list[torch.Tensor]) -> dict[str, Any]:
    """The keyword by which a pipeline calls its user at the end of each step."""

    def at_step_end(_: Any, index: int, t: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        heard.append(ask(t))
        return tensors

    def callback(index: int, t: torch.Tensor, latents: torch.Tensor) -> None:
        heard.append(ask(t))

    if "callback" in inspect.signature(type(pipe).__call__).parameters:
        return {"callback": callback, "callback_steps": 1}
    return {"callback_on_step_end": at_step_end}


def told(report: Report) -> tuple[Any, ...]:
    """What a run decided and did."""
    calls = [(call.rows, call.ran, call.reused) for step in report.steps for call in step.calls]
    return report.total, report.complete, report.closed, calls


def asked(name: str, how: Callable[[str, Any], Ask]) -> dict[str, bool]:
    """Whether a gated run in which the user asks is as one where nobody does."""
    row, pipe = pipelines.PIPELINES[name], made(name)
    ask = how(name, pipe)
    bare: list[torch.Tensor] = []
    heard: list[torch.Tensor] = []
    row.call(pipe, steps=STEPS, **hears(pipe, ask, bare))
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        alone = row.call(pipe, steps=STEPS)
        latents = row.call(pipe, steps=STEPS, **hears(pipe, ask, heard))
    first, *others = gating.runs
    return {
        "answers": len(heard) == STEPS and all(map(torch.equal, bare, heard)),
        "latents": torch.equal(alone, latents),
        "report": [told(run) for run in others] == [told(first)],
        "closed": bool(first.closed) or row.layout == "single",
        "event": [e.message for e in gating.report.events if e.kind == "outside"] == [FOREIGN],
    }


AS_IT_WAS = dict.fromkeys(("answers", "latents", "report", "closed", "event"), True)


@pytest.mark.parametrize("how", [ask_backbone, ask_pipeline])
@pytest.mark.parametrize("name", NAMES)
def test_a_call_from_a_callback_is_none_of_the_runs(
    name: str, how: Callable[[str, Any], Ask]
) -> None:
    """It gets the bare backbone's answer, and leaves decisions, caches and latents alone."""
    assert asked(name, how) == AS_IT_WAS


@pytest.mark.parametrize("name", ["sd", "flux-true-cfg"])
def test_a_planted_clock_that_trusts_callbacks_is_caught(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only looks whether the pipeline is on the stack takes the call for the run's."""
    monkeypatch.setattr(_callers, "code_of", lambda function: None)
    assert asked(name, ask_backbone) != AS_IT_WAS


class Object:
    """A callback that is an object."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def method(self, *args: Any) -> Any:
        return self.function(*args)


FORMS: dict[str, Callable[[Any], Any]] = {
    "object": Object,
    "method": lambda function: Object(function).method,
    "partial": functools.partial,
    "partial of a method": lambda function: functools.partial(Object(function).method),
    "partial of an object": lambda function: functools.partial(Object(function)),
    "wrapped": lambda function: functools.wraps(function)(lambda *args: function(*args)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_callback_of_any_form_is_known(form: str) -> None:
    """Functions are not the only things that can be called."""
    pipe, unet = clock_pipe()
    seen = []

    def function(_: Any, index: int, t: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(unet(torch.ones(2, 4, 8, 8), t)[0])
        return tensors

    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        pipes.generate(pipe, 4, callback_on_step_end=FORMS[form](function))
    assert len(seen) == 4
    assert [len(step.calls) for step in gating.report.steps] == [1, 1, 1, 1]


class Combined:
    """A pipeline that has another one do the work, as Kandinsky's combined ones."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.scheduler, self.unet = inner, inner.scheduler, inner.unet
        self.components = inner.components

    def __call__(self, steps: int) -> Any:
        return pipes.generate(self.inner, steps)


def test_a_pipeline_inside_the_pipeline_makes_its_calls() -> None:
    """Nobody but the user's own code stands between them."""
    pipe, _ = clock_pipe()
    outer = Combined(pipe)
    with tg.gate(outer, "fixed_step", gate_step=2) as gating:
        outer(4)
    assert gating.report.closed == {"guidance": (2, 3), "cross": (2, 3)}
    assert gating.events == []


def test_a_loop_of_the_users_own_counts_its_own_steps() -> None:
    """Over the pipeline's scheduler, after a shorter run of the pipeline itself."""
    pipe, unet = clock_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=2, gates=["cross"]) as gating:
        pipes.generate(pipe, 3)
        pipe.scheduler.set_timesteps(6)
        for t in pipe.scheduler.timesteps:
            unet(torch.ones(1, 4, 8, 8), t)
    assert [run.total for run in gating.runs] == [3, 6]
    assert gating.report.closed == {"cross": (2, 3, 4, 5)}


def test_a_loop_of_the_users_own_must_say_where_it_is_if_it_computes_timesteps() -> None:
    """A tensor that is no view tells nothing: the calls are computed in full, and reported once."""
    pipe, unet = clock_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=1) as gating:
        pipe.scheduler.set_timesteps(3)
        for t in pipe.scheduler.timesteps:
            unet(torch.ones(2, 4, 8, 8), t / 1000)
    assert gating.runs == []
    assert [event.message for event in gating.events] == [FOREIGN]


def clock_pipe() -> tuple[Any, ClockUNet]:
    unet = ClockUNet()
    return pipes.pipeline(unet, pipes.scheduler("ddim")), unet
