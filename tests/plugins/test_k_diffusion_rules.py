"""What a wrapped sampler promises beside its clock: rises, noise levels, errors at no cost."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import nn

import tgate_sampling as tg
from tests import pipes
from tests.kload import sampling
from tests.truth import ClockUNet, Denoiser, Loop, clock_backbone
from tgate_sampling.errors import OptionError, UnknownNameError, UnsupportedBackboneError
from tgate_sampling.testing import tiny_denoiser

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

GATED = ("guidance", "cross")


@pytest.fixture(autouse=True)
def _backbone() -> Iterator[None]:
    with clock_backbone(), torch.no_grad():
        yield


@pytest.fixture
def denoiser(monkeypatch: pytest.MonkeyPatch) -> Denoiser:
    loop = Loop()
    monkeypatch.setattr(sampling, "trange", loop)
    return Denoiser(loop)


def noise(level: float = 14.6) -> torch.Tensor:
    return torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1)) * level


def own_loop(policy: Any, levels: Sequence[float], **options: Any) -> tg.Report:
    """The report of a loop of one's own over `levels`, with guidance."""
    unet = ClockUNet()
    with tg.gate(unet, policy, layout="uncond_first", **options) as gating:
        for t in gating.steps(list(levels), sigmas=levels):
            unet(torch.ones(2, 4, 2, 2), t)
    return gating.report


# -- rising noise ---------------------------------------------------------------------------------


def always(step: tg.StepContext) -> set[str]:
    return set(GATED)


