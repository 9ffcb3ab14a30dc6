"""diffusers' `UNet2DConditionModel`: SD-1.x, SD-2.x and what is built like them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from tgate_adapters._diffusers import refuse_cache
from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.errors import MissingExtraError, OptionError
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl

#: Branches to a block, as DeepCache's `cache_branch_id` counts them.
LAYERS = 3


class UNetAdapter(Adapter):
    """Sites are the `attn1` and `attn2` of every transformer block."""

    name = "diffusers-unet"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [
            Site(name, kind, module)
            for name, module in backbone.named_modules()
            if (kind := site_kind(name, module)) is not None
        ]

    def refuses(self, backbone: nn.Module) -> str | None:
        return refuse_cache(backbone)

    def branches(self, backbone: Any) -> int:
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

    def blueprint(self, backbone: Any) -> Callable[[], nn.Module] | None:
        return partial(_weightless, type(backbone), dict(backbone.config))

    def build(self, config: Mapping[str, Any]) -> nn.Module | None:
        try:
            import diffusers
        except ImportError as error:
            raise MissingExtraError(
                "building a UNet from its configuration needs diffusers: "
                "pip install 'tgate-sampling[diffusers]'"
            ) from error
        return _weightless(getattr(diffusers, config["_class_name"]), dict(config))

    def guided(self, backbone: Any) -> bool:
        return backbone.config.time_cond_proj_dim is None

    def example_inputs(
        self,
        backbone: Any,
        *,
        rows: int,
        height: int | None = None,
        width: int | None = None,
        tokens: int = 77,
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        config = backbone.config
        if not _plain(config):
            return None
        like = next(backbone.parameters())
        high, wide = _latent_size(config.sample_size, height, width)
        text = config.encoder_hid_dim or config.cross_attention_dim
        text = max(text) if isinstance(text, (tuple, list)) else text
        keywords = {"encoder_hidden_states": like.new_empty(rows, tokens, text)}
        if config.time_cond_proj_dim is not None:
            keywords["timestep_cond"] = like.new_empty(rows, config.time_cond_proj_dim)
        if config.addition_embed_type == "text_time":
            keywords["added_cond_kwargs"] = _text_time(config, like, rows)
        sample = like.new_empty(rows, config.in_channels, high, wide)
        return (sample, like.new_empty((), dtype=torch.int64)), keywords


def _weightless(made: Any, config: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        module: nn.Module = made.from_config(config)
    return module.eval()


def _plain(config: Any) -> bool:
    """Whether a call needs no more than latents, text, and what SDXL and LCM add."""
    return (
        config.addition_embed_type in (None, "text", "text_time")
        and config.encoder_hid_dim_type in (None, "text_proj")
        and config.class_embed_type is None
        and config.num_class_embeds is None
    )


def _latent_size(own: Any, height: int | None, width: int | None) -> tuple[int, int]:
    """Height and width of the latents: what was asked for, or else the configuration's."""
    high, wide = own if isinstance(own, (tuple, list)) else (own, own)
    high, wide = height or high, width or wide
    if high is None or wide is None:
        raise OptionError("this UNet's configuration has no sample_size: pass height and width.")
    return int(high), int(wide)


def _text_time(config: Any, like: torch.Tensor, rows: int) -> dict[str, torch.Tensor]:
    """SDXL's pooled text and six time ids; together they are as wide as their projection takes."""
    ids = 6
    pooled = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
    return {"text_embeds": like.new_empty(rows, pooled), "time_ids": like.new_empty(rows, ids)}


def _children(
    root: str, modules: Any, start: int = 0, stop: int | None = None
) -> list[tuple[str, nn.Module]]:
    """The modules of a list from `start` to `stop`, with their names."""
    return [(f"{root}.{i}", m) for i, m in enumerate(modules or ())][start:stop]


def _layers(root: str, block: Any, places: Iterable[int]) -> list[tuple[str, nn.Module]]:
    """Residual and attention layers of one block at the given places."""
    kinds = [k for k in ("resnets", "attentions") if getattr(block, k, None)]
    return [(f"{root}.{k}.{i}", getattr(block, k)[i]) for k in kinds for i in places]


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
