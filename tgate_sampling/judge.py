"""How well an estimate stands for the branch it fills in, where both are at hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tgate_sampling.guidance import HIGH_GUIDANCE, Estimator, to_denoised
from tgate_sampling.layout import block
from tgate_sampling.plan import Plan
from tgate_sampling.signals import Measurement, compare


def pair_of(plan: Plan, output: torch.Tensor, branch: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, ...) the conditional output, and that of `branch`."""
    if plan.partner is not None:
        return plan.partner.output, output
    cond, other = (output[block(plan.layout, b, plan.rows)] for b in ("cond", branch))
    return cond, other


def judge(plan: Plan, cond: torch.Tensor, uncond: torch.Tensor, guess: torch.Tensor) -> Measurement:
    """The error `guess` would have made in the guided output, and cos(cond, uncond).

    The cosine is of the denoised predictions where the driver knows how the output is to be read
    (arXiv 2312.12487 measures it so), of the raw outputs elsewhere.
    """
    scale = plan.driver.guidance_scale() or HIGH_GUIDANCE
    guided = cond + (scale - 1) * (cond - uncond)
    error = (scale - 1) * (guess - uncond).flatten(1).float().norm(dim=1)
    error = error / guided.flatten(1).float().norm(dim=1).clamp_min(1e-12)  # (B,)
    prediction, sigma = plan.driver.prediction_type(), None
    if prediction is not None:
        sigma = plan.where.step.sigma
    sample = plan.call.sample
    if plan.partner is None:
        sample = sample[block(plan.layout, "cond", plan.rows)]
    if sample.shape != cond.shape:  # image latents beside the noisy ones, or a learned variance
        sample, cond, uncond = _latents_of(sample, cond, uncond)
    if prediction is None or sigma is None or sample.shape != cond.shape:
        return Measurement("guidance", "raw", _beside(error, compare(cond, uncond)))
    both = [to_denoised(sample, y, sigma, prediction) for y in (cond, uncond)]
    return Measurement("guidance", "denoised", _beside(error, compare(*both)))


def _latents_of(sample: torch.Tensor, *outputs: torch.Tensor) -> list[torch.Tensor]:
    """The channels that sample and outputs share: the first ones, as every pipeline lays them.

    They come second, and in a video of frames first (SVD) third.
    """
    at = 2 if sample.ndim == 5 and sample.shape[1] == outputs[0].shape[1] else 1
    channels = min(sample.shape[at], outputs[0].shape[at])
    return [t.narrow(at, 0, channels) for t in (sample, *outputs)]


def _beside(error: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
    return torch.stack([error, compared[:, 1]], 1)  # (B, 2)


def level_of(plan: Plan, estimators: Sequence[Estimator]) -> float | None:
    """Log sigma of this evaluation, where an estimator asks for it."""
    sigma = plan.where.step.sigma if any(e.reads_level for e in estimators) else None
    return math.log(sigma) if sigma is not None and sigma > 0 else None
