"""The two stages of a plainly trained model: its denoiser, and its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from tgate_zoo import scenes
from tgate_zoo.recipe import denoise
from tgate_zoo.recipe.export import export_pipeline
from tgate_zoo.recipe.latents import latent_pool
from tgate_zoo.recipe.models import Model
from tgate_zoo.recipe.place import LATENT_SIDE, Recipe, hardware, shared_vae, train_pool
from tgate_zoo.recipe.text import learn_merges


def checkpoint_of(recipe: Recipe, name: str, stage: str) -> Path:
    """The file that a training stage of a model goes on from."""
    return recipe.work / name / f"{stage}.pt"


def pool_of(recipe: Recipe, vae: Any, tokenizer: Any) -> denoise.LatentPool:
    """The training scenes as latents of an autoencoder, with a tokenizer's token numbers."""
    made = train_pool(recipe)
    return latent_pool(recipe.work / "latents.pt", vae, made.images, made.captions, tokenizer)


def train(recipe: Recipe, model: Model, vae: Callable[[Recipe], Any] = shared_vae) -> None:
    """Train the model's denoiser on latents of `vae`, by default the one that all share."""
    tokenizer = model.tokenizer()
    latents = pool_of(recipe, vae(recipe), tokenizer)
    torch.manual_seed(recipe.seed)
    denoise.train_denoiser(
        model.build(tokenizer, LATENT_SIDE),
        latents,
        checkpoint_of(recipe, model.name, model.stage),
        recipe.budget(minutes=model.minutes),
        model.settings,
        seed=recipe.seed,
        resume=recipe.resume,
        label=model.name,
    )


def export(
    recipe: Recipe,
    model: Model,
    vae: Callable[[Recipe], Any] = shared_vae,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the model's folder; `facts` are further ones of its training."""
    state = denoise.trained_state(
        checkpoint_of(recipe, model.name, model.stage),
        f"python -m tgate_zoo train {model.name} --stage {model.stage}",
    )
    tokenizer = model.tokenizer()
    denoiser = denoise.with_average(model.build(tokenizer, LATENT_SIDE), state)
    pipeline = model.assemble(vae(recipe), denoiser, tokenizer)
    training = {
        "seed": recipe.seed,
        "pool_scenes": recipe.sizes.train,
        **facts,
        **progress_facts(state, model.settings),
        "drop_caption": denoise.DROP_CAPTION,
        "snr_limit": denoise.SNR_LIMIT,
        "hardware": hardware(),
        "note": recipe.note,
    }
    write(recipe, model.name, pipeline, model.facts, training)


def progress_facts(state: dict[str, Any], settings: denoise.Settings) -> dict[str, Any]:
    """How far a training stage went."""
    return {
        "steps": int(state["step"]),
        "batch": settings.batch,
        "samples": int(state["step"]) * settings.batch,
        "minutes": round(float(state["seconds"]) / 60, 1),
        "peak_rate": settings.peak_rate,
    }


def write(
    recipe: Recipe, name: str, pipeline: Any, facts: dict[str, Any], training: dict[str, Any]
) -> None:
    """Write a pipeline with its card and say how large it is."""
    card = {
        "name": name,
        "license": "Apache-2.0",
        "image_size": scenes.IMAGE_SIZE,
        **facts,
        "training": training,
    }
    merges = learn_merges(scenes.vocabulary())
    size = export_pipeline(pipeline, merges, recipe.out / name, card)
    recipe.say(
        f"{recipe.out / name}: {size:,} bytes after {training['steps']:,} steps, "
        f"{training['samples']:,} samples and {training['minutes']:.0f} minutes."
    )
