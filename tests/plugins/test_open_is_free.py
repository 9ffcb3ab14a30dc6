"""A policy that never closes leaves every sampler's result as it was, bit for bit."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import kload, pipes
from tests.kload import sampling
from tgate_plugins.k_diffusion import SAMPLERS
from tgate_sampling.testing import tiny_denoiser, tiny_unet

pytestmark = [pytest.mark.filterwarnings(text) for text in (*kload.WARNINGS, *pipes.WARNINGS)]

#: Samplers of k-diffusion that are told a range of noise levels instead of a schedule.
RANGED = {"dpm_fast": {"n": 7}, "dpm_adaptive": {}}


def say_no(step: tg.StepContext) -> bool:
    """A user's policy that never closes; its sites store at each step, for it might."""
    return False


POLICIES = {"never": "never", "function": say_no}


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet()


@pytest.fixture(scope="module")
def denoisers() -> Mapping[bool, tg.UNetDenoiser]:
    """With guidance and without."""
    return {True: tiny_denoiser(), False: tiny_denoiser(guidance_scale=1.0)}


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.parametrize("name", pipes.NAMED)
def test_an_open_gate_leaves_a_pipeline_bitwise_as_it_was(
    unet: Any, name: str, guidance_scale: float, policy: str
) -> None:
    """Latents and the state of the random number generator are equal to the bare pipeline's."""
    pipe = pipes.pipeline(unet, pipes.scheduler(name))
    run = functools.partial(pipes.generate, pipe, 5, guidance_scale=guidance_scale)
    bare = _seeded(run)
    with tg.gate(pipe, POLICIES[policy]) as gating:
        gated = _seeded(run)
    assert _equal(bare, gated)
    assert gating.report.closed == {}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_open_gate_leaves_a_sampler_bitwise_as_it_was(
    denoisers: Mapping[bool, tg.UNetDenoiser], name: str, guided: bool, policy: str
) -> None:
    """x and the state of the random number generator are equal to the bare sampler's."""
    function = getattr(sampling, f"sample_{name}")
    sample = tg.wrap_sampler(function, POLICIES[policy])
    bare = _seeded(lambda: _sample(function, name, denoisers[guided]))
    gated = _seeded(lambda: _sample(sample, name, denoisers[guided]))
    assert _equal(bare, gated)
    assert sample.report.closed == {}


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_by_name_is_the_function_of_that_name(
    denoisers: Mapping[bool, tg.UNetDenoiser], name: str
) -> None:
    """`wrap_sampler("heun")` gives what `sample_heun` gives, bit for bit."""
    bare = _seeded(lambda: _sample(getattr(sampling, f"sample_{name}"), name, denoisers[True]))
    gated = _seeded(lambda: _sample(tg.wrap_sampler(name, "never"), name, denoisers[True]))
    assert _equal(bare, gated)


@pytest.mark.parametrize("name", SAMPLERS)
def test_callbacks_are_called_with_the_same_dicts(
    denoisers: Mapping[bool, tg.UNetDenoiser], name: str
) -> None:
    """As often, with the same keys and values, as by the bare sampler."""
    bare: list[dict[str, Any]] = []
    gated: list[dict[str, Any]] = []
    function = getattr(sampling, f"sample_{name}")
    _seeded(lambda: _sample(function, name, denoisers[True], callback=bare.append))
    wrapped = tg.wrap_sampler(function, "never")
    _seeded(lambda: _sample(wrapped, name, denoisers[True], callback=gated.append))
    assert [list(d) for d in bare] == [list(d) for d in gated]
    assert all(_same(a, b) for x, y in zip(bare, gated, strict=True) for a, b in _pairs(x, y))


def test_the_callback_gets_the_very_dict_of_the_sampler(
    denoisers: Mapping[bool, tg.UNetDenoiser],
) -> None:
    """A callback may write into it, and the sampler sees what it returns."""
    seen: list[Any] = []

    def sampler(model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any) -> torch.Tensor:
        info = {"i": 0}
        seen.append((callback(info), info))
        return model(x, sigmas[:1])  # type: ignore[no-any-return]

    def callback(info: dict[str, Any]) -> str:
        info["written"] = True
        return "answer"

    sample = tg.wrap_sampler(sampler, "never")
    sample(denoisers[True], torch.ones(1, 4, 8, 8), torch.tensor([2.0, 0.0]), callback)
    assert seen == [("answer", {"i": 0, "written": True})]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_signature_survives(name: str) -> None:
    """Front ends read it to learn which arguments a sampler takes."""
    function = getattr(sampling, f"sample_{name}")
    wrapped = tg.wrap_sampler(function, "never")
    assert inspect.signature(function) == inspect.signature(wrapped)
    assert (function.__name__, function.__doc__) == (wrapped.__name__, wrapped.__doc__)


