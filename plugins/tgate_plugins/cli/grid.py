"""A labelled grid of pictures: a row for each prompt, a column for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tgate_plugins.cli.metrics import eight_bit

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

#: Shorter side of a tile: small pictures are enlarged to it by whole factors, pixels repeated.
SMALLEST_TILE: Final = 192
#: Longer side of a tile: larger pictures are made smaller, smoothly.
LARGEST_TILE: Final = 384

_PAPER, _INK, _FAINT, _RULE, _MISSING = "white", "black", "#5c5c5c", "#b0b0b0", "#ececec"
_SIZE, _LEADING, _PAD, _GAP, _LABEL_WIDTH = 14, 18, 12, 8, 150


@dataclass(frozen=True)
class Column:
    """What stands over one column.

    Args:
        title: the method.
        details: further lines.
        group: columns of one group stand under one heading, apart from the next group's.
    """

    title: str
    details: tuple[str, ...] = ()
    group: str = ""


Tile = Image.Image | str | None


def draw_grid(
    columns: Sequence[Column], rows: Sequence[str], tiles: Sequence[Sequence[Tile]]
) -> Image.Image:
    """Draw the grid.

    Args:
        columns: headings.
        rows: labels, at the left.
        tiles: by row, then by column: a picture, why there is none, or None where nothing was
            tried.
    """
    fitted = [[fit(t) if isinstance(t, Image.Image) else t for t in row] for row in tiles]
    width, height = _tile_size(fitted)
    face = font(_SIZE)
    heads = [_head(column, face, width) for column in columns]
    top = _PAD + _LEADING * (1 + max((len(h) for h in heads), default=0)) + _GAP
    lefts = _lefts(columns, width)
    right = (lefts[-1] + width if lefts else _LABEL_WIDTH) + _PAD
    sheet = Image.new("RGB", (right, top + len(rows) * (height + _GAP) + _PAD - _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_groups(pen, columns, lefts, width, face)
    for left, lines in zip(lefts, heads, strict=True):
        for i, (line, colour) in enumerate(lines):
            pen.text((left, _PAD + _LEADING * (i + 1)), line, fill=colour, font=face)
    for r, label in enumerate(rows):
        y = top + r * (height + _GAP)
        for i, line in enumerate(wrap(label, face, _LABEL_WIDTH - 2 * _PAD)[: height // _LEADING]):
            pen.text((_PAD, y + i * _LEADING), line, fill=_INK, font=face)
        for left, tile in zip(lefts, fitted[r], strict=True):
            _draw_tile(sheet, tile, (left, y, width, height), face)
    return sheet


def to_picture(image: NDArray[np.float32]) -> Image.Image:
    """Values in [0, 1], of shape (height, width, 3), as an eight-bit picture."""
    return Image.fromarray(eight_bit(image))


def fit(picture: Image.Image) -> Image.Image:
    """A picture at a size that a person can look at.

    >>> fit(Image.new("RGB", (32, 32))).size, fit(Image.new("RGB", (1024, 512))).size
    ((192, 192), (384, 192))
    """
    short, long = min(picture.size), max(picture.size)
    if long > LARGEST_TILE:
        width, height = (max(1, round(side * LARGEST_TILE / long)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    factor = min(-(-SMALLEST_TILE // short), LARGEST_TILE // long)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST) if factor > 1 else picture


def font(size: int) -> Font:
    """Pillow's own face, so that the grid looks the same on every machine."""
    return ImageFont.load_default(size)


def wrap(text: str, face: Font, width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at blanks; a longer word stands alone."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _tile_size(tiles: Sequence[Sequence[Tile]]) -> tuple[int, int]:
    pictures = [t for row in tiles for t in row if isinstance(t, Image.Image)]
    return (
        max((p.width for p in pictures), default=SMALLEST_TILE),
        max((p.height for p in pictures), default=SMALLEST_TILE),
    )


def _head(column: Column, face: Font, width: int) -> list[tuple[str, str]]:
    title = [(line, _INK) for line in wrap(column.title, face, width)]
    return title + [(line, _FAINT) for d in column.details for line in wrap(d, face, width)]


def _lefts(columns: Sequence[Column], width: int) -> list[int]:
    lefts: list[int] = []
    for i, column in enumerate(columns):
        apart = 0 if i == 0 else 3 * _GAP if column.group != columns[i - 1].group else _GAP
        lefts.append((lefts[-1] + width if lefts else _LABEL_WIDTH) + apart)
    return lefts


def _draw_groups(
    pen: ImageDraw.ImageDraw,
    columns: Sequence[Column],
    lefts: Sequence[int],
    width: int,
    face: Font,
) -> None:
    for i, column in enumerate(columns):
        if i and column.group == columns[i - 1].group:
            continue
        last = max(j for j in range(len(columns)) if columns[j].group == column.group)
        pen.text((lefts[i], _PAD - _GAP // 2), column.group, fill=_FAINT, font=face)
        line = _PAD + _LEADING - 3
        pen.line((lefts[i], line, lefts[last] + width, line), fill=_RULE)


def _draw_tile(sheet: Image.Image, tile: Tile, box: tuple[int, int, int, int], face: Font) -> None:
    left, top, width, height = box
    pen = ImageDraw.Draw(sheet)
    if isinstance(tile, Image.Image):
        x, y = left + (width - tile.width) // 2, top + (height - tile.height) // 2
        # A hairline around it, so that a white picture ends somewhere.
        pen.rectangle((x - 1, y - 1, x + tile.width, y + tile.height), outline=_RULE)
        sheet.paste(tile, (x, y))
        return
    pen.rectangle((left, top, left + width - 1, top + height - 1), fill=_MISSING)
    for i, line in enumerate(wrap(tile or "not run", face, width - 2 * _GAP)):
        if (i + 1) * _LEADING > height - _GAP:
            break
        pen.text((left + _GAP, top + _GAP + i * _LEADING), line, fill=_FAINT, font=face)
