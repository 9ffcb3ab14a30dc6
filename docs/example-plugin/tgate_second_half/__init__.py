"""One policy, as an outsider would ship it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tgate_sampling as tg


@dataclass(frozen=True)
class SecondHalf(tg.Policy):
    """Close guidance and cross-attention for the last `share` of the run."""

    name = "second_half"
    share: float = 0.5

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        return step.progress >= 1 - self.share

    def plan(self, total: int) -> list[bool]:
        # Optional: a policy that knows its whole run holds memory at its last open step only.
        first = math.ceil((1 - self.share) * total - 1e-9)
        return [index >= first for index in range(total)]


@tg.hookimpl
def tgate_register_policies(register: Any) -> None:
    register("second_half", SecondHalf)
