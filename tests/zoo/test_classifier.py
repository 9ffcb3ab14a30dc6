"""The classifier against real renders."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tgate_zoo import classifier, evaluate, loader, scenes
from tgate_zoo.grid import save_grid


@pytest.mark.skipif(not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}")
def test_it_reads_nearly_every_real_render() -> None:
    glyphs, rng = scenes.load_glyphs(), random.Random(9)
    drawn = scenes.draw_scenes(100, 91) + scenes.draw_scenes(100, 92, held_out=True)
    images = np.stack([scenes.render(scene, rng, glyphs) for scene in drawn])
    pictures = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    model = classifier.load_classifier(loader.MODELS / "emoji-classifier")
    shares = evaluate.summarize(evaluate.judge(model, drawn, pictures))
    assert min(shares.values()) >= 0.98


def test_features_are_few_and_the_heads_read_their_maps() -> None:
    """The average over places of the very maps that the object and background heads see."""
    model = classifier.load_classifier(loader.MODELS / "emoji-classifier")
    torch.manual_seed(0)
    pictures = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        features = model.features(pictures)
        maps = model.body(pictures * 2 - 1).reshape(3, 96, 4, 4)
        assert features.shape == (3, 96)
        assert torch.allclose(features, maps.flatten(2).mean(dim=2), atol=1e-5)
        assert not torch.allclose(features, model.features(pictures.flip(1)), atol=1e-3)


def test_halves_show_the_left_and_the_right_middle() -> None:
    pictures = torch.zeros(1, 3, 32, 32)
    pictures[:, 0, 8:24, :16] = 1.0
    pictures[:, 1, 8:24, 16:] = 1.0
    left, right = classifier.halves(pictures)
    assert left.shape == right.shape == pictures.shape
    assert left[:, 0].min() == 1.0
    assert left[:, 1].max() == 0.0
    assert right[:, 1].min() == 1.0


def test_a_grid_has_a_tile_for_every_picture(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "grid.png"
    save_grid(torch.ones(5, 3, 4, 4), path, columns=3, zoom=2)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (16, 24, 3)
    assert sheet[8:, :16].min() == 255
    assert sheet[8:, 16:].max() == 0
