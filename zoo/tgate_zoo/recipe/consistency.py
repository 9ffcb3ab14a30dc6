"""The formulas of latent consistency models, as the pipeline and LCMScheduler have them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GUIDANCE_WIDTH = 64
GRID = 50
STRIDE = 1000 // GRID
# LCMScheduler's own: timesteps are scaled by 10 and the data's deviation counts as 0.5.
TIMESTEP_SCALE, DATA_SIGMA = 10.0, 0.5
HUBER = 0.001


def embed_guidance(guidance: Tensor, width: int = GUIDANCE_WIDTH) -> Tensor:
    """Sines and cosines of the guidance scale less one, as the pipeline gives them; (n, width)."""
    steps = torch.arange(width // 2, dtype=torch.float32)
    angles = (guidance[:, None] - 1) * 1000 * torch.exp(steps * -(np.log(1e4) / (width // 2 - 1)))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def boundary(timesteps: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip and c_out, both (n, 1, 1, 1): at timestep 0 the answer is the question."""
    scaled = timesteps.float()[:, None, None, None] * TIMESTEP_SCALE
    total = scaled.square() + DATA_SIGMA**2
    return DATA_SIGMA**2 / total, scaled / total.sqrt()


def denoised(noisy: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """The latents that a noise prediction implies."""
    return (noisy - (1 - share).sqrt() * noise) / share.sqrt()


def consistent(noisy: Tensor, noise: Tensor, timesteps: Tensor, shares: Tensor) -> Tensor:
    """The consistency function of a noise prediction, as LCMScheduler computes it."""
    skip, out = boundary(timesteps)
    share = shares[timesteps][:, None, None, None]
    return skip * noisy + out * denoised(noisy, noise, share)


def huber(error: Tensor) -> Tensor:
    """The pseudo-Huber distance of the consistency training literature, averaged."""
    return ((error.square() + HUBER**2).sqrt() - HUBER).mean()
