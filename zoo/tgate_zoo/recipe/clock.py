"""How long a training stage runs, and its learning rate over that time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Budget:
    """A limit in steps, in minutes, or both; whichever ends first ends the stage.

    `spent` is the training time of earlier runs in seconds, so that a resumed stage goes on where
    it stopped instead of starting its minutes again.
    """

    steps: int | None = None
    minutes: float | None = None
    spent: float = 0.0
    now: Callable[[], float] = time.monotonic
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("A training stage has no limit; give --steps or --minutes.")
        self._start = self.now()

    def seconds(self) -> float:
        """Training time so far, earlier runs included."""
        return self.spent + self.now() - self._start

    def progress(self, step: int) -> float:
        """How much of the budget is used after `step` steps, from 0 to 1."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = self.seconds() / (60 * self.minutes) if self.minutes is not None else 0.0
        return min(1.0, max(by_steps, by_time))


def warmup_cosine(step: int, progress: float, warmup: int, floor: float = 0.02) -> float:
    """Factor on the peak learning rate: linear over `warmup` steps, then a cosine to `floor`."""
    cosine = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / max(1, warmup)) * cosine
