"""diffusers' UNets: Stable Diffusion and what is built like it, in two and three dimensions.

Sites are the `attn1` and `attn2` of every transformer block, temporal ones included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from tgate_adapters import recipes_unet as recipes
from tgate_adapters._diffusers import DiffusersAdapter
from tgate_adapters.description import Backbone
from tgate_sampling.adapter import Site
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl

#: Branches to a block, as DeepCache's `cache_branch_id` counts them.
LAYERS = 3


def _takes_guidance(config: Any) -> bool:
    """LCM's UNet has the guidance scale as an input."""
    return getattr(config, "time_cond_proj_dim", None) is not None


TABLE = MappingProxyType(
    {
        about.model: about
        for about in (
            Backbone(
                "UNet2DConditionModel", recipes.unet_2d, sample="sample", embeds=_takes_guidance
            ),
            # Text comes in twice, from two encoders, with attention of its own each.
            Backbone("AudioLDM2UNet2DConditionModel", recipes.audioldm_2, sample="sample"),
            Backbone("UNetControlNetXSModel", recipes.controlnet_xs, sample="sample"),
            # A subclass of Stable Diffusion's without its skeleton: there is no block gate.
            Backbone("DreamLiteUNetModel", recipes.unet_2d, sample="sample"),
            Backbone("UNet3DConditionModel", recipes.unet_3d, sample="sample"),
            Backbone(
                "UNetMotionModel",
                recipes.unet_motion,
                sample="sample",
                folded=frozenset({"encoder_hidden_states", "added_cond_kwargs"}),
                embeds=_takes_guidance,
            ),
            Backbone(
                "UNetSpatioTemporalConditionModel",
                recipes.unet_spatio_temporal,
                sample="sample",
                negative="cond",  # what the reference calls negative there is the conditional image
            ),
            Backbone("I2VGenXLUNet", recipes.i2vgen_xl, sample="sample"),
            # Each block's first attention is to itself, and says of itself that it is cross; the
            # pooling of the text is called the same and is neither.
            Backbone(
                "Kandinsky3UNet",
                recipes.kandinsky_3,
                sample="sample",
                cross=("attentions.[1-9].attention",),
                selfs=("attentions.0.attention",),
                believes=False,
            ),
        )
    }
)


class UNetAdapter(DiffusersAdapter):
    """UNets; those with DeepCache's skeleton have a block gate too."""

    name = "diffusers-unet"
    table = TABLE

    def branches(self, backbone: Any) -> int:
        if self.about(backbone).model != "UNet2DConditionModel":
            return 0
        return LAYERS * len(backbone.down_blocks)

    def blocks(self, backbone: Any, branch: int) -> Sequence[Site]:
        block, layer = divmod(branch, LAYERS)
        deepest = len(backbone.down_blocks) - 1
        down = backbone.down_blocks[block]
        up_index = deepest - block
        up = backbone.up_blocks[up_index]
        inside = [
            *_layers(f"down_blocks.{block}", down, range(layer, len(down.resnets))),
            *_children(f"down_blocks.{block}.downsamplers", down.downsamplers),
            *_children("down_blocks", backbone.down_blocks, block + 1),
            ("mid_block", backbone.mid_block),
            *_children("up_blocks", backbone.up_blocks, 0, up_index),
            *_layers(f"up_blocks.{up_index}", up, range(len(up.resnets) - 1 - layer)),
        ]
        return [Site(name, "block", module) for name, module in inside if module is not None]


def _children(
    root: str, modules: Any, start: int = 0, stop: int | None = None
) -> list[tuple[str, nn.Module]]:
    """The modules of a list from `start` to `stop`, with their names."""
    return [(f"{root}.{i}", m) for i, m in enumerate(modules or ())][start:stop]


def _layers(root: str, block: Any, places: Iterable[int]) -> list[tuple[str, nn.Module]]:
    """Residual and attention layers of one block at the given places."""
    kinds = [k for k in ("resnets", "attentions") if getattr(block, k, None)]
    return [(f"{root}.{k}.{i}", getattr(block, k)[i]) for k in kinds for i in places]


@hookimpl
def tgate_register_adapters(register: RegisterAdapter) -> None:
    register("diffusers-unet", UNetAdapter, models=tuple(TABLE))
