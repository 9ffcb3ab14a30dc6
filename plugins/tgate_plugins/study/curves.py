"""How much attention still moves: each cross site's relative change, step by step, ungated.

It is the figure that T-GATE begins with (arXiv 2404.02747, figure 2), measured by our own signals.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import tgate_sampling as tg
from tgate_plugins.study.models import Loaded, call
from tgate_sampling.policy import Decider, Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Watch(Policy):
    """Closes nothing, and keeps what it is shown.

    Args:
        seen: filled with the signals that each step was told of; those of the step before it.
    """

    seen: list[Signals]
    gates: Collection[str] = ("cross",)
    signals: Collection[str] = ("cross",)

    def begin(self) -> Decider:
        self.seen.clear()
        return self.decide

    def decide(self, step: StepContext, signals: Signals) -> bool:
        self.seen.append(signals)
        return False


def measure(loaded: Loaded, prompt: str, seed: int) -> dict[str, list[float | None]]:
    """For each cross-attention site the relative change of its output from the step before.

    Args:
        loaded: the model.
        prompt: of the run.
        seed: of the run.

    Returns:
        As many values a site as the run had steps; None where there was nothing before to compare
        with (the first step) or nobody asked any more (the last one, after which no decision is
        made).
    """
    subject = loaded.subject
    watch = Watch([])
    with tg.gate(loaded.pipe, watch):
        call(loaded, prompt, seed, subject.steps, subject.guidance_scale)
    # What decision i is shown was measured in step i - 1.
    shown = [*watch.seen[1:], Signals()]
    sites = dict.fromkeys(
        name for signals in shown if "cross" in signals for name in signals["cross"].sites
    )
    return {name: [_change(signals, name) for signals in shown] for name in sites}


def _change(signals: Signals, name: str) -> float | None:
    site = signals["cross"].sites.get(name) if "cross" in signals else None
    return None if site is None else max(site.change)
