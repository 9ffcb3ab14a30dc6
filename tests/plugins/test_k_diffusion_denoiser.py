"""`UNetDenoiser` is k-diffusion's own discrete denoiser, with guidance, and diffusers' Euler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import pipes
from tests.golden_io import relative_l2
from tests.kload import external, sampling
from tgate_sampling.errors import OptionError
from tgate_sampling.testing import tiny_unet
from tgate_sampling.testing.tiny import TEXT_DIM

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet()


@pytest.fixture(scope="module")
def text() -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, uncond), as `pipes.generate` draws them."""
    made = torch.Generator().manual_seed(5)
    torch.randn(1, 4, 8, 8, generator=made)
    return tuple(torch.randn(1, 7, TEXT_DIM, generator=made) for _ in range(2))


def latents() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def alphas() -> torch.Tensor:
    cumulative: torch.Tensor = pipes.scheduler("euler").alphas_cumprod
    return cumulative


THEIRS = {
    "epsilon": external.DiscreteEpsDDPMDenoiser,
    "v_prediction": external.DiscreteVDDPMDenoiser,
}


@pytest.mark.parametrize("sigma", [20.0, 14.6, 3.3, 0.5, 0.0292, 0.001])
@pytest.mark.parametrize("prediction", THEIRS)
def test_it_is_the_discrete_denoiser_of_k_diffusion(
    unet: Any, text: Any, alphas: torch.Tensor, prediction: Any, sigma: float
) -> None:
    """Without guidance, at levels on the schedule, between its levels, and outside of it."""
    cond, _ = text
    theirs = THEIRS[prediction](
        lambda x, t: unet(x, t, encoder_hidden_states=cond).sample, alphas, quantize=False
    )
    ours = tg.UNetDenoiser(unet, alphas, cond=cond, prediction_type=prediction)
    x, level = latents() * sigma, torch.tensor([sigma])
    assert relative_l2(ours(x, level), theirs(x, level)) < 1e-6


@pytest.mark.parametrize("prediction", THEIRS)
def test_guidance_is_uncond_plus_scale_times_the_difference(
    unet: Any, text: Any, alphas: torch.Tensor, prediction: Any
) -> None:
    """Of the denoised predictions, which is the same as of the model's outputs."""
    parts = [tg.UNetDenoiser(unet, alphas, cond=part, prediction_type=prediction) for part in text]
    x, sigma = latents() * 3.0, torch.tensor([3.0])
    cond, uncond = (part(x, sigma) for part in parts)
    guided = tg.UNetDenoiser(
        unet,
        alphas,
        cond=text[0],
        uncond=text[1],
        guidance_scale=4.0,
        prediction_type=prediction,
    )
    assert relative_l2(guided(x, sigma), uncond + 4.0 * (cond - uncond)) < 1e-5


def test_timesteps_are_those_of_k_diffusion(alphas: torch.Tensor, unet: Any, text: Any) -> None:
    """To a thousandth of one, at ten thousand noise levels and at each of the schedule's own."""
    ours = tg.UNetDenoiser(unet, alphas, cond=text[0])
    theirs = external.DiscreteEpsDDPMDenoiser(unet, alphas, quantize=False)
    levels = torch.cat([torch.logspace(-3, 1.5, 10_000), theirs.sigmas])
    assert ours.sigma_to_t(levels) == pytest.approx(theirs.sigma_to_t(levels), abs=1e-3)


def test_the_sample_itself_may_be_predicted(unet: Any, text: Any, alphas: torch.Tensor) -> None:
    """Then the output is what is denoised."""
    denoiser = tg.UNetDenoiser(unet, alphas, cond=text[0], prediction_type="sample")
    x, sigma = latents() * 3.0, torch.tensor([3.0])
    said = unet(x / 10.0**0.5, denoiser.sigma_to_t(sigma), encoder_hidden_states=text[0]).sample
    assert relative_l2(denoiser(x, sigma), said) < 1e-6


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
@pytest.mark.parametrize("prediction", THEIRS)
def test_sample_euler_is_the_euler_pipeline(
    unet: Any, text: Any, alphas: torch.Tensor, prediction: Any, guidance_scale: float
) -> None:
    """Ten steps of diffusers' EulerDiscrete, spaced linearly, on the same noise."""
    scheduler = pipes.scheduler("euler", timestep_spacing="linspace", prediction_type=prediction)
    pipe = pipes.pipeline(unet, scheduler)
    theirs = pipes.generate(pipe, 10, guidance_scale=guidance_scale)
    denoiser = tg.UNetDenoiser(
        unet,
        alphas,
        cond=text[0],
        uncond=text[1],
        guidance_scale=guidance_scale,
        prediction_type=prediction,
    )
    x = latents() * scheduler.sigmas[0]
    ours = sampling.sample_euler(denoiser, x, scheduler.sigmas, disable=True)
    assert relative_l2(ours, theirs) < 1e-5


def test_gated_both_ways_alike(unet: Any, text: Any, alphas: torch.Tensor) -> None:
    """One policy, one gate step: sampler and pipeline give the same gated latents."""
    scheduler = pipes.scheduler("euler", timestep_spacing="linspace")
    pipe = pipes.pipeline(unet, scheduler)
    bare = pipes.generate(pipe, 10)
    with tg.gate(pipe, "fixed_step", gate_step=4) as gating:
        theirs = pipes.generate(pipe, 10)
    denoiser = tg.UNetDenoiser(unet, alphas, cond=text[0], uncond=text[1], guidance_scale=4.0)
    sample = tg.wrap_sampler("euler", "fixed_step", gate_step=4)
    ours = sample(denoiser, latents() * scheduler.sigmas[0], scheduler.sigmas, disable=True)
    assert relative_l2(ours, theirs) < 1e-5
    assert relative_l2(theirs, bare) > 1e-4
    assert (
        sample.report.closed
        == gating.report.closed
        == {
            "guidance": (4, 5, 6, 7, 8, 9),
            "cross": (4, 5, 6, 7, 8, 9),
        }
    )


def test_batches_and_keywords_travel_together(unet: Any, alphas: torch.Tensor) -> None:
    """A mapping of keyword arguments is what a tensor of embeddings is, row by row."""
    made = torch.Generator().manual_seed(2)
    cond, uncond = (torch.randn(3, 7, TEXT_DIM, generator=made) for _ in range(2))
    x, sigma = torch.randn(3, 4, 8, 8, generator=made), torch.tensor([9.0, 3.0, 1.0])
    mapped = tg.UNetDenoiser(
        unet,
        alphas,
        cond={"encoder_hidden_states": cond},
        uncond={"encoder_hidden_states": uncond},
        guidance_scale=2.0,
    )
    plain = tg.UNetDenoiser(unet, alphas, cond=cond, uncond=uncond, guidance_scale=2.0)
    alone = tg.UNetDenoiser(unet, alphas, cond=cond[1:2], uncond=uncond[1:2], guidance_scale=2.0)
    assert torch.equal(mapped(x, sigma), plain(x, sigma))
    assert relative_l2(plain(x, sigma)[1:2], alone(x[1:2], sigma[1:2])) < 1e-5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prediction_type": "eps"}, "prediction_type='eps' is unknown"),
        ({"guidance_scale": 4.0}, "guidance_scale=4.0 needs uncond"),
    ],
)
def test_a_wrong_option_is_a_sentence(
    unet: Any, text: Any, alphas: torch.Tensor, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OptionError, match=sentence):
        tg.UNetDenoiser(unet, alphas, cond=text[0], **options)
