"""Pictures as metrics take them, checked once, and cut into pieces that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_sampling.errors import OptionError

#: Pixels a piece: 1,024 pictures of 32 px, 4 of 512 px.
PIECE: Final = 1 << 20

Pictures = NDArray[np.float32]
Values = NDArray[np.float64]


def checked(images: NDArray[Any], what: str = "images") -> Pictures:
    """The pictures as float32.

    Raises:
        OptionError: they are not (N, height, width, 3), not finite, or not in [0, 1].
    """
    found = np.asarray(images, np.float32)
    if found.ndim != 4 or found.shape[3] != 3:
        raise OptionError(
            f"Metrics take {what} of shape (N, height, width, 3) and got {found.shape}; "
            "stack pictures with numpy.stack."
        )
    broken = np.flatnonzero(~np.isfinite(found).all(axis=(1, 2, 3)))
    if len(broken):
        raise OptionError(
            f"Metrics take finite {what} and number {broken[0]} of {len(found)} is not; "
            "count it as failed and leave it out."
        )
    if len(found) and not (found.min() >= 0 and found.max() <= 1):
        raise OptionError(
            f"Metrics take {what} in [0, 1] and got {found.min():g} to {found.max():g}; "
            "divide 8-bit pictures by 255."
        )
    return found


def both(images: NDArray[Any], reference: NDArray[Any]) -> tuple[Pictures, Pictures]:
    """Two stacks of pictures that belong together.

    Raises:
        OptionError: one of them is not pictures, or their shapes differ.
    """
    mine, theirs = checked(images), checked(reference, "reference pictures")
    if mine.shape != theirs.shape:
        raise OptionError(
            f"Paired metrics compare pictures one to one and got {mine.shape} and {theirs.shape}; "
            "give the pictures of the same prompts and seeds, in the same order and size."
        )
    return mine, theirs


def pieces(images: Pictures) -> Iterator[slice]:
    """Slices of pictures that fit in memory at once."""
    height, width = images.shape[1:3]
    step = max(1, PIECE // max(1, height * width))
    for start in range(0, len(images), step):
        yield slice(start, start + step)


def to_tensor(images: Pictures) -> torch.Tensor:
    """(N, 3, height, width) of the same values."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
