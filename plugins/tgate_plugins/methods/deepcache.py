"""`deepcache`: the package's own helper (DeepCache 0.1.1, arXiv 2312.00858)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import backbone_of, needs_unet, not_installed
from tgate_plugins.methods._restore import as_found
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting


@dataclass(frozen=True)
class DeepCache(Method):
    """Deep features are computed in every `interval`-th step and reused in between.

    Args:
        interval: one full step in so many.
        branch: where the UNet is cut; 0 leaves the shallowest layer.
    """

    interval: int = 3
    branch: int = 0
    part = "related"
    source = "DeepCache 0.1.1, arXiv 2312.00858"

    def __post_init__(self) -> None:
        check_count(1, interval=self.interval)
        check_count(0, branch=self.branch)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        if reason := needs_unet(pipe, "DeepCache"):
            return reason
        if getattr(backbone_of(pipe), "mid_block", None) is None:
            kind = type(pipe).__name__
            return f"DeepCache wraps a UNet's middle block, and the one of this {kind} has none."
        return not_installed("DeepCache", "pip install --no-deps DeepCache")

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        from DeepCache import DeepCacheSDHelper

        with as_found(pipe):
            helper = DeepCacheSDHelper(pipe=pipe)
            helper.set_params(cache_interval=self.interval, cache_branch_id=self.branch)
            helper.enable()
            yield Applied(setting.steps, setting.guidance_scale)


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("deepcache", DeepCache)
