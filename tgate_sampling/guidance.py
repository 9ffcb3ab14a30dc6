"""Estimators: what stands in for the unconditional branch while the guidance gate is closed.

All work below the pipeline, on the backbone's raw outputs, so that every guidance formula above
them (rescale, APG, perp-neg) stays untouched. Shapes: `cond` and every delta are (B, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch


@dataclass(frozen=True, slots=True)
class Estimator:
    """A named way to fill in the unconditional output.

    Args:
        name: as users type it.
        looks: how many guided evaluations it needs to have seen in this run.
        fill: `fill(cond, deltas)` -> uncond; `deltas` are cond - uncond of the last guided
            evaluations, newest last.
    """

    name: str
    looks: int
    fill: Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor]


def none(cond: torch.Tensor, deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """Uncond := cond. Guidance is off: any affine guidance formula becomes the identity."""
    return cond


def hold(cond: torch.Tensor, deltas: Sequence[torch.Tensor]) -> torch.Tensor:
    """Uncond := cond - delta, with the delta of the last guided evaluation.

    Guidance stays alive: u + s (c - u) = c + (s - 1) delta.
    """
    return cond - deltas[-1]


ESTIMATORS: Final[Mapping[str, Estimator]] = MappingProxyType(
    {e.name: e for e in (Estimator("none", 0, none), Estimator("hold", 1, hold))}
)
