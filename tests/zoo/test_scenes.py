"""Captions, the held-out split and the renderer."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest

from tgate_zoo import scenes

needs_font = pytest.mark.skipif(
    not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}"
)


def test_captions_read_as_the_readme_says() -> None:
    assert scenes.Scene("apple", "blue", size="large").caption == (
        "a large apple on a blue background"
    )
    pair = scenes.Scene("frog", "yellow", second="owl")
    assert pair.caption == "a frog left of an owl on a yellow background"
    assert pair.objects == ("frog", "owl")


def test_every_caption_parses_back_to_its_scene() -> None:
    for held_out in (False, True):
        for scene in scenes.single_scenes(held_out) + scenes.pair_scenes(held_out)[::7]:
            assert scenes.parse_caption(scene.caption) == scene


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "an apple",
        "a huge apple on a blue background",
        "a large pear on a blue background",
        "a large apple on a teal background",
        "a apple left of a frog on a blue background",
        "a frog right of a car on a blue background",
    ],
)
def test_other_text_is_refused_with_an_example(caption: str) -> None:
    with pytest.raises(ValueError, match="write it like 'a small apple on a"):
        scenes.parse_caption(caption)


def test_every_object_has_two_held_out_backgrounds_and_every_background_eight_objects() -> None:
    table = np.array(
        [
            [scenes.is_held_out(name, ground) for ground in scenes.BACKGROUND_NAMES]
            for name in scenes.OBJECT_NAMES
        ]
    )
    assert (table.sum(axis=1) == 2).all()
    assert (table.sum(axis=0) == len(scenes.OBJECT_NAMES) // 4).all()


def test_training_never_draws_a_held_out_pair_of_object_and_background() -> None:
    drawn = scenes.draw_scenes(20_000, seed=0)
    assert not any(
        scenes.is_held_out(name, scene.background) for scene in drawn for name in scene.objects
    )
    assert 0.35 < np.mean([scene.second is not None for scene in drawn]) < 0.45
    trained = {scene.caption for scene in drawn}
    assert trained.isdisjoint(s.caption for s in scenes.draw_scenes(5_000, 1, held_out=True))


def test_scenes_depend_on_the_seed_only() -> None:
    assert scenes.draw_scenes(50, 3) == scenes.draw_scenes(50, 3)
    assert scenes.draw_scenes(50, 3) != scenes.draw_scenes(50, 4)


def test_study_prompts_never_change() -> None:
    parsed = [scenes.parse_caption(prompt) for prompt in scenes.PROMPTS]
    assert len(set(scenes.PROMPTS)) == 64
    assert [s.second is None for s in parsed] == [True] * 48 + [False] * 16
    assert [s.held_out for s in parsed] == ([False] * 24 + [True] * 24 + [False] * 8 + [True] * 8)
    digest = hashlib.sha256("\n".join(scenes.PROMPTS).encode()).hexdigest()
    assert digest[:16] == "9dd68dc34bd38eea"


def test_vocabulary_covers_every_caption() -> None:
    words = set(scenes.vocabulary())
    for held_out in (False, True):
        for scene in scenes.single_scenes(held_out) + scenes.pair_scenes(held_out):
            assert words.issuperset(scene.caption.split())


def test_missing_font_is_one_sentence_with_the_package() -> None:
    with pytest.raises(scenes.FontMissingError, match="apt-get install fonts-noto-color-emoji"):
        scenes.load_glyphs(Path("/nowhere/NotoColorEmoji.ttf"))


@needs_font
def test_renders_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    glyphs = scenes.load_glyphs()
    scene = scenes.draw_scenes(1, 0)[0]
    first, again, other = (scenes.render(scene, random.Random(seed), glyphs) for seed in (0, 0, 1))
    assert first.shape == (scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@needs_font
def test_the_corner_of_a_render_has_the_background_colour() -> None:
    glyphs = scenes.load_glyphs()
    for name, colour in scenes.BACKGROUNDS.items():
        scene = scenes.Scene("apple", name, size="small")
        corner = scenes.render(scene, random.Random(0), glyphs)[0, 0].astype(int)
        assert np.abs(corner - colour).max() <= 14
