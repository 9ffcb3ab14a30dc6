"""A policy of one's own in three lines, used in a pipeline and in a sampler.

It is a function of the step. `True` closes guidance and cross-attention; a set of gate names, or a
`tg.Decision`, says more. `@tg.policy` also registers it, so that every front end knows its name.
"""

from typing import Any

import torch

import tgate_sampling as tg


@tg.policy
def second_half(step: tg.StepContext) -> bool:
    return step.progress >= 0.5


def load_pipe() -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A pipeline and its two embeddings: the project's small model, or else a random one."""
    try:
        from tgate_zoo.loader import load

        pipe = load("emoji-sd")
    except (ImportError, LookupError):
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        from tgate_sampling.testing import tiny_unet

        none = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker"))
        parts = {"unet": tiny_unet(), "scheduler": DDIMScheduler(), "feature_extractor": None}
        return StableDiffusionPipeline(**none, **parts), *torch.randn(2, 1, 7, 16)
    return pipe, *pipe.encode_prompt("a large apple on a blue background", "cpu", 1, True)


def euler(model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any = None) -> torch.Tensor:
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)))
        if callback is not None:  # this is how the step of an unknown sampler is known
            callback({"i": i, "x": x, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


@torch.no_grad()
def main() -> None:
    pipe, cond, uncond = load_pipe()
    with tg.gate(pipe, second_half) as gating:  # or by its name: tg.gate(pipe, "second_half")
        pipe(prompt_embeds=cond, negative_prompt_embeds=uncond, output_type="latent")
    print("in a pipeline:", gating.report, sep="\n")

    alphas, sigmas = pipe.scheduler.alphas_cumprod, torch.logspace(1, -1, 21)
    denoiser = tg.UNetDenoiser(pipe.unet, alphas, cond=cond, uncond=uncond, guidance_scale=4.0)
    sample = tg.wrap_sampler(euler, "second_half")
    sample(denoiser, sigmas[0] * torch.randn(1, pipe.unet.config.in_channels, 8, 8), sigmas)
    print("in a sampler:", sample.report, sep="\n")


main()
