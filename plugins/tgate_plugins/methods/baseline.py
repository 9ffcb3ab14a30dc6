"""`ungated` and `fewer_steps`: the pipeline itself, which every method is measured against.

Whoever wants to go faster can simply sample with fewer steps, so this is the row to beat.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_count
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting


@dataclass(frozen=True)
class Ungated(Method):
    """The bare pipeline."""

    part = "baseline"

    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        return nullcontext(Applied(setting.steps, setting.guidance_scale))


@dataclass(frozen=True)
class FewerSteps(Method):
    """The bare pipeline with fewer steps.

    Args:
        steps: of the run.
    """

    steps: int
    part = "baseline"

    def __post_init__(self) -> None:
        check_count(1, steps=self.steps)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        if self.steps <= setting.steps:
            return None
        return f"steps={self.steps} is no fewer than the {setting.steps} of the ungated run."

    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        return nullcontext(Applied(self.steps, setting.guidance_scale))


def register(add: RegisterMethod) -> None:
    """Name them."""
    add("ungated", Ungated)
    add("fewer_steps", FewerSteps)
