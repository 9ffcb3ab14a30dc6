"""Tiny random backbones: milliseconds a call on one core."""

from __future__ import annotations

from typing import Any

import torch

from tgate_sampling.denoiser import UNetDenoiser
from tgate_sampling.errors import MissingExtraError

#: Width of the text embeddings `tiny_unet` takes.
TEXT_DIM = 16


def tiny_unet(*, seed: int = 0, **config: Any) -> Any:
    """A random `UNet2DConditionModel` in the shape of SD-1.5, 0.1 M parameters, on 8x8 latents.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtraError(
            "tiny_unet() needs diffusers: pip install 'tgate-sampling[diffusers]'"
        ) from error
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": TEXT_DIM,
        "attention_head_dim": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Any = diffusers.UNet2DConditionModel
        return made(**(settings | config)).eval()


def unet_inputs(*, rows: int = 2, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments of `tiny_unet` but for the timestep; the latents of all rows are equal."""
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(1, 4, 8, 8, generator=generator).repeat(rows, 1, 1, 1)
    text = torch.randn(rows, 7, TEXT_DIM, generator=generator)
    return {"sample": sample, "encoder_hidden_states": text}


def tiny_denoiser(*, batch: int = 1, guidance_scale: float = 4.0, seed: int = 0) -> UNetDenoiser:
    """`tiny_unet` as a k-diffusion denoiser with guidance."""
    generator = torch.Generator().manual_seed(seed + 1)
    cond = torch.randn(batch, 7, TEXT_DIM, generator=generator)
    uncond = torch.randn(batch, 7, TEXT_DIM, generator=generator)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return UNetDenoiser(
        tiny_unet(seed=seed),
        torch.cumprod(1 - betas, 0),
        cond=cond,
        uncond=uncond,
        guidance_scale=guidance_scale,
        prediction_type="v_prediction",
    )
