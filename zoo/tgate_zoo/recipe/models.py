"""One description for each model that the zoo trains by plain denoising."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from tgate_zoo.recipe import pixart, sdxl, unet
from tgate_zoo.recipe.denoise import Settings


@dataclass(frozen=True)
class Model:
    """What differs from model to model.

    `stage` names the training stage; `build` makes a fresh denoiser of a tokenizer and a latent
    side, and `assemble` a pipeline of autoencoder, denoiser and tokenizer. `facts` go into
    card.json: pipeline, family, scheduler, and the defaults of a run.
    """

    name: str
    stage: str
    settings: Settings
    minutes: float
    tokenizer: Callable[[], Any]
    build: Callable[..., nn.Module]
    assemble: Callable[[Any, Any, Any], Any]
    facts: dict[str, Any]


DEFAULTS = {"steps": 25, "guidance": 4.0}

SD = Model(
    name="emoji-sd",
    stage="unet",
    settings=unet.SETTINGS,
    minutes=42.0,
    tokenizer=unet.build_tokenizer,
    build=unet.build_denoiser,
    assemble=unet.assemble,
    facts={
        "pipeline": "StableDiffusionPipeline",
        "family": "Stable Diffusion",
        "scheduler": "DDIM",
        "defaults": DEFAULTS,
    },
)
SDXL = Model(
    name="emoji-sdxl",
    stage="unet",
    settings=sdxl.SETTINGS,
    minutes=30.0,
    tokenizer=unet.build_tokenizer,
    build=sdxl.build_denoiser,
    assemble=sdxl.assemble,
    facts={
        "pipeline": "StableDiffusionXLPipeline",
        "family": "Stable Diffusion XL",
        "scheduler": "DDIM",
        "defaults": DEFAULTS,
    },
)
PIXART = Model(
    name="emoji-pixart",
    stage="transformer",
    settings=pixart.SETTINGS,
    minutes=72.0,
    tokenizer=pixart.build_tokenizer,
    build=pixart.build_denoiser,
    assemble=pixart.assemble,
    facts={
        "pipeline": "PixArtAlphaPipeline",
        "family": "PixArt-alpha",
        "scheduler": "DDIM",
        "defaults": DEFAULTS,
        # Binning knows sizes from 256 pixels on.
        "call": {"use_resolution_binning": False, "clean_caption": False},
    },
)
