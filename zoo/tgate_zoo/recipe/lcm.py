"""emoji-lcm's student: emoji-sd without its middle, distilled to few steps.

Two stages. `match` teaches the student the teacher's guided noise, with the guidance scale as an
input instead of a second call. `distill` is latent consistency distillation (arXiv 2310.04378,
algorithm 1): every point of a DDIM path has to lead to the same picture.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.consistency import (
    GRID,
    GUIDANCE_WIDTH,
    STRIDE,
    TIMESTEP_SCALE,
    consistent,
    denoised,
    embed_guidance,
    huber,
)
from tgate_zoo.recipe.denoise import (
    NOISE,
    LatentPool,
    Settings,
    add_noise,
    draw_rows,
    min_snr_mean,
    signal_shares,
)
from tgate_zoo.recipe.loop import run
from tgate_zoo.untyped import diffusers

# As the pipeline means it: 1 is no guidance.
GUIDANCE_RANGE = (2.0, 9.0)
TARGET_DECAY = 0.95
MATCH = Settings(batch=32, peak_rate=5e-4, warmup=100, decay=0.998)
DISTILL = Settings(batch=32, peak_rate=3e-4, warmup=100, decay=0.998)


def build_student(teacher: Any) -> Any:
    """The teacher's UNet without its middle block, with an input for the guidance scale.

    It starts with the teacher's weights, and with a guidance input that changes nothing.
    """
    # diffusers' own entries go: one of them says which values count as not given.
    config = {k: v for k, v in teacher.config.items() if not k.startswith("_")}
    config |= {"mid_block_type": None, "time_cond_proj_dim": GUIDANCE_WIDTH}
    student = diffusers().UNet2DConditionModel(**config)
    kept = {k: v for k, v in teacher.state_dict().items() if not k.startswith("mid_block.")}
    new = "time_embedding.cond_proj.weight"
    kept[new] = torch.zeros_like(student.state_dict()[new])
    student.load_state_dict(kept)
    return student


class Teacher:
    """emoji-sd, frozen: its guided noise for latents and captions."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        self.unet = unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.text_encoder = text_encoder.eval().requires_grad_(False)

    @torch.no_grad()
    def states(self, tokens: Tensor) -> Tensor:
        """The captions' states, (n, length, width)."""
        states: Tensor = self.text_encoder(tokens)[0]
        return states

    @torch.no_grad()
    def guided(
        self, noisy: Tensor, timesteps: Tensor, cond: Tensor, uncond: Tensor, guidance: Tensor
    ) -> Tensor:
        """Classifier-free guided noise; `guidance` (n,), the rest as the UNet takes them."""
        double = torch.cat([noisy, noisy]).contiguous(memory_format=torch.channels_last)
        states = torch.cat([uncond.expand_as(cond), cond])
        out = self.unet(double, torch.cat([timesteps] * 2), states, return_dict=False)[0]
        without, with_caption = out.chunk(2)
        mixed: Tensor = without + guidance[:, None, None, None] * (with_caption - without)
        return mixed


