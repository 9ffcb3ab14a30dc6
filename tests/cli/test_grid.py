"""The labelled grid: sizes, places, and what stands where no picture is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tgate_plugins.cli.grid import Column, draw_grid, fit, font, to_picture, wrap

RED, BLUE = (255, 0, 0), (0, 0, 255)


def square(colour: tuple[int, int, int], side: int = 32) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def pixels(picture: Image.Image, colour: tuple[int, int, int]) -> Any:
    return (np.asarray(picture) == colour).all(-1)


def box(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of everything in one colour."""
    ys, xs = np.nonzero(pixels(picture, colour))
    return int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((32, 32), (192, 192)),
        ((16, 16), (192, 192)),
        ((100, 100), (200, 200)),
        ((256, 256), (256, 256)),
        ((1024, 768), (384, 288)),
        ((8, 512), (6, 384)),
        ((1, 2000), (1, 384)),
    ],
)
def test_pictures_come_at_a_size_a_person_can_look_at(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fit(Image.new("RGB", size)).size == fitted


def test_small_pictures_keep_their_pixels() -> None:
    checks = np.indices((32, 32)).sum(0) % 2 * 255
    grown = np.asarray(fit(Image.fromarray(checks.astype(np.uint8))))
    assert set(np.unique(grown)) == {0, 255}
    assert (grown[::6, ::6] == checks).all()


def test_columns_go_across_and_rows_down() -> None:
    made = draw_grid(
        [Column("one"), Column("two")],
        ["first", "second"],
        [[square(RED), square(BLUE)], [square(BLUE), square(RED)]],
    )
    first, second = np.nonzero(pixels(made, RED)), np.nonzero(pixels(made, BLUE))
    assert pixels(made, RED).sum() == pixels(made, BLUE).sum() == 2 * 192 * 192
    left, top, width, height = box(made, RED)
    assert (width, height) == (2 * 192 + 8, 2 * 192 + 8)
    assert made.getpixel((left, top)) == RED
    assert made.getpixel((left + width - 1, top)) == BLUE
    assert (first[0].min(), first[1].min()) == (second[0].min(), second[1].min())


def test_groups_stand_apart_under_their_headings() -> None:
    columns = [Column("a", group="x"), Column("b", group="x"), Column("c", group="y")]
    made = draw_grid(columns, ["p"], [[square(RED), square(BLUE), square(RED)]])
    reds = np.nonzero(pixels(made, RED).any(0))[0]
    blues = np.nonzero(pixels(made, BLUE).any(0))[0]
    within = blues.min() - reds[reds < blues.min()].max()
    between = reds[reds > blues.max()].min() - blues.max()
    assert between > within


@pytest.mark.parametrize("tile", ["RuntimeError: it broke " * 40, None, "x" * 400])
def test_a_missing_picture_leaves_its_place_and_its_neighbours_alone(tile: str | None) -> None:
    whole = draw_grid([Column("a"), Column("b")], ["p"], [[square(RED), square(BLUE)]])
    holed = draw_grid([Column("a"), Column("b")], ["p"], [[tile, square(BLUE)]])
    assert holed.size == whole.size
    assert (pixels(holed, BLUE) == pixels(whole, BLUE)).all()
    assert not pixels(holed, RED).any()


def test_a_grid_without_any_picture_is_still_a_grid() -> None:
    made = draw_grid([Column("a", ("failed",))], ["p"], [["it broke"]])
    assert made.width > 192
    assert made.height > 192


def test_long_labels_are_wrapped_to_their_column() -> None:
    face = font(14)
    lines = wrap("a large apple on a blue background", face, 100)
    assert " ".join(lines) == "a large apple on a blue background"
    assert len(lines) > 1
    assert all(face.getlength(line) <= 100 for line in lines)
    assert wrap("", face, 100) == []


def test_values_become_eight_bits_and_are_cut_to_the_range() -> None:
    values = np.array([[[-1.0, 0.5, 2.0]]], np.float32)
    assert to_picture(values).getpixel((0, 0)) == (0, 128, 255)
