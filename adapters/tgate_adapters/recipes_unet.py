"""How UNets are called, as pipelines do it; for counting without weights."""

from __future__ import annotations

from typing import Any

import torch

from tgate_adapters.description import Ask

#: Frames where nobody says how many.
FRAMES = 16


def unet_2d(ask: Ask) -> dict[str, Any] | None:
    """SD-1.x, SD-2.x, SDXL and LCM; None for a configuration that takes more."""
    config = ask.config
    if not _plain(config):
        return None
    made: dict[str, Any] = {
        "sample": ask.new(ask.rows, config.in_channels, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, _text_width(config)),
    }
    if config.time_cond_proj_dim is not None:
        made["timestep_cond"] = ask.new(ask.rows, config.time_cond_proj_dim)
    if config.addition_embed_type == "text_time":
        made["added_cond_kwargs"] = _text_time(ask)
    return made


def unet_3d(ask: Ask) -> dict[str, Any]:
    """ModelScope's text-to-video."""
    return {
        "sample": ask.new(ask.rows, ask.config.in_channels, FRAMES, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, _text_width(ask.config)),
    }


def unet_motion(ask: Ask) -> dict[str, Any]:
    """AnimateDiff: the text is repeated for every frame."""
    return unet_3d(ask) | {
        "encoder_hidden_states": ask.new(ask.rows * FRAMES, ask.tokens, _text_width(ask.config))
    }


def unet_spatio_temporal(ask: Ask) -> dict[str, Any]:
    """Stable Video Diffusion: one token of an image embedding, three time ids."""
    config = ask.config
    frames = config.num_frames or FRAMES
    return {
        "sample": ask.new(ask.rows, frames, config.in_channels, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, 1, _text_width(config)),
        "added_time_ids": ask.new(ask.rows, 3),
    }


def i2vgen_xl(ask: Ask) -> dict[str, Any]:
    """I2VGen-XL: text, the first frame's latents and its embedding."""
    high, wide = ask.size()
    channels = ask.config.in_channels
    return {
        "sample": ask.new(ask.rows, channels, FRAMES, high, wide),
        "timestep": ask.steps(0),
        "fps": ask.steps(),
        "image_latents": ask.new(ask.rows, channels, FRAMES, high, wide),
        "image_embeddings": ask.new(ask.rows, ask.config.cross_attention_dim),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, ask.config.cross_attention_dim),
    }


def kandinsky_3(ask: Ask) -> dict[str, Any]:
    """Kandinsky 3: T5 text with a mask; 1024 pixels are 128 latents."""
    return {
        "sample": ask.new(ask.rows, ask.config.in_channels, *ask.size(128)),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, ask.config.encoder_hid_dim),
        "encoder_attention_mask": ask.mask(ask.rows, ask.tokens),
    }


def _text_width(config: Any) -> int:
    width = getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim
    return int(max(width) if isinstance(width, (tuple, list)) else width)


def _plain(config: Any) -> bool:
    """Whether a call needs no more than latents, text, and what SDXL and LCM add."""
    return (
        config.addition_embed_type in (None, "text", "text_time")
        and config.encoder_hid_dim_type in (None, "text_proj")
        and config.class_embed_type is None
        and config.num_class_embeds is None
    )


def _text_time(ask: Ask) -> dict[str, torch.Tensor]:
    """SDXL's pooled text and six time ids; together they are as wide as their projection takes."""
    ids, config = 6, ask.config
    pooled = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
    return {"text_embeds": ask.new(ask.rows, pooled), "time_ids": ask.new(ask.rows, ids)}