class Distiller(nn.Module):
    """The student and its slow copy, which gives the targets."""

    def __init__(self, student: Any) -> None:
        super().__init__()
        self.student = student
        self.target = deepcopy(student).requires_grad_(False)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow copy towards the student."""
        torch._foreach_lerp_(
            list(self.target.parameters()), list(self.student.parameters()), 1 - TARGET_DECAY
        )


def _noise(unet: Any, noisy: Tensor, timesteps: Tensor, states: Tensor, guidance: Tensor) -> Tensor:
    embedded = embed_guidance(guidance)
    out: Tensor = unet(noisy, timesteps, states, timestep_cond=embedded, return_dict=False)[0]
    return out


def _draw_guidance(count: int) -> Tensor:
    low, high = GUIDANCE_RANGE
    return low + (high - low) * torch.rand(count)


def matching_loss(
    student: Any, teacher: Teacher, pool: LatentPool, rows: Tensor, shares: Tensor
) -> Tensor:
    """Squared difference of the student's noise from the teacher's guided noise, min-SNR weighted.

    Timesteps, noise and guidance come from torch's global generator.
    """
    latents = pool.latents(rows)
    timesteps = torch.randint(0, len(shares), (len(rows),))
    share = shares[timesteps][:, None, None, None]
    noisy = add_noise(latents, torch.randn_like(latents), share)
    guidance, cond = _draw_guidance(len(rows)), teacher.states(pool.tokens[rows])
    uncond = teacher.states(pool.empty[None])
    wanted = teacher.guided(noisy, timesteps, cond, uncond, guidance)
    error = _noise(student, noisy, timesteps, cond, guidance) - wanted
    return min_snr_mean(error.square().mean(dim=(1, 2, 3)), share.flatten())


def consistency_loss(
    pair: Distiller, teacher: Teacher, pool: LatentPool, rows: Tensor, shares: Tensor
) -> Tensor:
    """Distance of the student's answer from the slow copy's, one DDIM step of the teacher further.

    The grid has `GRID` steps, as LCMScheduler counts them. Places on it, noise and guidance come
    from torch's global generator.
    """
    latents = pool.latents(rows)
    starts = (torch.randint(0, GRID, (len(rows),)) + 1) * STRIDE - 1
    ends = (starts - STRIDE).clamp(min=0)
    share, share_end = (shares[times][:, None, None, None] for times in (starts, ends))
    noisy = add_noise(latents, torch.randn_like(latents), share)
    guidance, cond = _draw_guidance(len(rows)), teacher.states(pool.tokens[rows])
    uncond = teacher.states(pool.empty[None])
    answer = consistent(noisy, _noise(pair.student, noisy, starts, cond, guidance), starts, shares)
    with torch.no_grad():
        guided = teacher.guided(noisy, starts, cond, uncond, guidance)
        moved = add_noise(denoised(noisy, guided, share), guided, share_end)
        wanted = consistent(moved, _noise(pair.target, moved, ends, cond, guidance), ends, shares)
    return huber(answer - wanted)


def assemble(vae: Any, student: Any, text_encoder: Any, tokenizer: Any) -> Any:
    """A LatentConsistencyModelPipeline of the parts, without a safety checker."""
    scheduler = diffusers().LCMScheduler(
        **NOISE, original_inference_steps=GRID, clip_sample=False, timestep_scaling=TIMESTEP_SCALE
    )
    return diffusers().LatentConsistencyModelPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=student,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def train_match(
    student: Any,
    teacher: Teacher,
    pool: LatentPool,
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int = 0,
    resume: bool = True,
    settings: Settings = MATCH,
    stop_at: int | None = None,
) -> Any:
    """Train the student on the teacher's guided noise; returns it with its averaged weights."""
    student.to(memory_format=torch.channels_last)
    shares = signal_shares()

    def loss(rng: np.random.Generator) -> Tensor:
        rows = draw_rows(rng, pool, settings)
        return matching_loss(student, teacher, pool, rows, shares)

    stage = settings.step(student, student, loss)
    average = run(
        stage, checkpoint, budget, seed=seed, resume=resume, label="match", stop_at=stop_at
    )
    average.copy_to(student)
    return student.eval()


def train_distill(
    student: Any,
    teacher: Teacher,
    pool: LatentPool,
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int = 0,
    resume: bool = True,
    settings: Settings = DISTILL,
    stop_at: int | None = None,
) -> Any:
    """Consistency distillation; returns the student with its averaged weights."""
    student.to(memory_format=torch.channels_last)
    pair, shares = Distiller(student), signal_shares()

    def loss(rng: np.random.Generator) -> Tensor:
        # Before the step, so that the copy is part of the state that a resumed run goes on from.
        pair.follow()
        rows = draw_rows(rng, pool, settings)
        return consistency_loss(pair, teacher, pool, rows, shares)

    stage = settings.step(pair, pair.student, loss)
    average = run(
        stage, checkpoint, budget, seed=seed, resume=resume, label="distill", stop_at=stop_at
    )
    average.copy_to(pair)
    return pair.student.eval()
