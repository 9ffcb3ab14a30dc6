"""One picture out of many, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_grid(pictures: Tensor, path: Path, columns: int = 16, zoom: int = 3) -> None:
    """Save pictures (n, 3, side, side) in [0, 1] as rows of `columns`, each enlarged `zoom` times.

    Pixels are repeated, not smoothed; the last row is filled up with black.
    """
    from PIL import Image
    from torch.nn import functional

    count, channels, side, _ = pictures.shape
    rows = -(-count // columns)
    padded = functional.pad(pictures, (0, 0, 0, 0, 0, 0, 0, rows * columns - count))
    tiles = padded.reshape(rows, columns, channels, side, side).permute(0, 3, 1, 4, 2)
    sheet = tiles.reshape(rows * side, columns * side, channels)
    pixels = (sheet.clamp(0, 1) * 255).round().byte().numpy()
    size = (columns * side * zoom, rows * side * zoom)
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(path)
