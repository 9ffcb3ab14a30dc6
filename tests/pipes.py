"""Stable Diffusion pipelines of micro- to milliseconds, and the schedulers they are run with."""

from __future__ import annotations

import functools
from typing import Any

import diffusers
import torch

from tgate_sampling.testing.tiny import TEXT_DIM

#: The training schedule of SD-1.x.
TRAINED: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}

#: Scheduler class and its own settings, by the name a test is parametrised with.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "pndm_prk": ("PNDMScheduler", {"skip_prk_steps": False}),
    "heun": ("HeunDiscreteScheduler", {}),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {"original_inference_steps": 1000}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
}

#: diffusers' schedulers hand tensors to NumPy functions, by a protocol torch is behind with.
WARNINGS = ("ignore:__array_:DeprecationWarning",)

#: The ones the promise "open is free" names.
NAMED = ("ddim", "euler", "euler_ancestral", "dpmpp_2m", "pndm", "heun", "kdpm2")


def scheduler(name: str, **settings: Any) -> Any:
    """A fresh scheduler of `SCHEDULERS`."""
    made, own = SCHEDULERS[name]
    return getattr(diffusers, made)(**{**TRAINED, **own, **settings})


def pipeline(unet: Any, scheduled: Any, *, img2img: bool = False) -> Any:
    """A pipeline without text encoder and an autoencoder that is not called: latents and embeddings
    in, latents out."""
    name = "StableDiffusionImg2ImgPipeline" if img2img else "StableDiffusionPipeline"
    pipe = getattr(diffusers, name)(
        vae=_idle_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduled,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def _idle_vae() -> Any:
    """Nothing calls it, but pipelines of diffusers before 0.33 read its size: 8 pixels a latent."""
    return diffusers.AutoencoderKL(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
    ).eval()


def generate(pipe: Any, steps: int, *, guidance_scale: float = 4.0, **settings: Any) -> Any:
    """Run a pipeline on seeded inputs; the final latents."""
    made = torch.Generator().manual_seed(5)
    latents = torch.randn(1, 4, 8, 8, generator=made)
    given = {"image": latents} if "strength" in settings else {"latents": latents}
    return pipe(
        prompt_embeds=torch.randn(1, 7, TEXT_DIM, generator=made),
        negative_prompt_embeds=torch.randn(1, 7, TEXT_DIM, generator=made),
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
        **given,
        **settings,
    ).images
