"""`mag_cache`: MagCache as diffusers has it (arXiv 2506.09045).

It needs the magnitudes of this very model's residuals. They are measured as diffusers says, by one
run with `calibrate=True`, before the first picture and outside its time and its count.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from tgate_plugins._options import check_count, check_positive
from tgate_plugins.methods._pipes import backbone_of
from tgate_plugins.methods._restore import as_found
from tgate_plugins.methods._runs import Clock, clocked
from tgate_plugins.methods.diffusers_caches import (
    DiffusersCache,
    begin,
    enable,
    hooks,
    no_block_list,
    stateful,
)
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Setting

#: More calls than a run has: a calibration that is complete forgets what it measured.
ENDLESS: Final = 10**9

#: What was measured, by backbone and by what was asked.
_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Any, list[float]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class MagCache(DiffusersCache):
    """Blocks are skipped while the magnitude of their residual is known to change little.

    Args:
        threshold: the accumulated error that is accepted.
        longest: the most steps skipped in a row.
        retention: the share of the run at its start in which nothing is skipped.
        prompt: of the calibrating run, which has seed 0.
    """

    threshold: float = 0.06
    longest: int = 3
    retention: float = 0.2
    prompt: str = ""
    source = "diffusers, arXiv 2506.09045"
    maker = "MagCacheConfig"
    function = "apply_mag_cache"

    def __post_init__(self) -> None:
        check_positive(threshold=self.threshold)
        check_count(1, longest=self.longest)

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        if reason := no_block_list(pipe, "MagCache", fewest=1):
            return reason
        if getattr(pipe, "tokenizer", None) is None:
            return (
                f"MagCache is calibrated by a run of its own, and this {type(pipe).__name__} has "
                "no text encoder to read that run's prompt: load it whole."
            )
        return None

    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        ratios = self.calibrate(pipe, setting)
        return hooks().MagCacheConfig(
            threshold=self.threshold,
            max_skip_steps=self.longest,
            retention_ratio=self.retention,
            num_inference_steps=len(ratios),
            mag_ratios=torch.tensor(ratios),
        )

    def calibrate(self, pipe: Any, setting: Setting) -> list[float]:
        """The magnitude ratios of one full run, one a backbone call; measured once a setting."""
        scheduler = type(pipe.scheduler).__name__
        key = (setting, self.prompt, scheduler, str(pipe.scheduler.config))
        known = _MEASURED.setdefault(backbone_of(pipe), {})
        if key not in known:
            known[key] = measure(pipe, setting, self.prompt)
        return known[key]


def measure(pipe: Any, setting: Setting, prompt: str) -> list[float]:
    """The calibrating run."""
    backbone = backbone_of(pipe)
    config = hooks().MagCacheConfig(calibrate=True, num_inference_steps=ENDLESS)
    found: list[float] = []

    def note(*_: Any) -> None:  # after each call: the pipeline may reset the hooks when it ends
        states = (h.state_manager for h in stateful(backbone) if hasattr(h, "state_manager"))
        manager = next(states)
        kept = [s.calibration_ratios for s in manager._state_cache.values()]
        found[:] = max(kept, key=len, default=[])

    with as_found(pipe), clocked(pipe, lambda: begin(backbone)):
        enable(backbone, config, MagCache.function)
        backbone.register_forward_hook(note)
        pipe(
            prompt=prompt,
            num_inference_steps=setting.steps,
            guidance_scale=setting.guidance_scale,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )
    return found


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("mag_cache", MagCache)
