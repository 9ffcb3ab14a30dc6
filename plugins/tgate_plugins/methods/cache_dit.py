"""`cache_dit`: DBCache by the package cache-dit, on the transformers it knows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_count, check_positive
from tgate_plugins.methods._pipes import is_unet, not_installed
from tgate_plugins.methods._restore import as_found, own_class
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting


@dataclass(frozen=True)
class CacheDit(Method):
    """The first blocks always run; where they change little, the others' residual is kept.

    Args:
        first: blocks that always run at the start; the package's 8 is for models of fifty.
        last: blocks that always run at the end.
        warm_up: full steps at the start.
        threshold: the relative change that counts as little; the package's own.
    """

    first: int = 1
    last: int = 0
    warm_up: int = 4
    threshold: float = 0.08
    part = "related"
    adapts = True
    source = "cache-dit"

    def __post_init__(self) -> None:
        check_count(1, first=self.first)
        check_count(0, last=self.last, warm_up=self.warm_up)
        check_positive(threshold=self.threshold)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        if is_unet(pipe):
            return f"cache-dit is for transformers, and does not support {type(pipe).__name__}."
        if reason := not_installed("cache_dit", "pip install --no-deps cache-dit"):
            return reason
        from cache_dit import BlockAdapterRegister

        if not BlockAdapterRegister.is_supported(pipe):
            return f"cache-dit has no BlockAdapter for {type(pipe).__name__}."
        return None

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        import cache_dit

        config = cache_dit.DBCacheConfig(
            Fn_compute_blocks=self.first,
            Bn_compute_blocks=self.last,
            max_warmup_steps=self.warm_up,
            residual_diff_threshold=self.threshold,
        )
        with as_found(pipe), _quiet():
            own_class(pipe)  # it replaces the call of the pipeline's class, for all of its kind
            cache_dit.enable_cache(pipe, cache_config=config)
            try:
                yield Applied(setting.steps, setting.guidance_scale)
            finally:
                cache_dit.disable_cache(pipe)  # lets go of what it keeps elsewhere


@contextmanager
def _quiet() -> Iterator[None]:
    """It tells of every step of enabling and disabling, on the error stream."""
    handlers = logging.getLogger("CACHE_DIT").handlers
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("cache_dit", CacheDit)
