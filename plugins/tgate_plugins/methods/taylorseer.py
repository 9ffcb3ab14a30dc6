"""`taylorseer`: TaylorSeer as diffusers has it (arXiv 2503.06923)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import backbone_of, is_unet
from tgate_plugins.methods._runs import Clock
from tgate_plugins.methods.diffusers_caches import DiffusersCache, hooks
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Setting

#: Attention by its usual names; diffusers' own pattern fits neither `attn1` nor `attn2`.
ATTENTION: Final = (r".*\.attn\d?",)


@dataclass(frozen=True)
class TaylorSeer(DiffusersCache):
    """The outputs of attention, or of the whole transformer, are extrapolated between full steps.

    Factors are kept in the backbone's own precision; diffusers' default is bfloat16.

    Args:
        interval: one full step in so many.
        warm_up: full steps at the start.
        order: of the Taylor series.
        lite: extrapolate the last projection and skip every block, instead of attention alone.
    """

    interval: int = 5
    warm_up: int = 3
    order: int = 1
    lite: bool = False
    source = "diffusers, arXiv 2503.06923"
    maker = "TaylorSeerCacheConfig"
    function = "apply_taylorseer_cache"

    def __post_init__(self) -> None:
        check_count(1, interval=self.interval, warm_up=self.warm_up)
        check_count(0, order=self.order)

    def cannot(self, pipe: Any, setting: Setting) -> str | None:
        if not (self.lite and is_unet(pipe)):
            return None
        kind = type(backbone_of(pipe)).__name__
        return (
            f"TaylorSeer's lite mode replaces blocks by zeros, and {kind}'s return nests of them."
        )

    def config(self, pipe: Any, setting: Setting, clock: Clock) -> Any:
        return hooks().TaylorSeerCacheConfig(
            cache_interval=self.interval,
            disable_cache_before_step=self.warm_up,
            max_order=self.order,
            taylor_factors_dtype=next(backbone_of(pipe).parameters()).dtype,
            cache_identifiers=None if self.lite else list(ATTENTION),
            use_lite_mode=self.lite,
        )


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("taylorseer", TaylorSeer)
