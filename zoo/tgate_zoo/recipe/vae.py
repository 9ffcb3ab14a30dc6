"""Training of the autoencoder: pictures of 3 channels to latents of a quarter of the side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.loop import Step, run
from tgate_zoo.untyped import diffusers

LATENT_CHANNELS = 8
CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (24, 32, 64),
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": 8,
}
PEAK_RATE = 2e-3
BATCH = 32
# Small enough for sharp pictures, large enough that the latents stay near a unit normal.
KL_WEIGHT = 1e-5
EDGE_WEIGHT = 0.5


def build_vae(side: int, config: dict[str, Any] = CONFIG) -> Any:
    """A fresh AutoencoderKL for pictures of `side` pixels."""
    return diffusers().AutoencoderKL(**config, sample_size=side)


def to_batch(images: NDArray[np.uint8]) -> Tensor:
    """uint8 pictures (n, side, side, 3) to floats (n, 3, side, side) in [-1, 1]."""
    floats = torch.from_numpy(np.array(images)).float()
    return (floats / 127.5 - 1).permute(0, 3, 1, 2)


def vae_loss(vae: Any, pixels: Tensor) -> Tensor:
    """Absolute error, error of the neighbour differences (edges), and the KL term."""
    posterior = vae.encode(pixels).latent_dist
    decoded = vae.decode(posterior.sample()).sample.float()
    error = decoded - pixels
    edges = (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()) * EDGE_WEIGHT
    squared = 2.0 * error.square().mean()
    loss: Tensor = error.abs().mean() + squared + edges + KL_WEIGHT * posterior.kl().mean()
    return loss


def train_vae(
    images: NDArray[np.uint8],
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int = 0,
    resume: bool = True,
    config: dict[str, Any] = CONFIG,
) -> Any:
    """Train on pictures (count, side, side, 3) and return the autoencoder of averaged weights."""
    torch.manual_seed(seed)
    vae = build_vae(images.shape[1], config).to(memory_format=torch.channels_last)

    def loss(rng: np.random.Generator) -> Tensor:
        rows = np.sort(rng.integers(0, len(images), BATCH))
        pixels = to_batch(images[rows]).to(memory_format=torch.channels_last)
        return vae_loss(vae, pixels)

    optimizer = torch.optim.AdamW(vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99))
    average = run(
        Step(vae, optimizer, loss, peak_rate=PEAK_RATE, warmup=200, decay=0.998),
        checkpoint,
        budget,
        seed=seed,
        resume=resume,
        label="vae",
    )
    average.copy_to(vae)
    return vae.eval()


@torch.no_grad()
def encode_all(vae: Any, images: NDArray[np.uint8], batch: int = 128) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every picture's latent; fp16, (count, 8, side/4, side/4)."""
    means, deviations = [], []
    for start in range(0, len(images), batch):
        posterior = vae.encode(to_batch(images[start : start + batch])).latent_dist
        means.append(posterior.mean.half())
        deviations.append(posterior.std.half())
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def reconstruction_psnr(vae: Any, images: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB of decode(encode(images)) over all pixels."""
    pixels = to_batch(images)
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / functional.mse_loss(decoded, pixels)))
