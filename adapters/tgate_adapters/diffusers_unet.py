"""diffusers' `UNet2DConditionModel`: SD-1.x, SD-2.x and what is built like them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl


class UNetAdapter(Adapter):
    """Sites are the `attn1` and `attn2` of every transformer block."""

    name = "diffusers-unet"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [
            Site(name, kind, module)
            for name, module in backbone.named_modules()
            if (kind := site_kind(name, module)) is not None
        ]

    def blueprint(self, backbone: Any) -> Callable[[], nn.Module] | None:
        made, config = type(backbone), dict(backbone.config)

        def build() -> nn.Module:
            with torch.device("meta"):
                module: nn.Module = made.from_config(config)
            return module.eval()

        return build


def site_kind(name: str, module: nn.Module) -> str | None:
    """Whether a module is a cross- or a self-attention site, before any forward.

    The name alone is not enough: a block with `only_cross_attention` reads the text in `attn1` too,
    and one with `double_self_attention` never does. Attention with added keys (DeepFloyd IF,
    unCLIP) is joint: text and image share one softmax.
    """
    if name.rpartition(".")[2] not in ("attn1", "attn2"):
        return None
    if getattr(module, "add_k_proj", None) is not None:
        return None
    return "cross" if getattr(module, "is_cross_attention", False) else "self"


@hookimpl
def tgate_register_adapters(register: RegisterAdapter) -> None:
    register("diffusers-unet", UNetAdapter, models=("UNet2DConditionModel",))
