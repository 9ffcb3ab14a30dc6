"""Pools of rendered scenes, kept on disk so that training never waits for rendering."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tgate_zoo import scenes
from tgate_zoo.recipe.files import write_atomically

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Pool:
    """Rendered pictures and their captions.

    `images` has shape (count, side, side, 3), uint8; it is mapped from disk, not read.
    """

    images: NDArray[np.uint8]
    captions: Sequence[str]


def render_pool(
    drawn: Sequence[scenes.Scene], seed: int, side: int, font: Path = scenes.FONT_PATH
) -> NDArray[np.uint8]:
    """Render scenes in order from one seed; shape (count, side, side, 3), uint8."""
    glyphs = scenes.load_glyphs(font)
    rng = random.Random(seed)
    images = np.empty((len(drawn), side, side, 3), np.uint8)
    for row, scene in enumerate(drawn):
        images[row] = scenes.render(scene, rng, glyphs, side)
    return images


def cached_pool(
    folder: Path,
    name: str,
    drawn: Sequence[scenes.Scene],
    *,
    seed: int,
    side: int = scenes.IMAGE_SIZE,
    font: Path = scenes.FONT_PATH,
) -> Pool:
    """The pool `name` of `folder`, rendered on the first call and mapped from disk afterwards."""
    images_path, captions_path = folder / f"{name}.npy", folder / f"{name}.json"
    captions = [scene.caption for scene in drawn]
    if not _is_current(images_path, captions_path, captions, side):
        folder.mkdir(parents=True, exist_ok=True)
        images = render_pool(drawn, seed, side, font)
        write_atomically(images_path, lambda file: np.save(file, images))
        # The captions are written last: a pool without them counts as not rendered.
        text = json.dumps(captions).encode()
        write_atomically(captions_path, lambda file: file.write(text))
    return Pool(np.load(images_path, mmap_mode="r"), captions)


def _is_current(images_path: Path, captions_path: Path, captions: Sequence[str], side: int) -> bool:
    if not (images_path.is_file() and captions_path.is_file()):
        return False
    shape: tuple[int, ...] = np.load(images_path, mmap_mode="r").shape
    written: list[str] = json.loads(captions_path.read_text())
    return shape == (len(captions), side, side, 3) and written == list(captions)
