"""Where in a run we are: one clock for every driver.

A driver *locates* each backbone call. Nothing here counts forward calls to guess a step, and
nothing is patched to learn it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

#: A noise level above this factor of the last one is a restart, not rounding.
RISE = 1.05


class Noise:
    """The noise level of one step, read when somebody asks, at most once.

    On an accelerator reading it may wait for the device; a policy that counts steps never does.

    Args:
        sigma: gives the noise level, sqrt((1 - a) / a) for a cumulative alpha a, or None.
        timestep: gives the model's own time coordinate, or None.
        span: gives (largest, smallest) positive sigma of the run; only for runs without a total.
    """

    def __init__(
        self,
        sigma: Callable[[], float | None] = lambda: None,
        timestep: Callable[[], float | None] = lambda: None,
        span: Callable[[], tuple[float, float] | None] = lambda: None,
    ) -> None:
        self._sigma, self._timestep, self._span = sigma, timestep, span

    @cached_property
    def sigma(self) -> float | None:
        return self._sigma()

    @cached_property
    def timestep(self) -> float | None:
        return self._timestep()

    @cached_property
    def log_progress(self) -> float:
        """How far the log of sigma has come from the largest to the smallest, 0 to 1."""
        span, sigma = self._span(), self.sigma
        if span is None or sigma is None or sigma <= 0 or span[0] <= span[1]:
            return 0.0
        done = (math.log(span[0]) - math.log(sigma)) / (math.log(span[0]) - math.log(span[1]))
        return min(1.0, max(0.0, done))


@dataclass(frozen=True, slots=True)
class StepContext:
    """One move of the sampler, as a policy sees it.

    Args:
        index: the step in this run, from 0.
        total: this run's own number of steps (after strength and denoising_end); None when the
            sampler chooses it as it goes, as `sample_dpm_adaptive` does.
        evaluation: which of the step's predictions this is, from 0 (Heun: 0 and 1).
        noise: where `sigma` and `timestep` are read from.

    >>> StepContext.at(5, 20, sigma=1.5).progress
    0.25
    """

    index: int
    total: int | None = None
    evaluation: int = 0
    noise: Noise = field(default_factory=Noise, repr=False, compare=False)

    @classmethod
    def at(
        cls,
        index: int,
        total: int | None = None,
        *,
        sigma: float | None = None,
        timestep: float | None = None,
        evaluation: int = 0,
    ) -> StepContext:
        """A context with given values: what tests of a policy need."""
        return cls(index, total, evaluation, Noise(lambda: sigma, lambda: timestep))

    @property
    def sigma(self) -> float | None:
        """Noise level, sqrt((1 - a) / a); None where the driver cannot know it."""
        return self.noise.sigma

    @property
    def timestep(self) -> float | None:
        """The model's own time coordinate; None where the driver cannot know it."""
        return self.noise.timestep

    @property
    def progress(self) -> float:
        """`index / total`, in 0 to 1; in log-sigma where there is no total."""
        if self.total:
            return min(1.0, self.index / self.total)
        return self.noise.log_progress


@dataclass(frozen=True, slots=True)
class Position:
    """Where one backbone call stands.

    Args:
        run: identifies the sampling run; another object is another run.
        step: the step and evaluation.
        call: number of this backbone call within its evaluation, from 0.
        calls: how many calls this evaluation makes, where the driver knows.
        rises: the noise level went up since the last step, as in restart sampling.
        last: nothing of this run comes after this call.
    """

    run: object
    step: StepContext
    call: int = 0
    calls: int | None = None
    rises: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Outside:
    """A backbone call that belongs to no run of this gating; it is computed in full."""

    reason: str


def gate_index(total: int, *, gate_step: int | None = None, fraction: float | None = None) -> int:
    """The first gated step of a run of `total` steps.

    >>> gate_index(25, gate_step=10), gate_index(25, fraction=0.4), gate_index(2, fraction=0.1)
    (10, 10, 1)
    """
    if gate_step is not None:
        return gate_step
    assert fraction is not None
    # 1e-9: 0.28 * 25 is 7.000000000000001 in floating point, and 7 steps are meant.
    return max(1, math.ceil(fraction * total - 1e-9))


def first_value(value: Any) -> float | None:
    """A tensor's first element as a float; waits for the device if the tensor lives on one."""
    if value is None:
        return None
    if hasattr(value, "flatten"):
        value = value.flatten()[0].item()
    return float(value)
