"""Training of the UNet and the text encoder on latents of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.ema import load_average
from tgate_zoo.recipe.files import load_checkpoint
from tgate_zoo.recipe.loop import Step, run
from tgate_zoo.recipe.text import TEXT_WIDTH, build_text_encoder
from tgate_zoo.recipe.vae import LATENT_CHANNELS
from tgate_zoo.untyped import diffusers

CONFIG: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "layers_per_block": 1,
    "block_out_channels": (64, 128),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "cross_attention_dim": TEXT_WIDTH,
    # The number of heads: diffusers reads this field so in a UNet of this kind.
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "prediction_type": "epsilon",
}
PEAK_RATE = 8e-4
WARMUP = 300
BATCH = 48
DROP_CAPTION = 0.1
SNR_LIMIT = 5.0


@dataclass(frozen=True)
class LatentPool:
    """What the UNet trains on, latents already scaled to unit variance.

    `means` and `deviations` have shape (count, channels, side, side), fp16; `tokens` has shape
    (count, length) and `empty` (length,), int64: the token numbers of the captions and of "".
    """

    means: Tensor
    deviations: Tensor
    tokens: Tensor
    empty: Tensor


class Denoiser(nn.Module):
    """The UNet and the text encoder as one module, since they train together."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise, shape of `noisy`; `timesteps` (n,), `tokens` (n, length)."""
        states = self.text_encoder(tokens)[0]
        noise: Tensor = self.unet(noisy, timesteps, states, return_dict=False)[0]
        return noise


def build_denoiser(tokenizer: Any, side: int, config: dict[str, Any] = CONFIG) -> Denoiser:
    """A fresh denoiser for latents of `side`."""
    unet = diffusers().UNet2DConditionModel(**config, sample_size=side)
    return Denoiser(unet, build_text_encoder(tokenizer))


def signal_shares() -> Tensor:
    """The scheduler's cumulative alphas, shape (1000,), float32."""
    shares: Tensor = diffusers().DDIMScheduler(**SCHEDULER).alphas_cumprod
    return shares


def denoising_loss(
    model: nn.Module, pool: LatentPool, rows: Tensor, dropped: Tensor, shares: Tensor
) -> Tensor:
    """Squared error of the predicted noise, weighted by min(SNR, limit) / SNR.

    `rows` (n,) picks scenes; `dropped` (n,), bool, says whose caption is left empty. Timesteps,
    noise and the latents' own spread come from torch's global generator.
    """
    mean, deviation = pool.means[rows].float(), pool.deviations[rows].float()
    latents = mean + deviation * torch.randn_like(mean)
    tokens = torch.where(dropped[:, None], pool.empty, pool.tokens[rows])
    timesteps = torch.randint(0, len(shares), (len(rows),))
    share = shares[timesteps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    error = (model(noisy, timesteps, tokens) - noise).square().mean(dim=(1, 2, 3))
    ratio = (share / (1 - share)).flatten()
    loss: Tensor = (error * ratio.clamp(max=SNR_LIMIT) / ratio).mean()
    return loss


def train_unet(
    model: Denoiser,
    pool: LatentPool,
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int = 0,
    resume: bool = True,
    batch: int = BATCH,
    stop_at: int | None = None,
) -> Denoiser:
    """Train the denoiser and return it with its averaged weights."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    shares = signal_shares()

    def loss(rng: np.random.Generator) -> Tensor:
        rows = torch.from_numpy(rng.integers(0, len(pool.means), batch))
        dropped = torch.from_numpy(rng.random(batch) < DROP_CAPTION)
        return denoising_loss(model, pool, rows, dropped, shares)

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = run(
        Step(model, optimizer, loss, peak_rate=PEAK_RATE, warmup=WARMUP, decay=0.999),
        checkpoint,
        budget,
        seed=seed,
        resume=resume,
        label="unet",
        stop_at=stop_at,
    )
    average.copy_to(model)
    return model.eval()


def trained_state(checkpoint: Path) -> dict[str, Any]:
    """What `train_unet` saved.

    Raises FileNotFoundError when the stage has not run.
    """
    state = load_checkpoint(checkpoint)
    if state is None:
        raise FileNotFoundError(
            f"The diffusion model was looked for at {checkpoint} and is not there; run "
            "`python -m tgate_zoo train emoji-sd --stage unet` first."
        )
    return state


def load_denoiser(
    state: dict[str, Any], tokenizer: Any, side: int, config: dict[str, Any] = CONFIG
) -> Denoiser:
    """The denoiser with the averaged weights of `trained_state`, for latents of `side`."""
    model = build_denoiser(tokenizer, side, config)
    load_average(model, state["average"])
    return model.eval()
