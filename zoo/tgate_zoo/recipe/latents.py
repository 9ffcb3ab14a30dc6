"""The pool of latents that the UNet trains on, and the scale of the latent space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tgate_zoo.recipe.denoise import LatentPool
from tgate_zoo.recipe.files import load_checkpoint, save_checkpoint
from tgate_zoo.recipe.text import encode_captions
from tgate_zoo.recipe.vae import encode_all


@torch.no_grad()
def centre_latents(vae: Any, images: NDArray[np.uint8]) -> float:
    """Give every latent channel mean 0 and one common deviation, and return 1 / deviation.

    A pipeline only multiplies latents by `scaling_factor`, so the shift and the balance of the
    channels are folded into the 1x1 convolutions on both sides of the latent: what the
    autoencoder draws does not change. The returned factor is stored as `scaling_factor`.
    """
    mean, deviation = encode_all(vae, images)
    mean, deviation = mean.float(), deviation.float()
    centre = mean.mean(dim=(0, 2, 3))
    # Law of total variance: the spread of the means plus the posteriors' own.
    spread = (mean.var(dim=(0, 2, 3)) + deviation.square().mean(dim=(0, 2, 3))).sqrt()
    common = spread.square().mean().sqrt()
    _rescale(vae, centre, spread / common)
    factor = float(1 / common)
    vae.register_to_config(scaling_factor=factor)
    return factor


def _rescale(vae: Any, centre: Tensor, ratio: Tensor) -> None:
    """Make the encoder give (z - centre) / ratio and the decoder take it; both of shape (c,)."""
    channels = len(ratio)
    before, after = vae.quant_conv, vae.post_quant_conv
    # The first half of the encoder's channels are means, the second half log variances.
    before.weight[:channels] /= ratio[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - centre) / ratio
    before.bias[channels:] -= 2 * ratio.log()
    after.bias += after.weight[:, :, 0, 0] @ centre
    after.weight *= ratio[None, :, None, None]


def latent_pool(
    path: Path, vae: Any, images: NDArray[np.uint8], captions: Sequence[str], tokenizer: Any
) -> LatentPool:
    """The scaled latents and token numbers of a pool, encoded once and then read from `path`."""
    state, key = load_checkpoint(path), _digest(vae, captions)
    if state is None or state.get("captions") != key:
        means, deviations = encode_all(vae, images)
        factor = vae.config.scaling_factor
        state = {"captions": key, "means": means * factor, "deviations": deviations * factor}
        save_checkpoint(path, state)
    return LatentPool(
        state["means"],
        state["deviations"],
        encode_captions(tokenizer, captions),
        encode_captions(tokenizer, [""])[0],
    )


def _digest(vae: Any, captions: Sequence[str]) -> str:
    # Latents of another autoencoder mean nothing to this one.
    found = hashlib.sha256("\n".join(captions).encode())
    for value in vae.encoder.state_dict().values():
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()
