"""How near two pictures are: PSNR and SSIM, and their mean and worst over many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

#: scikit-image's default window, odd; smaller pictures take the largest odd one that fits.
SSIM_WINDOW: Final = 7


def eight_bit(images: NDArray[Any]) -> NDArray[np.uint8]:
    """Values in [0, 1] as a file of eight bits holds them, rounded as diffusers does."""
    whole: NDArray[np.uint8] = (images * 255).round().clip(0, 255).astype(np.uint8)
    return whole


def psnr(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]; infinite where they are equal.

    >>> black = np.zeros((8, 8, 3), np.float32)
    >>> psnr(black, black), round(psnr(black + 0.1, black), 3)
    (inf, 20.0)
    """
    error = float(np.mean((image.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(image: Image, reference: Image) -> float:
    """Structural similarity (Wang et al. 2004) of pictures (height, width, channels) in [0, 1]."""
    from skimage import metrics

    measure: Any = metrics.structural_similarity
    side = min(image.shape[:2])
    value = measure(
        image.astype(np.float64),
        reference.astype(np.float64),
        data_range=1.0,
        channel_axis=-1,
        win_size=min(SSIM_WINDOW, side if side % 2 else side - 1),
    )
    return float(value)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and worst of a measure where more is better.

    Args:
        mean: over the finite values; infinite where all are.
        worst: the least.
        identical: how many are infinite, and so are in no mean.
    """

    mean: float
    worst: float
    identical: int = 0

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for JSON, which has no infinity: there it is null."""
        return {"mean": finite(self.mean), "worst": finite(self.worst)}


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and worst, or None of nothing.

    An infinite PSNR would make every mean infinite; left out, it makes the mean lower, never
    higher.

    >>> spread([20.0, 30.0, math.inf])
    Spread(mean=25.0, worst=20.0, identical=1)
    """
    if not values:
        return None
    real = [v for v in values if math.isfinite(v)]
    mean = fmean(real) if real else math.inf
    return Spread(mean, min(values), len(values) - len(real))


def finite(value: float | None) -> float | None:
    """The value, or None where JSON could not say it."""
    return value if value is not None and math.isfinite(value) else None
