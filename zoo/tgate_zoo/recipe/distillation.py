"""The stages of emoji-lcm: match the teacher's guided noise, distill to few steps, export."""

from __future__ import annotations

from typing import Any

import torch

from tgate_zoo.recipe import lcm
from tgate_zoo.recipe.consistency import GRID
from tgate_zoo.recipe.denoise import trained_state, with_average
from tgate_zoo.recipe.diffusion import checkpoint_of, pool_of, progress_facts, write
from tgate_zoo.recipe.place import BASE, Recipe, base_folder, hardware, shared_vae
from tgate_zoo.untyped import diffusers

NAME = "emoji-lcm"
MATCH_MINUTES, DISTILL_MINUTES = 14.0, 18.0
FACTS: dict[str, Any] = {
    "pipeline": "LatentConsistencyModelPipeline",
    "family": "a latent consistency model",
    "scheduler": "LCM",
    "defaults": {"steps": 4, "guidance": 4.0},
}


def _base(recipe: Recipe) -> Any:
    return diffusers().StableDiffusionPipeline.from_pretrained(base_folder(recipe))


def _teacher(base: Any) -> lcm.Teacher:
    return lcm.Teacher(base.unet, base.text_encoder)


def _hint(stage: str) -> str:
    return f"python -m tgate_zoo train {NAME} --stage {stage}"


def match(recipe: Recipe) -> None:
    """Teach the student the teacher's guided noise."""
    base = _base(recipe)
    torch.manual_seed(recipe.seed)
    lcm.train_match(
        lcm.build_student(base.unet),
        _teacher(base),
        pool_of(recipe, shared_vae(recipe), base.tokenizer),
        checkpoint_of(recipe, NAME, "match"),
        recipe.budget(minutes=MATCH_MINUTES),
        seed=recipe.seed,
        resume=recipe.resume,
    )


def distill(recipe: Recipe) -> None:
    """Consistency distillation of the matched student."""
    matched = trained_state(checkpoint_of(recipe, NAME, "match"), _hint("match"))
    base = _base(recipe)
    torch.manual_seed(recipe.seed)
    lcm.train_distill(
        with_average(lcm.build_student(base.unet), matched),
        _teacher(base),
        pool_of(recipe, shared_vae(recipe), base.tokenizer),
        checkpoint_of(recipe, NAME, "distill"),
        recipe.budget(minutes=DISTILL_MINUTES),
        seed=recipe.seed,
        resume=recipe.resume,
    )


def export(recipe: Recipe) -> None:
    """Write the folder of emoji-lcm."""
    matched = trained_state(checkpoint_of(recipe, NAME, "match"), _hint("match"))
    state = trained_state(checkpoint_of(recipe, NAME, "distill"), _hint("distill"))
    base = _base(recipe)
    pair = with_average(lcm.Distiller(lcm.build_student(base.unet)), state)
    pipeline = lcm.assemble(shared_vae(recipe), pair.student, base.text_encoder, base.tokenizer)
    training = {
        "seed": recipe.seed,
        "pool_scenes": recipe.sizes.train,
        "teacher": BASE,
        "match": progress_facts(matched, lcm.MATCH),
        **progress_facts(state, lcm.DISTILL),
        "guidance_range": list(lcm.GUIDANCE_RANGE),
        "grid": GRID,
        "hardware": hardware(),
        "note": recipe.note,
    }
    write(recipe, NAME, pipeline, FACTS, training)
