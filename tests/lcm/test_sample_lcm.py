"""`sample_lcm` with `LCMDenoiser` takes the steps of diffusers' LCMScheduler."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tgate_plugins.lcm import LCMDenoiser, boundary_scalings, guidance_embedding, sample_lcm
from tgate_sampling.testing import tiny_unet
from tgate_sampling.testing.tiny import TEXT_DIM

STEPS, ROWS = 4, 2

#: float32: four steps of a random net, relative L2.
EXACT = 1e-6


@pytest.fixture(scope="module")
def unets() -> dict[int | None, Any]:
    """Tiny UNets by the width of their guidance embedding."""
    return {width: tiny_unet(time_cond_proj_dim=width) for width in (None, 32)}


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A prompt's embedding and the noise of every step."""
    made = torch.Generator().manual_seed(0)
    text = torch.randn(ROWS, 7, TEXT_DIM, generator=made)
    return text, [torch.randn(ROWS, 4, 8, 8, generator=made) for _ in range(STEPS)]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def scheduler_run(
    scheduler: Any, unet: Any, noise: Sequence[torch.Tensor], patch: Any, **inputs: Any
) -> torch.Tensor:
    """The scheduler's own loop, with given noise."""
    later: Iterator[torch.Tensor] = iter(noise[1:])
    module = "diffusers.schedulers.scheduling_lcm"
    patch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(later))
    scheduler.set_timesteps(STEPS)
    x = noise[0]
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t, **inputs).sample, t, x).prev_sample
    return x


def our_run(denoiser: LCMDenoiser, noise: Sequence[torch.Tensor], sample: Any = None) -> Any:
    """`sample_lcm` from the same noise."""
    sigmas, later = denoiser.get_sigmas(STEPS), iter(noise[1:])
    x = noise[0] * (sigmas[0] ** 2 + 1) ** 0.5
    return (sample or sample_lcm)(denoiser, x, sigmas, noise_sampler=lambda *_: next(later))


@pytest.mark.parametrize("width", [None, 32])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_four_steps_are_the_scheduler_s(
    unets: Any, drawn: Any, monkeypatch: Any, prediction: Any, width: int | None
) -> None:
    """The same latents to 1e-6, also where the guidance scale is an input of the model.

    In float64: how a processor rounds float32 moves them by as much.
    """
    text, noise = drawn[0].double(), [n.double() for n in drawn[1]]
    unet = copy.deepcopy(unets[width]).double()
    scheduler = diffusers.LCMScheduler(prediction_type=prediction)
    inputs = {"encoder_hidden_states": text}
    if width is not None:
        embed = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding
        scale = torch.full((ROWS,), 7.0)
        inputs["timestep_cond"] = embed(None, scale, width).double()  # type: ignore[arg-type]
    theirs = scheduler_run(scheduler, unet, noise, monkeypatch, **inputs)
    denoiser = LCMDenoiser(
        unet,
        scheduler.alphas_cumprod,
        cond=text,
        guidance_scale=8.0 if width else 1.0,
        prediction_type=prediction,
    )
    assert relative(our_run(denoiser, noise), theirs) <= EXACT


def test_a_run_by_name_and_gated_but_open_is_the_bare_run(unets: Any, drawn: Any) -> None:
    """`wrap_sampler("lcm", "never")` changes no bit and knows each step."""
    text, noise = drawn
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=text)
    sample = tg.wrap_sampler("lcm", "never")
    assert torch.equal(our_run(denoiser, noise, sample), our_run(denoiser, noise))
    assert [(s.index, s.evaluations) for s in sample.report.steps] == [(i, 1) for i in range(4)]
    assert sample.report.total == STEPS


def test_the_cross_gate_closes_in_a_sampled_run(unets: Any, drawn: Any) -> None:
    """From the gate on no cross site is computed, and the result is another one."""
    text, noise = drawn
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=text)
    sample = tg.wrap_sampler("sample_lcm", "fixed_step", gate_step=2)
    gated = our_run(denoiser, noise, sample)
    reused = [len(c.reused.get("cross", ())) for s in sample.report.steps for c in s.calls]
    assert reused == [0, 0, 4, 4]
    assert 1e-4 < relative(gated, our_run(denoiser, noise)) < 1
    assert torch.equal(our_run(denoiser, noise, sample), gated)  # a second call is the same


@pytest.mark.parametrize("steps", range(1, 51))
def test_noise_levels_are_those_the_scheduler_picks(unets: Any, steps: int) -> None:
    """Every number of steps gives the scheduler's timesteps."""
    scheduler = diffusers.LCMScheduler()
    scheduler.set_timesteps(steps)
    denoiser = LCMDenoiser(unets[None], scheduler.alphas_cumprod, cond=torch.zeros(1, 7, TEXT_DIM))
    sigmas = denoiser.get_sigmas(steps)
    assert sigmas[-1] == 0
    assert denoiser.sigma_to_t(sigmas[:-1]).tolist() == scheduler.timesteps.tolist()


