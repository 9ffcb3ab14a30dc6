"""Where a recipe works, what limits it, and the things that all models of the zoo share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgate_zoo import scenes
from tgate_zoo.loader import MODELS
from tgate_zoo.recipe import pool
from tgate_zoo.recipe.clock import Budget
from tgate_zoo.untyped import diffusers

BASE, CLASSIFIER = "emoji-sd", "emoji-classifier"

LATENT_FACTOR = 4
LATENT_SIDE = scenes.IMAGE_SIZE // LATENT_FACTOR


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
    replace the default limit of a stage; `note` is a remark for the model card.
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


def train_pool(recipe: Recipe) -> pool.Pool:
    """The pictures that every model trains on; one pool for all of them."""
    drawn = scenes.draw_scenes(recipe.sizes.train, recipe.seed)
    return pool.cached_pool(recipe.work, "train", drawn, seed=recipe.seed, font=recipe.font)


def base_folder(recipe: Recipe) -> Path:
    """emoji-sd as this recipe made it, or else the one that comes with the package.

    Raises FileNotFoundError when there is neither.
    """
    for folder in (recipe.out / BASE, MODELS / BASE):
        if (folder / "vae" / "config.json").is_file():
            return folder
    raise FileNotFoundError(
        f"{BASE}, whose autoencoder all models share, was looked for in {recipe.out} and "
        f"{MODELS} and is not there; run `python -m tgate_zoo train {BASE}` first."
    )


def shared_vae(recipe: Recipe) -> Any:
    """The autoencoder of emoji-sd, in full precision."""
    return diffusers().AutoencoderKL.from_pretrained(base_folder(recipe) / "vae").eval()


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