def test_a_partial_keeps_what_it_holds(denoisers: Mapping[bool, tg.UNetDenoiser]) -> None:
    """Schedule, options and callback inside a `functools.partial` all reach the sampler."""
    counts: dict[str, list[int]] = {"bare": [], "gated": []}
    results = {}
    for label, wrap in (("bare", lambda f: f), ("gated", lambda f: tg.wrap_sampler(f, "never"))):
        held = functools.partial(
            sampling.sample_heun,
            sigmas=_sigmas(),
            s_churn=3.0,
            callback=lambda info, label=label: counts[label].append(info["i"]),
            disable=True,
        )
        sample = wrap(held)
        results[label] = _seeded(lambda sample=sample: sample(denoisers[True], _noise()))
    assert _equal(results["bare"], results["gated"])
    assert counts == {"bare": [0, 1, 2, 3, 4], "gated": [0, 1, 2, 3, 4]}


def test_a_schedule_inside_a_partial_is_known(denoisers: Mapping[bool, tg.UNetDenoiser]) -> None:
    """The run's total is read wherever the schedule stands."""
    held = functools.partial(sampling.sample_euler, sigmas=_sigmas(), disable=True)
    sample = tg.wrap_sampler(held, "never")
    sample(denoisers[True], _noise())
    assert sample.report.total == 5


def test_every_argument_may_be_a_keyword(denoisers: Mapping[bool, tg.UNetDenoiser]) -> None:
    """As A1111 and Forge call samplers."""
    given = {"model": denoisers[True], "sigmas": _sigmas(), "extra_args": {}, "disable": True}
    bare = _seeded(lambda: sampling.sample_dpmpp_2m(x=_noise(), **given))
    sample = tg.wrap_sampler(sampling.sample_dpmpp_2m, "never")
    gated = _seeded(lambda: sample(x=_noise(), **given))
    assert _equal(bare, gated)


def test_extra_args_reach_the_denoiser(denoisers: Mapping[bool, tg.UNetDenoiser]) -> None:
    """And attributes are read and written through to it."""
    inner = denoisers[True]
    scales: list[float] = []

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.denoiser = inner

        def forward(self, x: torch.Tensor, sigma: torch.Tensor, *, scale: float) -> torch.Tensor:
            scales.append(scale)
            denoised: torch.Tensor = self.denoiser(x, sigma)
            return denoised * scale

    sample = tg.wrap_sampler(sampling.sample_euler, "never", layout="uncond_first")
    sample(Scaled(), _noise(), _sigmas(), extra_args={"scale": 0.9}, disable=True)
    assert scales == [0.9] * 5


def test_dpm_adaptive_returns_its_info(denoisers: Mapping[bool, tg.UNetDenoiser]) -> None:
    """With `return_info` the result is the bare sampler's pair."""
    given = {"sigma_min": 0.1, "sigma_max": 14.6, "return_info": True}
    x, info = _seeded(lambda: sampling.sample_dpm_adaptive(denoisers[True], _noise(), **given))[0]
    sample = tg.wrap_sampler("dpm_adaptive", "never")
    gated, told = _seeded(lambda: sample(denoisers[True], _noise(), **given))[0]
    assert torch.equal(x, gated)
    assert info == told


def _sigmas() -> torch.Tensor:
    schedule: torch.Tensor = sampling.get_sigmas_karras(5, 0.1, 14.6)
    return schedule


def _noise() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3)) * 14.6


def _sample(sample: Callable[..., Any], name: str, denoiser: Any, **settings: Any) -> Any:
    if name in RANGED:
        levels = {"sigma_min": 0.1, "sigma_max": 14.6, **RANGED[name]}
        return sample(denoiser, _noise(), **levels, disable=True, **settings)
    return sample(denoiser, _noise(), _sigmas(), disable=True, **settings)


def _seeded(run: Callable[[], Any]) -> tuple[Any, torch.Tensor]:
    """The result of `run` under one seed, and the state it leaves the generator in."""
    torch.manual_seed(11)
    return run(), torch.get_rng_state()


def _equal(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    return zip(one.values(), other.values(), strict=True)


def _same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)
