"""MS-SSIM (Wang, Simoncelli, Bovik 2003), also of pictures too small for its five scales."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_plugins.study.metrics.pictures import Values, both, pieces, to_tensor
from tgate_sampling.errors import OptionError

#: Side of the Gaussian window; a scale whose picture is smaller would see mostly its own mirror.
WINDOW: Final = 11
#: Exponents as published, finest scale first.
PUBLISHED: Final = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
#: Pixels up to which pictures are measured in float64: 15 ms for 32 x 32 px, 4 s for 512 x 512.
#: In float32 these take 1 ms and 0.2 s, and values are off by up to 1e-4 (flat parts: 3e-4).
EXACT: Final = 64 * 64

TOO_SMALL: Final = (
    "two scales need 22 px and the pictures are {} x {} px; use larger ones, or SSIM, which is "
    "measured"
)


def scales(height: int, width: int) -> int:
    """How many of the five published scales fit.

    All five from 176 px on, 4 from 99, 3 from 44, 2 from 22 (the zoo's 32 px): values of
    different numbers of scales are not to be compared.

    >>> [scales(side, side) for side in (512, 176, 128, 64, 32, 21)]
    [5, 5, 4, 3, 2, 1]
    """
    side = min(height, width)
    # The second bound is torchmetrics' own; it tells at four scales alone, 99 px and not 88.
    fits = (n for n in range(1, 6) if min(side >> (n - 1), side // max(1, n - 1) ** 2) >= WINDOW)
    return max(fits, default=1)


def weights(count: int) -> tuple[float, ...]:
    """Exponents of so many scales: the finest ones' published ones, made to sum to one.

    All five stay as they were published, where they sum to 1.0001.
    """
    part = PUBLISHED[:count]
    return part if count == len(PUBLISHED) else tuple(w / sum(part) for w in part)


def ms_ssim(images: NDArray[Any], reference: NDArray[Any]) -> Values:
    """Multi-scale structural similarity of each picture, (N), with as many scales as fit.

    Computed by torchmetrics: its Gaussian window of 11, a negative contrast term counts as 0.

    Raises:
        OptionError: fewer than two scales fit: that would be SSIM under another name.
    """
    from torchmetrics.functional import image

    mine, theirs = both(images, reference)
    height, width = mine.shape[1:3]
    count = scales(height, width)
    if count < 2:
        raise OptionError(f"MS-SSIM was asked for, and {TOO_SMALL.format(height, width)}.")
    measure: Any = image.multiscale_structural_similarity_index_measure
    precision = torch.float64 if height * width <= EXACT else torch.float32
    found = np.empty(len(mine))
    for part in pieces(mine):
        with torch.inference_mode():
            value = measure(
                to_tensor(mine[part]).to(precision),
                to_tensor(theirs[part]).to(precision),
                data_range=1.0,
                betas=weights(count),
                reduction=None,
            )
        found[part] = value.numpy()
    # In float32 equal pictures with flat parts come out at 0.9999.
    return np.where((mine == theirs).all(axis=(1, 2, 3)), 1.0, found)
