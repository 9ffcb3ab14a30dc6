"""Samplers by name: each draws a picture, with the model's own noise schedule."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest

import tgate_sampling as tg
from tgate_plugins.cli.bench import Bench, Method
from tgate_plugins.cli.samplers import SAMPLERS, find_sampler, set_sampler
from tgate_plugins.cli.spec import Spec
from tgate_sampling.errors import OptionError, UnknownNameError

# diffusers' schedulers hand tensors to NumPy functions, by a protocol torch is behind with.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_and_its_calls_are_known_before(name: str, pipe: Any) -> None:
    set_sampler(pipe, name)
    bench = Bench(pipe, {"guidance_scale": 4.0})
    bench.warm_up(["a cat"], 4)
    bare = bench.shoot(Method("bare", "ungated", 4), "a cat", 0)
    gated = bench.shoot(Method("g", "gated", 4, Spec.parse("fixed_step:gate_step=2")), "a cat", 0)
    assert (bare.error, gated.error) == (None, None)
    assert gated.closed["guidance"] == (2, 3)
    assert np.isfinite(gated.image).all()
    with tg.gate(pipe, "never") as gating:
        pipe("a cat", num_inference_steps=4)
    assert sum(len(step.calls) for step in gating.report.steps) == bench.calls(4)


def test_a_sampler_keeps_the_schedule_the_model_was_trained_on(pipe: Any) -> None:
    before = pipe.scheduler.alphas_cumprod.clone()
    set_sampler(pipe, "dpmpp-2m-karras")
    assert isinstance(pipe.scheduler, diffusers.DPMSolverMultistepScheduler)
    assert pipe.scheduler.config.use_karras_sigmas
    assert (pipe.scheduler.alphas_cumprod == before).all()


def test_an_unknown_sampler_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'euler'"):
        find_sampler("eulr")


def test_a_sampler_of_another_family_is_refused(pipe: Any) -> None:
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(OptionError, match="cannot stand in for this model's FlowMatch"):
        set_sampler(pipe, "ddim")
