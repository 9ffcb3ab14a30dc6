"""Wrap a k-diffusion sampler: the same call goes in, the same result comes out, and less is run."""

from typing import Any

import torch

import tgate_sampling as tg


def sample_euler(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any = None, disable: Any = None
) -> torch.Tensor:
    """What is sampled with where k-diffusion does not import."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:  # this is how the step is known
            callback({"i": i, "x": x, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


try:
    from k_diffusion.sampling import sample_dpmpp_2m as sampler
except Exception as error:  # its package asks for more than its samplers need: docs/k-diffusion.md
    print(f"without k-diffusion ({type(error).__name__}: {error})")
    sampler = sample_euler


def load_denoiser() -> tg.UNetDenoiser:
    """The project's small text-to-image model, or else a random one, as x, sigma -> denoised."""
    try:
        from tgate_zoo.loader import load

        pipe = load("emoji-sd")
    except (ImportError, LookupError):
        from tgate_sampling.testing import tiny_denoiser

        return tiny_denoiser()
    cond, uncond = pipe.encode_prompt("a large apple on a blue background", "cpu", 1, True)
    alphas = pipe.scheduler.alphas_cumprod
    return tg.UNetDenoiser(pipe.unet, alphas, cond=cond, uncond=uncond, guidance_scale=4.0)


@torch.no_grad()
def main() -> None:
    denoiser = load_denoiser()
    sigmas = torch.cat([torch.logspace(1.15, -1.5, 20), torch.zeros(1)])
    torch.manual_seed(0)
    noise = torch.randn(1, denoiser.inner_model.config.in_channels, 8, 8) * sigmas[0]

    full = sampler(denoiser, noise, sigmas, disable=True)
    for policy, options in (("interleave", {}), ("fixed_step", {"fraction": 0.4})):
        sample = tg.wrap_sampler(sampler, policy, **options)
        gated = sample(denoiser, noise, sigmas, disable=True)
        print(sample.report)
        print(f"relative error {float((gated - full).norm() / full.norm()):.3f}\n")


main()
