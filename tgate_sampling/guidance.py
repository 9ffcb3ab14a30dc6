"""Estimators: what stands in for the unconditional branch while the guidance gate is closed.

All work below the pipeline, on the backbone's raw outputs, so that every guidance formula above
them (rescale, APG, perp-neg) stays untouched. With delta = cond - uncond, guidance is
u + s (c - u) = c + (s - 1) delta, so an estimator is a guess of delta; `cond` is always computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

import torch

#: How far `forecast` may reach, in units of the distance between the two looks it rests on.
REACH: Final = 1.0
#: How much of the forecast change is believed: full belief wins in the mean and loses in the worst
#: cases at high guidance, none (`hold`) the other way round.
BELIEF: Final = 0.75
#: `decay` shrinks delta by this power of the noise level.
DECAY: Final = 0.25
#: The guidance scale errors are judged by where the driver does not know it: a high one, so that an
#: adaptive policy looks too often rather than too seldom.
HIGH_GUIDANCE: Final = 7.5
#: How much of a change that went on at the last look `linear` expects to go on. On emoji-sd full
#: trust is better under DDIM, and none under DPM-Solver++ 2M, which extrapolates by itself.
TRUST: Final = 0.6
#: Ridge of `linear`, as a share of the regressor's energy.
RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Look:
    """One guided evaluation of this run.

    Args:
        delta: (B, ...) cond - uncond.
        level: log of the noise level sigma; None where the driver cannot know it.
        cond: (B, ...) the conditional output, for estimators that keep it.
    """

    delta: torch.Tensor
    level: float | None = None
    cond: torch.Tensor | None = None


#: `fill(cond, looks, level)` -> uncond, with `looks` newest last.
Fill: TypeAlias = Callable[[torch.Tensor, Sequence[Look], float | None], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Estimator:
    """A named way to fill in the unconditional output.

    Args:
        name: as users type it.
        fill: the function.
        looks: how many guided evaluations it must have seen; 0 for none.
        memory: how many it makes use of.
        reads_level: whether it asks for noise levels.
        keeps_cond: whether looks must hold the conditional output.
    """

    name: str
    fill: Fill
    looks: int = 1
    memory: int = 1
    reads_level: bool = False
    keeps_cond: bool = False


def none(cond: torch.Tensor, looks: Sequence[Look], level: float | None) -> torch.Tensor:
    """Uncond := cond. Guidance is off: any affine guidance formula becomes the identity."""
    return cond


def hold(cond: torch.Tensor, looks: Sequence[Look], level: float | None) -> torch.Tensor:
    """Uncond := cond - delta, with the delta of the last look."""
    return cond - looks[-1].delta


def decay(cond: torch.Tensor, looks: Sequence[Look], level: float | None) -> torch.Tensor:
    """`hold` with delta shrunk by (sigma / sigma of the look) ** `DECAY`, at most 1.

    Guidance fades out with the noise instead of staying or stopping.
    """
    last = looks[-1]
    if level is None or last.level is None:
        return hold(cond, looks, level)
    return cond - last.delta * min(1.0, math.exp(DECAY * (level - last.level)))


def forecast(cond: torch.Tensor, looks: Sequence[Look], level: float | None) -> torch.Tensor:
    """Delta extrapolated along the log noise level from the last two looks.

    delta = d1 + `BELIEF` r (d1 - d0) with r = (l - l1) / (l1 - l0) in 0 to `REACH`. Falls back to
    `hold` with one look, equal levels, or unknown ones.
    """
    reach = _reach(looks, level)
    if reach is None:
        return hold(cond, looks, level)
    before, last = looks[-2], looks[-1]
    return cond - torch.lerp(last.delta, before.delta, -BELIEF * reach)


def linear(cond: torch.Tensor, looks: Sequence[Look], level: float | None) -> torch.Tensor:
    """Uncond as a least-squares combination of this run's own outputs (LinearAG, 2312.12487).

    delta = d2 + b (c - c2) + `TRUST` p r u. The change of delta is regressed on the change of cond
    between the last two looks: one b per sample, |b| at most 1. What b leaves unexplained,
    u = (d2 - d1) - b (c2 - c1), goes on along the log noise level (r as in `forecast`) by the share
    p in 0 to 1 with which it went on at the last look. All is fitted online in float32, with a
    ridge, so nothing is calibrated beforehand. Two looks give no p, one is `hold`, and so is a cond
    that did not move.
    """
    looks = tuple(looks)
    conds = [look.cond for look in looks if look.cond is not None]
    if len(conds) < 2 or len(conds) < len(looks):
        return hold(cond, looks, level)
    turned, moved = _change([look.delta for look in looks]), _change(conds)  # (B, N) each
    slope = _slope(moved[-1], turned[-1]).clamp(-1, 1)  # (B, 1)
    unexplained = [t - slope * m for t, m in zip(turned, moved, strict=True)]
    ahead = slope * (cond - conds[-1]).flatten(1).float()
    reach, before = _reach(looks, level), _reach(looks[:-1], looks[-1].level)
    if reach is not None and before is not None:
        held = _slope(before * unexplained[-2], unexplained[-1]).clamp(0, 1)  # (B, 1)
        ahead = ahead + TRUST * held * reach * unexplained[-1]
    return cond - looks[-1].delta - ahead.to(cond.dtype).view_as(cond)


def _change(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """(B, N) float32, from each to the next."""
    return [(b - a).flatten(1).float() for a, b in pairwise(values)]


def _slope(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(B, 1) the least-squares factor from x to y, both (B, N), with a ridge; 0 where x is."""
    energy = (x * x).sum(1, keepdim=True) * (1 + RIDGE)
    return (x * y).sum(1, keepdim=True) / energy.clamp_min(torch.finfo(torch.float32).tiny)


def to_denoised(
    sample: torch.Tensor, output: torch.Tensor, sigma: float, prediction: str
) -> torch.Tensor:
    """The denoised prediction of a variance-preserving backbone.

    Args:
        sample: (B, ...) what the backbone was given, sqrt(a) x0 + sqrt(1 - a) noise.
        output: (B, ...) what it answered.
        sigma: sqrt((1 - a) / a).
        prediction: "epsilon", "v_prediction" or "sample".
    """
    alpha = float((sigma**2 + 1) ** -0.5)
    if prediction == "epsilon":
        return (sample - sigma * alpha * output) / alpha
    if prediction == "v_prediction":
        return alpha * sample - sigma * alpha * output
    return output


def _reach(looks: Sequence[Look], level: float | None) -> float | None:
    if len(looks) < 2 or level is None:
        return None
    before, last = looks[-2].level, looks[-1].level
    if before is None or last is None or abs(last - before) < 1e-6:
        return None
    return min(REACH, max(0.0, (level - last) / (last - before)))


ESTIMATORS: Final[Mapping[str, Estimator]] = MappingProxyType(
    {
        estimator.name: estimator
        for estimator in (
            Estimator("none", none, looks=0, memory=0),
            Estimator("hold", hold),
            Estimator("decay", decay, reads_level=True),
            Estimator("forecast", forecast, memory=2, reads_level=True),
            Estimator("linear", linear, memory=3, reads_level=True, keeps_cond=True),
        )
    }
)
