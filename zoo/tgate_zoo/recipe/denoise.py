"""What every denoiser of the zoo trains with: latents, noise schedule, loss, and the stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.ema import load_average
from tgate_zoo.recipe.files import load_checkpoint
from tgate_zoo.recipe.loop import Step, run
from tgate_zoo.untyped import diffusers

# The noise schedule of Stable Diffusion; each scheduler of the zoo is made of these.
NOISE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}
DROP_CAPTION = 0.1
SNR_LIMIT = 5.0
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class LatentPool:
    """What a denoiser trains on, latents already scaled to unit variance.

    `means` and `deviations` have shape (count, channels, side, side), fp16; `tokens` has shape
    (count, length) and `empty` (length,), int64: the token numbers of the captions and of "".
    """

    means: Tensor
    deviations: Tensor
    tokens: Tensor
    empty: Tensor

    def latents(self, rows: Tensor) -> Tensor:
        """Latents of the scenes `rows` (n,), drawn from their spread with the global generator."""
        mean, deviation = self.means[rows].float(), self.deviations[rows].float()
        return mean + deviation * torch.randn_like(mean)


@dataclass(frozen=True)
class Settings:
    """How a denoiser is trained: samples a step, peak learning rate and its warm-up in steps."""

    batch: int
    peak_rate: float
    warmup: int
    decay: float = 0.999

    def step(
        self, module: nn.Module, learns: nn.Module, loss: Callable[[np.random.Generator], Tensor]
    ) -> Step:
        """The training step of a module, of which the part `learns` is changed by AdamW."""
        optimizer = torch.optim.AdamW(
            learns.parameters(),
            lr=self.peak_rate,
            betas=BETAS,
            weight_decay=WEIGHT_DECAY,
            fused=True,
        )
        return Step(
            module, optimizer, loss, peak_rate=self.peak_rate, warmup=self.warmup, decay=self.decay
        )


def signal_shares() -> Tensor:
    """The schedule's cumulative alphas, shape (1000,), float32."""
    shares: Tensor = diffusers().DDIMScheduler(**NOISE).alphas_cumprod
    return shares


def ddim() -> Any:
    """The scheduler of the models of many steps.

    The library's Euler and DPM-Solver++ schedulers warn when they meet a recent numpy.
    """
    return diffusers().DDIMScheduler(
        **NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


def add_noise(latents: Tensor, noise: Tensor, share: Tensor) -> Tensor:
    """Latents and noise, both (n, c, h, w), mixed so that `share` (n, 1, 1, 1) is signal."""
    noisy = share.sqrt() * latents + (1 - share).sqrt() * noise
    return noisy.contiguous(memory_format=torch.channels_last)


def denoising_loss(
    model: nn.Module, pool: LatentPool, rows: Tensor, dropped: Tensor, shares: Tensor
) -> Tensor:
    """Squared error of the predicted noise, weighted by min(SNR, limit) / SNR.

    `rows` (n,) picks scenes; `dropped` (n,), bool, says whose caption is left empty. Timesteps,
    noise and the latents' own spread come from torch's global generator.
    """
    latents = pool.latents(rows)
    tokens = torch.where(dropped[:, None], pool.empty, pool.tokens[rows])
    timesteps = torch.randint(0, len(shares), (len(rows),))
    share = shares[timesteps][:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = add_noise(latents, noise, share)
    error = (model(noisy, timesteps, tokens) - noise).square().mean(dim=(1, 2, 3))
    return min_snr_mean(error, share.flatten())


def min_snr_mean(error: Tensor, share: Tensor) -> Tensor:
    """The mean of the errors (n,) of noise predictions, each weighted by min(SNR, limit) / SNR."""
    ratio = share / (1 - share)
    return (error * ratio.clamp(max=SNR_LIMIT) / ratio).mean()


Module = TypeVar("Module", bound=nn.Module)


def train_denoiser(
    model: Module,
    pool: LatentPool,
    checkpoint: Path,
    budget: Budget,
    settings: Settings,
    *,
    seed: int = 0,
    resume: bool = True,
    label: str = "denoiser",
    stop_at: int | None = None,
) -> Module:
    """Train a module of (noisy, timesteps, tokens) and return it with its averaged weights."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
    shares = signal_shares()

    def loss(rng: np.random.Generator) -> Tensor:
        rows = draw_rows(rng, pool, settings)
        dropped = torch.from_numpy(rng.random(settings.batch) < DROP_CAPTION)
        return denoising_loss(model, pool, rows, dropped, shares)

    average = run(
        settings.step(model, model, loss),
        checkpoint,
        budget,
        seed=seed,
        resume=resume,
        label=label,
        stop_at=stop_at,
    )
    average.copy_to(model)
    return model.eval()


def draw_rows(rng: np.random.Generator, pool: LatentPool, settings: Settings) -> Tensor:
    """Places of a batch of scenes, (batch,)."""
    return torch.from_numpy(rng.integers(0, len(pool.means), settings.batch))


def trained_state(checkpoint: Path, hint: str) -> dict[str, Any]:
    """What a training stage saved.

    Raises FileNotFoundError when the stage has not run; `hint` is the command that runs it.
    """
    state = load_checkpoint(checkpoint)
    if state is None:
        raise FileNotFoundError(
            f"The diffusion model was looked for at {checkpoint} and is not there; run "
            f"`{hint}` first."
        )
    return state


def with_average(model: Module, state: dict[str, Any]) -> Module:
    """The module with the averaged weights of `trained_state`, ready to draw."""
    load_average(model, state["average"])
    return model.eval()