POLICIES: dict[str, Callable[[], Any]] = {
    "planned": lambda: tg.get_policy("fixed_step", gate_step=1),
    "by noise level": lambda: tg.get_policy("fixed_step", sigma=6.0),
    "function": lambda: always,
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rise_opens_all_gates_for_one_step(policy: str) -> None:
    """Sigma rises at steps 3 and 6; the steps after them reuse what these have computed."""
    levels = [9.0, 5.0, 3.0, 5.5, 3.0, 1.0, 2.0, 1.0]
    report = own_loop(POLICIES[policy](), levels)
    assert report.closed == dict.fromkeys(GATED, (1, 2, 4, 5, 7))
    assert report.events == ()


def test_a_rise_of_less_than_a_twentieth_is_rounding() -> None:
    """It opens nothing."""
    report = own_loop(POLICIES["planned"](), [9.0, 5.0, 3.0, 3.1, 2.0])
    assert report.closed == dict.fromkeys(GATED, (1, 2, 3, 4))


# -- noise levels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_2s_ancestral"])
def test_a_noise_level_past_the_gate_costs_one_full_step(denoiser: Denoiser, name: str) -> None:
    """img2img that starts below the gate's sigma has nothing to reuse in its first step."""
    sigmas = sampling.get_sigmas_karras(20, 0.03, 14.6)[10:]
    sample = tg.wrap_sampler(name, "fixed_step", sigma=5.0, gates=["cross"])
    sample(denoiser, noise(float(sigmas[0])), sigmas, disable=True)
    assert float(sigmas[0]) < 5.0
    assert sample.report.closed == {"cross": tuple(range(1, 10))}
    assert sample.report.events == ()


@pytest.mark.parametrize("name", ["euler", "heun", "pndm", "ddim"])
def test_a_pipeline_past_the_gate_costs_one_full_step(name: str) -> None:
    """The same through a diffusers scheduler, with both gates."""
    pipe = pipes.pipeline(ClockUNet(), pipes.scheduler(name), img2img=True)
    with tg.gate(pipe, "fixed_step", sigma=5.0) as gating:
        pipes.generate(pipe, 10, strength=0.5)
    assert gating.report.closed == dict.fromkeys(GATED, (1, 2, 3, 4))
    assert gating.report.events == ()


@pytest.mark.parametrize("gate", [8.0, 2.0, 0.1])
def test_a_noise_level_holds_for_whole_steps(denoiser: Denoiser, gate: float) -> None:
    """Heun's corrector lies below the gate first: only a step's first evaluation decides."""
    sigmas = sampling.get_sigmas_karras(10, 0.03, 14.6)
    sample = tg.wrap_sampler("heun", "fixed_step", sigma=gate, gates=["cross"])
    sample(denoiser, noise(), sigmas, disable=True)
    below = [i for i, sigma in enumerate(sigmas[:-1].tolist()) if sigma <= gate]
    assert sample.report.closed == {"cross": tuple(below)}


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_progresses_in_the_log_of_sigma(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, order: int, fraction: float
) -> None:
    """Without a total, a fraction is of the way from the largest log sigma to the smallest."""
    firsts: list[float] = []  # the level that each proposal starts from
    solver = sampling.DPMSolver
    evaluate = solver.eps

    def eps(self: Any, cache: Any, key: str, x: torch.Tensor, t: torch.Tensor) -> Any:
        if key == "eps" and key not in cache:
            firsts.append(float(self.sigma(t)))
        return evaluate(self, cache, key, x, t)

    monkeypatch.setattr(solver, "eps", eps)
    sample = tg.wrap_sampler("dpm_adaptive", "fixed_step", fraction=fraction, gates=["cross"])
    sample(denoiser, noise(), 0.03, 14.6, order=order, disable=True)
    way = math.log(14.6 / 0.03)
    past = [i for i, level in enumerate(firsts) if math.log(14.6 / level) / way >= fraction]
    assert sample.report.closed == {"cross": tuple(past)}
    assert 0 < len(past) < len(firsts) == len(sample.report.steps)


def test_autograd_is_never_gated(denoiser: Denoiser) -> None:
    """`log_likelihood` differentiates the denoiser: all is computed, and one event says so."""
    torch.manual_seed(0)
    bare = sampling.log_likelihood(denoiser, noise(1.0), 0.1, 5.0)
    policy = tg.get_policy("fixed_step", gate_step=1, gates=["cross"])
    with tg.gate(denoiser.inner_model, policy) as gating:
        sample = tg.wrap_sampler(sampling.log_likelihood)
        torch.manual_seed(0)
        gated = sample(denoiser, noise(1.0), 0.1, 5.0)
    assert torch.equal(bare[0], gated[0])
    assert bare[1] == gated[1]
    assert ["autograd" in e.message for e in gating.events] == [True]
    assert gating.runs == []


# -- errors ---------------------------------------------------------------------------------------


def falling() -> torch.Tensor:
    return torch.tensor([9.0, 3.0, 1.0, 0.0])


def call(*args: Any, sampler: Any = "euler", policy: Any = "never", **options: Any) -> Any:
    return tg.wrap_sampler(sampler, policy, **options)(*args)


WRONG: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "levels that rise": (
        lambda model: call(model, noise(), falling().flip(0)),
        OptionError,
        r"sigmas do not fall: sigmas\[1\]=1 comes after sigmas\[0\]=0\. Pass them .* lowest\.",
    ),
    "a level that is no number": (
        lambda model: call(model, noise(), torch.tensor([9.0, math.nan, 1.0])),
        OptionError,
        r"sigmas do not fall: sigmas\[1\]=nan comes after sigmas\[0\]=9\. .*",
    ),
    "one level": (
        lambda model: call(model, noise(), falling()[:1]),
        OptionError,
        r"sigmas holds 1 levels: pass two or more, falling\.",
    ),
    "no function": (
        lambda model: call(model, noise(), falling(), sampler=42),
        OptionError,
        r"sampler=42 is neither a function nor a name: pass .*sample_euler, or 'euler'\.",
    ),
    "an unknown name": (
        lambda model: call(model, noise(), falling(), sampler="dpmpp_2n"),
        UnknownNameError,
        r"no sampler is called 'dpmpp_2n'\. Did you mean 'dpmpp_2m'\? Known: dpm_2, .*",
    ),
    "an unknown policy": (
        lambda model: call(model, noise(), falling(), policy="nevr"),
        UnknownNameError,
        r"no policy is called 'nevr'\. Did you mean 'never'\? .*",
    ),
    "an unknown option": (
        lambda model: call(model, noise(), falling(), policy="fixed_step", gate_stp=2),
        OptionError,
        r"policy 'fixed_step' has no option 'gate_stp'\. Did you mean 'gate_step'\? .*",
    ),
    "an option of no policy": (
        lambda model: call(model, noise(), falling(), policy=None, gate_step=2),
        OptionError,
        r"gate_step without a policy: name the policy these belong to, as in .*",
    ),
    "no evaluations": (
        lambda model: call(model, noise(), falling(), evals_per_step=0),
        OptionError,
        r"evals_per_step=0 must be 1 or more\.",
    ),
    "no model": (
        lambda model: call(noise(), falling(), falling()),
        OptionError,
        r"sample_euler was called with a Tensor for its model: pass the denoiser first, .*",
    ),
    "nothing at all": (
        lambda model: call(),
        OptionError,
        r"sample_euler: missing a required argument: 'model'",
    ),
    "too much": (
        lambda model: call(model, noise(), falling(), *range(9)),
        OptionError,
        r"sample_euler: too many positional arguments",
    ),
    "a model without backbone": (
        lambda model: call(lambda x, sigma: x, noise(), falling()),
        UnsupportedBackboneError,
        r"no backbone found inside function \(known: .*\): pass .*backbone=unet\)\.",
    ),
    "two backbones": (
        lambda model: call(nn.ModuleList([model, tiny_denoiser()]).extend([]), noise(), falling()),
        UnsupportedBackboneError,
        r"2 backbones found inside .*: pass wrap_sampler\(\.\.\., backbone=unet\)\.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_a_sentence_before_anything_is_touched(case: str) -> None:
    """It says what was found and what to type; the model has not been called and is as it was."""
    mistake, error, sentence = WRONG[case]
    model = tiny_denoiser()
    before = marks(model)
    with pytest.raises(error) as raised:
        mistake(model)
    assert re.fullmatch(sentence, str(raised.value))
    assert marks(model) == before


def marks(model: nn.Module) -> list[Any]:
    """Everything a gating or a call would leave on a model."""
    return [
        (name, type(m), sorted(m.__dict__), len(m._forward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    ]


def test_an_error_of_the_denoiser_passes_through_and_leaves_no_trace() -> None:
    """As an interrupt does; the next run is a fresh one."""
    model = tiny_denoiser()
    before = marks(model)

    def callback(info: dict[str, Any]) -> None:
        if info["i"] == 2:
            raise KeyboardInterrupt

    sample = tg.wrap_sampler("heun", "fixed_step", gate_step=1)
    x = torch.randn(1, 4, 8, 8) * 9
    with pytest.raises(KeyboardInterrupt):
        sample(model, x, falling(), callback=callback, disable=True)
    assert marks(model) == before
    assert not sample.report.complete
    sample(model, x, falling(), disable=True)
    assert (len(sample.runs), sample.report.complete, marks(model)) == (2, True, before)


def test_a_known_sampler_is_tracked_through_its_partial(denoiser: Denoiser) -> None:
    """Its name is found inside, so nothing has to be learned."""
    sample = tg.wrap_sampler(functools.partial(sampling.sample_heun, s_churn=2.0), "never")
    sample(denoiser, noise(), falling(), disable=True)
    assert [s.evaluations for s in sample.report.steps] == [2, 2, 1]
