"""The stages of the recipe in order; each picks up what the one before left in the work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgate_zoo import scenes
from tgate_zoo.recipe import pool
from tgate_zoo.recipe.clock import Budget
from tgate_zoo.untyped import diffusers

STAGES = ("scenes", "vae", "classifier", "unet", "export")
MODEL, CLASSIFIER = "emoji-sd", "emoji-classifier"

LATENT_FACTOR = 4

VAE_MINUTES, CLASSIFIER_STEPS, UNET_MINUTES = 20.0, 1_800, 42.0


@dataclass(frozen=True)
class Sizes:
    """How many scenes are rendered for what; pairs count trained and held-out scenes.

    `centre` is how many of the training scenes the latents' scale is taken from.
    """

    train: int = 40_000
    classifier: tuple[int, int] = (9_000, 7_000)
    test: tuple[int, int] = (2_000, 2_000)
    centre: int = 8_000


@dataclass(frozen=True)
class Recipe:
    """Where the recipe works and what it starts from.

    `work` takes caches and checkpoints, `out` the finished model folders; `minutes` and `steps`
    replace the default limit of the stage that runs (of the UNet when all stages run); `note` is
    a remark for the model card.
    """

    out: Path
    work: Path
    seed: int = 0
    font: Path = scenes.FONT_PATH
    minutes: float | None = None
    steps: int | None = None
    resume: bool = True
    note: str = ""
    sizes: Sizes = field(default_factory=Sizes)
    say: Callable[[str], object] = lambda line: None

    def budget(self, *, minutes: float | None = None, steps: int | None = None) -> Budget:
        """The given limit, or else the default one."""
        if self.minutes is not None or self.steps is not None:
            return Budget(steps=self.steps, minutes=self.minutes)
        return Budget(steps=steps, minutes=minutes)


def run_stage(recipe: Recipe, stage: str) -> None:
    """Run one stage.

    Raises ValueError for an unknown stage, FontMissingError without the font, FileNotFoundError
    when an earlier stage has not run.
    """
    actions: dict[str, Callable[[Recipe], None]] = {
        "scenes": _scenes,
        "vae": _vae,
        "classifier": _classifier,
        "unet": _unet,
        "export": _export,
    }
    if stage not in actions:
        raise ValueError(f"There is no stage {stage!r}; give one of {', '.join(STAGES)}.")
    recipe.work.mkdir(parents=True, exist_ok=True)
    actions[stage](recipe)


def _drawn(parts: tuple[int, int], seed: int) -> list[scenes.Scene]:
    seen = scenes.draw_scenes(parts[0], seed)
    return seen + scenes.draw_scenes(parts[1], seed + 1, held_out=True)


def _train_pool(recipe: Recipe) -> pool.Pool:
    drawn = scenes.draw_scenes(recipe.sizes.train, recipe.seed)
    return pool.cached_pool(recipe.work, "train", drawn, seed=recipe.seed, font=recipe.font)


def _classifier_pool(recipe: Recipe) -> tuple[pool.Pool, list[scenes.Scene]]:
    drawn, seed = _drawn(recipe.sizes.classifier, recipe.seed + 1), recipe.seed + 1
    made = pool.cached_pool(recipe.work, "classifier", drawn, seed=seed, font=recipe.font)
    return made, drawn


def _test_pool(recipe: Recipe) -> tuple[pool.Pool, list[scenes.Scene]]:
    drawn, seed = _drawn(recipe.sizes.test, recipe.seed + 3), recipe.seed + 2
    made = pool.cached_pool(recipe.work, "classifier-test", drawn, seed=seed, font=recipe.font)
    return made, drawn


def _scenes(recipe: Recipe) -> None:
    for made in (_train_pool(recipe), _classifier_pool(recipe)[0], _test_pool(recipe)[0]):
        recipe.say(f"{len(made.captions):,} scenes of {made.images.shape[1]} pixels are ready.")


def _vae(recipe: Recipe) -> None:
    from tgate_zoo.recipe.latents import centre_latents
    from tgate_zoo.recipe.vae import reconstruction_psnr, train_vae

    images = _train_pool(recipe).images
    budget = recipe.budget(minutes=VAE_MINUTES)
    checkpoint = recipe.work / "vae.pt"
    vae = train_vae(images, checkpoint, budget, seed=recipe.seed, resume=recipe.resume)
    factor = centre_latents(vae, images[: recipe.sizes.centre])
    vae.save_pretrained(recipe.work / "vae")
    # Latents of an earlier autoencoder mean nothing to this one.
    (recipe.work / "latents.pt").unlink(missing_ok=True)
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


def _vae_of(recipe: Recipe) -> Any:
    folder = recipe.work / "vae"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"The autoencoder was looked for in {folder} and is not there; run "
            "`python -m tgate_zoo train emoji-sd --stage vae` first."
        )
    return diffusers().AutoencoderKL.from_pretrained(folder).eval()


def _unet(recipe: Recipe) -> None:
    import torch

    from tgate_zoo.recipe.latents import latent_pool
    from tgate_zoo.recipe.text import build_tokenizer
    from tgate_zoo.recipe.unet import build_denoiser, train_unet

    vae, made = _vae_of(recipe), _train_pool(recipe)
    tokenizer = build_tokenizer(scenes.vocabulary())
    latents = latent_pool(recipe.work / "latents.pt", vae, made.images, made.captions, tokenizer)
    torch.manual_seed(recipe.seed)
    train_unet(
        build_denoiser(tokenizer, scenes.IMAGE_SIZE // LATENT_FACTOR),
        latents,
        recipe.work / "unet.pt",
        recipe.budget(minutes=UNET_MINUTES),
        seed=recipe.seed,
        resume=recipe.resume,
    )


def _export(recipe: Recipe) -> None:
    from tgate_zoo.recipe.export import assemble, export_pipeline
    from tgate_zoo.recipe.text import build_tokenizer, learn_merges
    from tgate_zoo.recipe.unet import BATCH, load_denoiser, trained_state

    state = trained_state(recipe.work / "unet.pt")
    steps, seconds = int(state["step"]), float(state["seconds"])
    words = scenes.vocabulary()
    tokenizer = build_tokenizer(words)
    side = scenes.IMAGE_SIZE // LATENT_FACTOR
    pipeline = assemble(_vae_of(recipe), load_denoiser(state, tokenizer, side), tokenizer)
    facts = {
        "name": MODEL,
        "license": "Apache-2.0",
        "image_size": scenes.IMAGE_SIZE,
        "training": _training_facts(recipe, steps, seconds),
    }
    size = export_pipeline(pipeline, learn_merges(words), recipe.out / MODEL, facts)
    recipe.say(
        f"{recipe.out / MODEL}: {size:,} bytes after {steps:,} steps, {steps * BATCH:,} samples "
        f"and {seconds / 60:.0f} minutes."
    )


def _training_facts(recipe: Recipe, steps: int, seconds: float) -> dict[str, Any]:
    from tgate_zoo.recipe import unet, vae
    from tgate_zoo.recipe.files import load_checkpoint

    vae_state = load_checkpoint(recipe.work / "vae.pt") or {"step": 0, "seconds": 0.0}
    return {
        "seed": recipe.seed,
        "pool_scenes": recipe.sizes.train,
        "vae_steps": vae_state["step"],
        "vae_samples": vae_state["step"] * vae.BATCH,
        "vae_minutes": round(vae_state["seconds"] / 60, 1),
        "steps": steps,
        "batch": unet.BATCH,
        "samples": steps * unet.BATCH,
        "minutes": round(seconds / 60, 1),
        "peak_rate": unet.PEAK_RATE,
        "drop_caption": unet.DROP_CAPTION,
        "snr_limit": unet.SNR_LIMIT,
        "hardware": hardware(),
        "note": recipe.note,
    }


def hardware() -> str:
    """The processor and the number of threads this process computes with."""
    import platform

    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}, no GPU"
