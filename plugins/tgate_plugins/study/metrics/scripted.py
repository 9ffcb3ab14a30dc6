"""LPIPS and Inception's features from TorchScript files, which bring their network with them."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_plugins.cli.metrics import eight_bit
from tgate_plugins.study.metrics.pictures import Values, both, checked, to_tensor
from tgate_plugins.study.metrics.weights import INCEPTION, LPIPS
from tgate_sampling.errors import OptionError

#: Pictures a call; these networks are large and enlarge small pictures themselves.
BATCH = 16


@torch.inference_mode()
def lpips(images: NDArray[Any], reference: NDArray[Any]) -> Values:
    """LPIPS (Zhang et al. 2018, VGG) of each picture, (N); 0 where equal, less is better.

    StyleGAN's network gives vectors whose squared distance it is, of pictures in [0, 255].

    Raises:
        OptionError: the weights are not on this machine.
    """
    mine, theirs = both(images, reference)
    network = _load(LPIPS.get(), LPIPS.variable)
    found = np.empty(len(mine))
    for start in range(0, len(mine), BATCH):
        part = slice(start, start + BATCH)
        a, b = (
            network(255 * to_tensor(x[part]), resize_images=False, return_lpips=True)
            for x in (mine, theirs)
        )
        found[part] = (a - b).square().sum(1).numpy()
    return found


@torch.inference_mode()
def inception_features(images: NDArray[Any]) -> Values:
    """The 2,048 features that FID was defined on, (N, 2048), of the pictures in 8 bits.

    Raises:
        OptionError: the weights are not on this machine.
    """
    found = checked(images)
    network = _load(INCEPTION.get(), INCEPTION.variable)
    parts = []
    for start in range(0, len(found), BATCH):
        pixels = torch.from_numpy(eight_bit(found[start : start + BATCH])).permute(0, 3, 1, 2)
        parts.append(network(pixels, return_features=True).double().numpy())
    return np.concatenate(parts or [np.empty((0, 2048))])


@functools.lru_cache(maxsize=2)
def _load(path: Path, variable: str) -> Any:
    with warnings.catch_warnings():
        # torch says that TorchScript is on its way out; these files were never published otherwise.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            load: Any = torch.jit.load
            return load(str(path), map_location="cpu").eval()
        except RuntimeError as error:
            raise OptionError(
                f"{variable} means the file {path}, which is not TorchScript; name the file that "
                "StyleGAN2-ADA publishes."
            ) from error
