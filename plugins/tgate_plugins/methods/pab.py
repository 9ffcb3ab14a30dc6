"""`pab`: Pyramid Attention Broadcast as diffusers has it (arXiv 2408.12588)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import separate_calls
from tgate_plugins.methods._runs import Clock
from tgate_plugins.methods.diffusers_caches import DiffusersCache, hooks
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Setting


@dataclass(frozen=True)
class PyramidAttentionBroadcast(DiffusersCache):
    """Attention outputs are reused for a number of calls, cross-attention's for longer.

    Args:
        spatial: self-attention is computed in one call of so many.
        cross: cross-attention is.
        low: reuse above this timestep,
        high: and below this one; both are diffusers' own.
    """

    spatial: int = 2
    cross: int = 6
    low: int = 100
    high: int = 800
    source = "diffusers, arXiv 2408.12588"
    maker = "PyramidAttentionBroadcastConfig"
    function = "apply_pyramid_attention_broadcast"

    def __post_init__(self) -> None:
        check_count(1, spatial=self.spatial, cross=self.cross)
        check_count(0, low=self.low, high=self.high)

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        if not separate_calls(pipe):
            return None
        return (
            f"{type(pipe).__name__} calls its backbone once a branch, and PAB keeps one output for "
            "both: the unconditional branch would be given the conditional one's."
        )

    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        window = (self.low, self.high)
        return hooks().PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=self.spatial,
            cross_attention_block_skip_range=self.cross,
            spatial_attention_timestep_skip_range=window,
            cross_attention_timestep_skip_range=window,
            current_timestep_callback=lambda: clock.timestep,
        )


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("pab", PyramidAttentionBroadcast)
