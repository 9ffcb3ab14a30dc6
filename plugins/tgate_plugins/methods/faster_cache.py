"""`faster_cache`: FasterCache as diffusers has it (arXiv 2410.19355)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import backbone_of, is_unet, one_branch, separate_calls
from tgate_plugins.methods._runs import Clock
from tgate_plugins.methods.diffusers_caches import DiffusersCache, hooks
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Setting


@dataclass(frozen=True)
class FasterCache(DiffusersCache):
    """Self-attention is extrapolated, and the unconditional output is rebuilt from frequencies.

    All further numbers are diffusers' own.

    Args:
        spatial: self-attention is computed in one call of so many.
        uncond: the unconditional branch runs in one call of so many.
    """

    spatial: int = 2
    uncond: int = 5
    source = "diffusers, arXiv 2410.19355"
    maker = "FasterCacheConfig"
    function = "apply_faster_cache"

    def __post_init__(self) -> None:
        check_count(1, spatial=self.spatial, uncond=self.uncond)

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        kind = type(backbone_of(pipe)).__name__
        if is_unet(pipe):
            return (
                f"FasterCache halves what a call passes by position, and {kind} is passed its "
                "timestep so, a tensor of no dimension."
            )
        if getattr(backbone_of(pipe), "use_additional_conditions", False):
            return (
                f"FasterCache halves no added_cond_kwargs, and this {kind} is passed the picture's "
                "resolution and aspect ratio in them."
            )
        if separate_calls(pipe):
            return (
                f"FasterCache needs both branches in one call, and {type(pipe).__name__} calls its "
                "backbone once a branch."
            )
        return None

    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        return hooks().FasterCacheConfig(
            spatial_attention_block_skip_range=self.spatial,
            unconditional_batch_skip_range=self.uncond,
            attention_weight_callback=lambda _: 0.5,  # diffusers' own, said so that it keeps quiet
            tensor_format="BCHW",
            is_guidance_distilled=one_branch(pipe, setting) is not None,
            current_timestep_callback=lambda: clock.timestep,
        )

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        speaker = logging.getLogger("diffusers.hooks.faster_cache")
        with warnings.catch_warnings():
            # It calls meshgrid without the argument that torch will ask for one day.
            warnings.filterwarnings("ignore", "torch.meshgrid", UserWarning)
            before, speaker.disabled = speaker.disabled, True  # "purely experimental"
            try:
                with super().apply(pipe, setting) as applied:
                    yield applied
            finally:
                speaker.disabled = before


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("faster_cache", FasterCache)
