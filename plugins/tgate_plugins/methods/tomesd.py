"""`tomesd`: token merging for UNets (the package tomesd, arXiv 2303.17604)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tgate_plugins._options import check_count
from tgate_plugins.methods._pipes import backbone_of, needs_unet, not_installed
from tgate_plugins.methods._restore import as_found
from tgate_plugins.methods._runs import clocked
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting


@dataclass(frozen=True)
class Tomesd(Method):
    """Similar tokens are merged before self-attention and spread out again after it.

    Which tokens may merge is drawn at random, from a fork of the process's own random state; here
    each run draws with a seed of its own, so that a picture does not hang on what was drawn before.

    Args:
        ratio: the share of tokens that is merged, at most 0.75.
        max_downsample: merge where the features are at most so many times smaller than the latents.
    """

    ratio: float = 0.5
    max_downsample: int = 1
    part = "related"
    source = "tomesd 0.1.3, arXiv 2303.17604"

    def __post_init__(self) -> None:
        check_count(1, max_downsample=self.max_downsample)
        if not 0 < self.ratio <= 0.75:
            raise OptionError(f"ratio={self.ratio!r} must be a share of tokens, above 0 to 0.75.")

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        return needs_unet(pipe, "tomesd") or not_installed(
            "tomesd", "pip install --no-deps tomesd==0.1.3"
        )

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        import tomesd

        backbone: Any = backbone_of(pipe)

        def begin() -> None:
            device = next(backbone.parameters()).device
            made = torch.Generator(device).manual_seed(0)
            backbone._tome_info["args"]["generator"] = made

        with as_found(pipe):
            tomesd.apply_patch(pipe, ratio=self.ratio, max_downsample=self.max_downsample)
            with clocked(pipe, begin):
                yield Applied(setting.steps, setting.guidance_scale)


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("tomesd", Tomesd)
