"""Tiny modular pipelines, whose guidance is a component of its own: one call a branch."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.modular_pipelines.stable_diffusion_xl import modular_blocks_stable_diffusion_xl
from diffusers.modular_pipelines.z_image import modular_blocks_z_image

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")
sd = load_helper("backbones/pipes_sd.py")
dit = load_helper("backbones/pipes_dit.py")


def hushed(blocks: Any) -> Any:
    """The blocks without progress bars; the pipeline's own setting reaches only the outer ones."""
    if hasattr(blocks, "set_progress_bar_config"):
        blocks.set_progress_bar_config(disable=True)
    for block in blocks.sub_blocks.values():
        hushed(block)
    return blocks


def assembled(blocks: Any, **parts: Any) -> Any:
    """A modular pipeline of its denoising blocks only: no encoder, no decoder, nothing loaded."""
    pipe = hushed(blocks).init_pipeline()
    pipe.update_components(guider=ClassifierFreeGuidance(guidance_scale=kit.GUIDED), **parts)
    return pipe


def sdxl() -> Any:
    return assembled(
        modular_blocks_stable_diffusion_xl.StableDiffusionXLCoreDenoiseStep(),
        unet=sd.unet_xl(),
        scheduler=diffusers.EulerDiscreteScheduler(**sd.TRAINED, timestep_spacing="leading"),
    )


def z_image() -> Any:
    return assembled(
        modular_blocks_z_image.ZImageCoreDenoiseStep(),
        transformer=dit.z_image().transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def caller(inputs: Any, **fixed: Any) -> Any:
    """As the kit's, but the scale is the guider's, and the output is asked for by name."""

    def call(
        pipe: Any, steps: int = 4, guidance: bool = True, batch: int = 1, **extra: Any
    ) -> torch.Tensor:
        pipe.guider.guidance_scale = kit.GUIDED if guidance else kit.UNGUIDED
        given = {
            "num_inference_steps": steps,
            "generator": torch.Generator().manual_seed(7),
            "output": "latents",
        }
        return pipe(**given | fixed | inputs(kit.Draw(), batch) | extra)

    return call


ROWS = (
    kit.TinyPipe("modular-sdxl", sdxl, caller(sd.pooled), "unet", "separate", 2),
    kit.TinyPipe(
        "modular-z-image",
        z_image,
        caller(dit.listed, height=64, width=64),
        "transformer",
        "separate",
        2,
    ),
)
