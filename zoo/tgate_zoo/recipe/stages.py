"""The stages of each model in order; each picks up what the one before left in the work folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tgate_zoo import scenes
from tgate_zoo.recipe import diffusion, distillation, models, pool
from tgate_zoo.recipe.place import BASE, CLASSIFIER, Recipe, train_pool
from tgate_zoo.untyped import diffusers

VAE_MINUTES, CLASSIFIER_STEPS = 20.0, 1_800

Stage = Callable[[Recipe], None]


def run_stage(recipe: Recipe, stage: str, name: str = BASE) -> None:
    """Run one stage of a model.

    Raises ValueError for an unknown model or stage, FontMissingError without the font,
    FileNotFoundError when an earlier stage has not run.
    """
    if name not in RECIPES:
        raise ValueError(
            f"There is no recipe for {name!r}; the zoo can train {', '.join(RECIPES)}."
        )
    actions = RECIPES[name]
    if stage not in actions:
        raise ValueError(f"{name} has no stage {stage!r}; give one of {', '.join(actions)}.")
    recipe.work.mkdir(parents=True, exist_ok=True)
    actions[stage](recipe)


def is_training(stage: str) -> bool:
    """True for the stages that a limit in steps or minutes is meant for when all stages run."""
    return stage not in ("scenes", "vae", "classifier", "export")


def _drawn(parts: tuple[int, int], seed: int) -> list[scenes.Scene]:
    seen = scenes.draw_scenes(parts[0], seed)
    return seen + scenes.draw_scenes(parts[1], seed + 1, held_out=True)


def _classifier_pool(recipe: Recipe) -> tuple[pool.Pool, list[scenes.Scene]]:
    drawn, seed = _drawn(recipe.sizes.classifier, recipe.seed + 1), recipe.seed + 1
    made = pool.cached_pool(recipe.work, "classifier", drawn, seed=seed, font=recipe.font)
    return made, drawn


def _test_pool(recipe: Recipe) -> tuple[pool.Pool, list[scenes.Scene]]:
    drawn, seed = _drawn(recipe.sizes.test, recipe.seed + 3), recipe.seed + 2
    made = pool.cached_pool(recipe.work, "classifier-test", drawn, seed=seed, font=recipe.font)
    return made, drawn


def _say_pool(recipe: Recipe, made: pool.Pool) -> None:
    recipe.say(f"{len(made.captions):,} scenes of {made.images.shape[1]} pixels are ready.")


def _train_scenes(recipe: Recipe) -> None:
    _say_pool(recipe, train_pool(recipe))


def _all_scenes(recipe: Recipe) -> None:
    for made in (train_pool(recipe), _classifier_pool(recipe)[0], _test_pool(recipe)[0]):
        _say_pool(recipe, made)


def _vae(recipe: Recipe) -> None:
    from tgate_zoo.recipe.latents import centre_latents
    from tgate_zoo.recipe.vae import reconstruction_psnr, train_vae

    images = train_pool(recipe).images
    budget = recipe.budget(minutes=VAE_MINUTES)
    checkpoint = recipe.work / "vae.pt"
    vae = train_vae(images, checkpoint, budget, seed=recipe.seed, resume=recipe.resume)
    factor = centre_latents(vae, images[: recipe.sizes.centre])
    vae.save_pretrained(recipe.work / "vae")
    psnr = reconstruction_psnr(vae, _test_pool(recipe)[0].images[-512:])
    recipe.say(f"Autoencoder: {psnr:.1f} dB on unseen renders, scaling factor {factor:.4f}.")


def _classifier(recipe: Recipe) -> None:
    from tgate_zoo.classifier import save_classifier
    from tgate_zoo.recipe.classifier import real_accuracy, train_classifier

    made, drawn = _classifier_pool(recipe)
    model = train_classifier(
        made.images,
        drawn,
        recipe.work / "classifier.pt",
        recipe.budget(steps=CLASSIFIER_STEPS),
        seed=recipe.seed,
        resume=recipe.resume,
    )
    test, test_drawn = _test_pool(recipe)
    shares = real_accuracy(model, test.images, test_drawn)
    save_classifier(model, recipe.out / CLASSIFIER, shares, len(test_drawn))
    for name, share in shares.items():
        recipe.say(f"Classifier on unseen renders, {name}: {share:.1%} right.")


def _own_vae(recipe: Recipe) -> Any:
    folder = recipe.work / "vae"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"The autoencoder was looked for in {folder} and is not there; run "
            "`python -m tgate_zoo train emoji-sd --stage vae` first."
        )
    return diffusers().AutoencoderKL.from_pretrained(folder).eval()


def _train_base(recipe: Recipe) -> None:
    diffusion.train(recipe, models.SD, _own_vae)


def _export_base(recipe: Recipe) -> None:
    from tgate_zoo.recipe import vae
    from tgate_zoo.recipe.files import load_checkpoint

    state = load_checkpoint(recipe.work / "vae.pt") or {"step": 0, "seconds": 0.0}
    facts = {
        "vae_steps": state["step"],
        "vae_samples": state["step"] * vae.BATCH,
        "vae_minutes": round(state["seconds"] / 60, 1),
    }
    diffusion.export(recipe, models.SD, _own_vae, facts)


def _plain(model: models.Model) -> Mapping[str, Stage]:
    return {
        "scenes": _train_scenes,
        model.stage: partial(diffusion.train, model=model),
        "export": partial(diffusion.export, model=model),
    }


RECIPES: Mapping[str, Mapping[str, Stage]] = {
    # First, since the others take its autoencoder, and the last one its denoiser.
    BASE: {
        "scenes": _all_scenes,
        "vae": _vae,
        "classifier": _classifier,
        "unet": _train_base,
        "export": _export_base,
    },
    models.SDXL.name: _plain(models.SDXL),
    models.PIXART.name: _plain(models.PIXART),
    distillation.NAME: {
        "scenes": _train_scenes,
        "match": distillation.match,
        "distill": distillation.distill,
        "export": distillation.export,
    },
}
