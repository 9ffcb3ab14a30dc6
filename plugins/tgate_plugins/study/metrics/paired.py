"""How near pictures are to others of the same prompts and seeds: fidelity, and the three shifts."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tgate_plugins.cli.metrics import psnr, ssim
from tgate_plugins.study.metrics.multiscale import ms_ssim, scales
from tgate_plugins.study.metrics.pictures import Pictures, Values, both, checked
from tgate_plugins.study.metrics.scripted import lpips
from tgate_plugins.study.metrics.weights import LPIPS

#: Half a level of 8 bits: a reference darker, greyer or flatter has nothing to be relative to.
_NOTHING: Final = 1 / 510


def paired(images: NDArray[Any], reference: NDArray[Any]) -> dict[str, Values]:
    """Every paired metric that can be measured here, by name; one value a picture, (N).

    `psnr` in dB (inf where equal), `ssim`, `ms_ssim` (from 22 px on, see `scales`), `lpips` (with
    its weights), and `brightness`, `chroma`, `sharpness` (see `shifts`).

    Args:
        images: (N, height, width, 3) in [0, 1].
        reference: as many, of the same prompts and seeds: the ungated or the converged ones.

    Raises:
        OptionError: these are no such pictures.
    """
    mine, theirs = both(images, reference)
    pairs = list(zip(mine, theirs, strict=True))
    found = {
        "psnr": np.array([psnr(a, b) for a, b in pairs], np.float64),
        "ssim": np.array([ssim(a, b) for a, b in pairs], np.float64),
    }
    if scales(*mine.shape[1:3]) >= 2 and find_spec("torchmetrics") is not None:
        found["ms_ssim"] = ms_ssim(mine, theirs)
    if LPIPS.find() is not None:
        found["lpips"] = lpips(mine, theirs)
    return found | shifts(mine, theirs)


def levels(images: NDArray[Any]) -> dict[str, Values]:
    """Brightness, chroma and sharpness of each picture, (N).

    Brightness is the mean of all values; chroma the mean distance of a pixel's colour from the
    grey of the same mean; sharpness the mean step of that grey from a pixel to the next, down
    plus across.
    """
    pictures: NDArray[Any] = checked(images).astype(np.float64)
    grey = pictures.mean(3)
    chroma = np.sqrt(((pictures - grey[..., None]) ** 2).sum(3))
    return {
        "brightness": grey.mean((1, 2)),
        "chroma": chroma.mean((1, 2)),
        "sharpness": _step(grey, 1) + _step(grey, 2),
    }


def shifts(images: Pictures, reference: Pictures) -> dict[str, Values]:
    """Relative change of each picture's `levels`: the three complaints about gated pictures.

    -0.1 is a tenth darker, greyer or blurrier than the reference. Where the reference has none of
    it (a black, grey or flat picture) the change is 0 if the picture has none either, else NaN.
    """
    mine, theirs = levels(images), levels(reference)
    return {name: _relative(mine[name], theirs[name]) for name in theirs}


def _step(grey: Values, axis: int) -> Values:
    if grey.shape[axis] < 2:
        return np.zeros(len(grey))
    steps: Values = np.abs(np.diff(grey, axis=axis)).mean((1, 2))
    return steps


def _relative(value: Values, base: Values) -> Values:
    there = base >= _NOTHING
    change = np.divide(value, base, out=np.ones_like(base), where=there) - 1
    return np.where(~there & (value >= _NOTHING), np.nan, change)
