"""What all diffusers backbones share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

#: diffusers' own caches, by the beginning of their hooks' names.
CACHES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pyramid_attention_broadcast": "PyramidAttentionBroadcast",
        "faster_cache": "FasterCache",
        "fbc_": "FirstBlockCache",
        "mag_cache": "MagCache",
        "taylorseer_cache": "TaylorSeer",
        "sea_cache": "SeaCache",
    }
)


def diffusers_cache(backbone: nn.Module) -> str | None:
    """The name of the diffusers cache that is enabled on this backbone, or None."""
    for module in backbone.modules():
        registry = getattr(module, "_diffusers_hook", None)
        for hook in getattr(registry, "hooks", ()):
            for start, name in CACHES.items():
                if hook.startswith(start):
                    return name
    return None


def refuse_cache(backbone: nn.Module) -> str | None:
    """The sentence for a backbone with a diffusers cache, or None."""
    name = diffusers_cache(backbone)
    if name is None:
        return None
    return (
        f"diffusers' {name} is enabled on this {type(backbone).__name__}, and counts calls and "
        "keeps rows that a gate changes: disable it first, or leave the gating out."
    )