def test_a_level_between_two_distilled_ones_takes_the_nearest() -> None:
    """The network is asked only at timesteps it was distilled at."""
    denoiser = LCMDenoiser(
        tiny_unet(), diffusers.LCMScheduler().alphas_cumprod, cond=torch.zeros(1, 7, TEXT_DIM)
    )
    between = denoiser.sigmas[torch.tensor([255, 262, 268, 272])]
    assert denoiser.sigma_to_t(between).tolist() == [259, 259, 259, 279]
    assert denoiser.sigma_to_t(torch.tensor([1e-4, 1e4])).tolist() == [19, 999]


@pytest.mark.parametrize("timestep", [0, 19, 259, 999])
def test_boundary_scalings_are_the_scheduler_s(timestep: int) -> None:
    """And at timestep 0 the consistency function is the identity."""
    scheduler = diffusers.LCMScheduler()
    theirs = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
    ours = boundary_scalings(torch.tensor(float(timestep)))
    assert [float(c) for c in ours] == pytest.approx(theirs, rel=1e-6)
    if timestep == 0:
        assert theirs == (1.0, 0.0)


@pytest.mark.parametrize("width", [32, 33])
def test_the_scale_s_embedding_is_the_pipeline_s(width: int) -> None:
    """Sines and cosines of w = scale - 1, padded where the width is odd."""
    embed = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding
    theirs = embed(None, torch.tensor([6.5]), width)  # type: ignore[arg-type]
    torch.testing.assert_close(guidance_embedding(7.5, width), theirs, rtol=0, atol=1e-4)


def test_the_callback_hears_of_every_step(unets: Any, drawn: Any) -> None:
    """With k-diffusion's keys, and tensors that later steps do not write into."""
    text, noise = drawn
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=text)
    heard: list[dict[str, Any]] = []
    sigmas = denoiser.get_sigmas(STEPS)
    later = iter(noise[1:])
    x = sample_lcm(
        denoiser,
        noise[0] * sigmas[0],
        sigmas,
        callback=heard.append,
        disable=True,
        noise_sampler=lambda *_: next(later),
    )
    assert [h["i"] for h in heard] == list(range(STEPS))
    assert all(set(h) == {"x", "i", "sigma", "sigma_hat", "denoised"} for h in heard)
    assert torch.equal(x, heard[-1]["denoised"])
    then = heard[0]["denoised"] + sigmas[1] * noise[1]
    assert torch.equal(heard[1]["x"], then)


def test_a_schedule_that_ends_early_ends_with_noise(unets: Any, drawn: Any) -> None:
    """Without a last 0 the result is at the last level, as a second sampler expects it."""
    text, noise = drawn
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=text)
    sigmas = denoiser.get_sigmas(STEPS)
    ours = sample_lcm(denoiser, noise[0], sigmas[:2], noise_sampler=lambda *_: noise[1])
    assert torch.equal(ours, denoiser(noise[0], sigmas[0].expand(ROWS)) + sigmas[1] * noise[1])


def test_noise_comes_from_torch_s_generator_by_default(unets: Any, drawn: Any) -> None:
    """Two runs with one seed are one run."""
    text, noise = drawn
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=text)
    runs = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            runs.append(sample_lcm(denoiser, noise[0], denoiser.get_sigmas(STEPS)))
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"original_steps": 0}, "between 1 and the training's 1000"),
        ({"original_steps": 1001}, "between 1 and the training's 1000"),
        ({"guidance_scale": 4.0}, "needs uncond"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(options: Any, says: str) -> None:
    """Before any call."""
    alphas = diffusers.LCMScheduler().alphas_cumprod
    with pytest.raises(tg.TGateError, match=says):
        LCMDenoiser(tiny_unet(), alphas, cond=torch.zeros(1, 7, TEXT_DIM), **options)


def test_guidance_as_an_input_leaves_no_place_for_uncond(unets: Any, drawn: Any) -> None:
    """Such a model has one branch."""
    with pytest.raises(tg.TGateError, match="leave uncond out"):
        LCMDenoiser(
            unets[32], diffusers.LCMScheduler().alphas_cumprod, cond=drawn[0], uncond=drawn[0]
        )


@pytest.mark.parametrize("steps", [0, 51])
def test_more_steps_than_were_distilled_are_refused(unets: Any, drawn: Any, steps: int) -> None:
    """50 timesteps give 1 to 50 steps."""
    denoiser = LCMDenoiser(unets[None], diffusers.LCMScheduler().alphas_cumprod, cond=drawn[0])
    with pytest.raises(tg.TGateError, match="between 1 and the 50 distilled"):
        denoiser.get_sigmas(steps)
