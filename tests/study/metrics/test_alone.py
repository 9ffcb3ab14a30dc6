"""Conditional accuracy and the classifier's features, on real renders whose truth is known."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tgate_plugins.study.metrics import alone, features, fid
from tgate_plugins.study.metrics.reading import classifier
from tgate_sampling.errors import OptionError
from tgate_zoo import scenes

needs_font = pytest.mark.skipif(
    not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}"
)


@pytest.fixture(autouse=True)
def no_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """As on a machine without CLIP's weights, whatever this one has."""
    monkeypatch.delenv("TGATE_CLIP", raising=False)
    monkeypatch.setattr("tgate_plugins.study.metrics.weights.CLIPS", ())


def renders(drawn: list[scenes.Scene], seed: int = 0) -> Any:
    glyphs, rng = scenes.load_glyphs(), random.Random(seed)
    return np.stack([scenes.render(s, rng, glyphs) for s in drawn]).astype(np.float32) / 255


APPLE = scenes.Scene("apple", "blue", size="large")
CAT = scenes.Scene("cat", "yellow", size="large")
PAIR = scenes.Scene("rocket", "green", second="owl")


@needs_font
def test_a_picture_is_right_where_it_shows_what_its_caption_asks_for() -> None:
    """Object and background are judged apart; of a pair both objects, in their order, count."""
    drawn = [APPLE, CAT, PAIR, PAIR, PAIR]
    asked = [
        "a large apple on a blue background",
        "a large apple on a yellow background",
        "a rocket left of an owl on a green background",
        "an owl left of a rocket on a green background",
        "a rocket left of an owl on a white background",
    ]
    found = alone(renders(drawn), asked, model_is_zoo=True)
    assert {name: v.tolist() for name, v in found.items()} == {
        "object": [1, 0, 1, 0, 1],
        "background": [1, 1, 1, 1, 0],
    }


@needs_font
def test_real_renders_are_nearly_all_right_and_shuffled_captions_nearly_all_wrong() -> None:
    drawn = scenes.draw_scenes(100, 5)
    captions = [scene.caption for scene in drawn]
    right = alone(renders(drawn), captions, model_is_zoo=True)
    assert min(v.mean() for v in right.values()) >= 0.98
    # The planted offender: captions of the pictures' neighbours.
    wrong = alone(renders(drawn), captions[1:] + captions[:1], model_is_zoo=True)
    assert max(v.mean() for v in wrong.values()) <= 0.35


@needs_font
def test_a_caption_that_is_not_of_the_grammar_asks_for_nothing() -> None:
    found = alone(
        renders([APPLE, APPLE, APPLE]),
        ["an astronaut on a horse", APPLE.caption, "a huge apple on a blue background"],
        model_is_zoo=True,
    )
    for values in found.values():
        assert np.isnan(values).tolist() == [True, False, True]
        assert values[1] == 1


@needs_font
def test_many_pictures_are_judged_in_pieces_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = scenes.draw_scenes(7, 3)
    images, captions = renders(drawn), [scene.caption for scene in drawn]
    captions[3] = "nothing of the kind"
    whole, numbers = alone(images, captions, model_is_zoo=True), features(images)
    monkeypatch.setattr("tgate_plugins.study.metrics.pictures.PIECE", 2 * 32 * 32)
    parts = alone(images, captions, model_is_zoo=True)
    assert all(np.array_equal(whole[k], parts[k], equal_nan=True) for k in whole)
    assert features(images) == pytest.approx(numbers, abs=1e-5)


def test_pictures_that_are_not_of_the_zoo_are_not_judged() -> None:
    assert alone(np.zeros((2, 64, 64, 3)), ["a", "b"], model_is_zoo=False) == {}


def test_no_picture_at_all_has_no_values() -> None:
    found = alone(np.zeros((0, 32, 32, 3)), [], model_is_zoo=True)
    assert {name: v.shape for name, v in found.items()} == {"object": (0,), "background": (0,)}
    assert features(np.zeros((0, 32, 32, 3))).shape == (0, 96)


def test_a_caption_is_needed_for_each_picture() -> None:
    with pytest.raises(OptionError, match="a caption a picture and got 1 for 2"):
        alone(np.zeros((2, 32, 32, 3)), ["a"], model_is_zoo=True)


@pytest.mark.parametrize("measure", [features, lambda x: alone(x, ["a"], model_is_zoo=True)])
def test_the_classifier_refuses_pictures_of_another_size(measure: Any) -> None:
    with pytest.raises(OptionError, match="reads pictures of 32 x 32 px and got 64 x 32"):
        measure(np.zeros((1, 64, 32, 3)))


def test_features_are_the_last_convolution_averaged_over_the_picture() -> None:
    """Worked out from the layers: all up to the flattening, then a mean over rows and columns."""
    images = np.random.default_rng(0).random((5, 32, 32, 3), dtype=np.float32)
    found = features(images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        for layer in classifier().body:
            if isinstance(layer, nn.Flatten):
                break
            x = layer(x)
    assert x.shape[1:] == (96, 4, 4)
    assert found.dtype == np.float64
    assert found == pytest.approx(x.mean((2, 3)).double().numpy(), abs=1e-5)


@needs_font
def test_fid_of_the_features_is_zero_of_equal_sets_and_grows_with_the_damage() -> None:
    images = renders(scenes.draw_scenes(400, 2))

    def seen(light: float) -> Any:
        return np.tile(features(images * np.float32(light)), (5, 1))  # 2,000, the least

    real = seen(1)
    assert fid(real, seen(1)) == pytest.approx(0, abs=1e-9)
    damage = [fid(seen(light), real) for light in (0.98, 0.9, 0.7)]
    assert 0 < damage[0] < damage[1] < damage[2]
