"""Pictures as files: what is compared is what is stored, eight bits a channel."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tgate_plugins.cli.metrics import eight_bit


def rounded(images: NDArray[Any]) -> NDArray[np.float32]:
    """Pictures in [0, 1] as they would come back from their files."""
    return eight_bit(images).astype(np.float32) / np.float32(255)


def to_png(image: NDArray[Any]) -> bytes:
    """A picture (height, width, 3) in [0, 1] as a PNG."""
    file = io.BytesIO()
    Image.fromarray(eight_bit(image)).save(file, "PNG")
    return file.getvalue()


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a stored picture."""
    with Image.open(path) as picture:
        return picture.height, picture.width


def load(paths: Sequence[Path]) -> NDArray[np.float32]:
    """Stored pictures of one size, (N, height, width, 3) in [0, 1]."""
    images = []
    for path in paths:
        with Image.open(path) as picture:
            images.append(np.asarray(picture.convert("RGB"), dtype=np.float32) / np.float32(255))
    return np.stack(images)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in full or not at all, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp makes files that nobody else may read
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
