"""`first_block_cache`: First Block Cache as diffusers has it, after ParaAttention's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_positive
from tgate_plugins.methods._runs import Clock
from tgate_plugins.methods.diffusers_caches import DiffusersCache, hooks, no_block_list
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Setting


@dataclass(frozen=True)
class FirstBlockCache(DiffusersCache):
    """Where the first block changes little, the others' residual is that of the step before.

    Args:
        threshold: the relative change of the first block's residual that counts as little.
    """

    threshold: float = 0.05
    adapts = True
    source = "diffusers, after ParaAttention"
    maker = "FirstBlockCacheConfig"
    function = "apply_first_block_cache"

    def __post_init__(self) -> None:
        check_positive(threshold=self.threshold)

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        return no_block_list(pipe, "FirstBlockCache", fewest=2)

    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        return hooks().FirstBlockCacheConfig(threshold=self.threshold)


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("first_block_cache", FirstBlockCache)
