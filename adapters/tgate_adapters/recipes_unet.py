"""How UNets are called, as pipelines do it; for counting without weights."""

from __future__ import annotations

from typing import Any

import torch

from tgate_adapters.description import Ask

#: Frames where nobody says how many.
FRAMES = 16


def unet_2d(ask: Ask) -> dict[str, Any] | None:
    """SD-1.x, SD-2.x, SDXL and LCM: own size; None for a configuration that takes more."""
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


def audioldm_2(ask: Ask) -> dict[str, Any]:
    """AudioLDM 2: ten seconds of sound, 250 by 16 latents; both texts are as long as asked."""
    config = ask.config
    per_block = config.cross_attention_dim[0]
    widths = per_block if isinstance(per_block, (tuple, list)) else config.cross_attention_dim
    first, second = [width for width in widths if width is not None]
    return {
        "sample": ask.new(ask.rows, config.in_channels, *ask.size((250, 16))),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, first),
        "encoder_hidden_states_1": ask.new(ask.rows, ask.tokens, second),
        "encoder_attention_mask_1": ask.mask(ask.rows, ask.tokens),
    }


def controlnet_xs(ask: Ask) -> dict[str, Any] | None:
    """Stable Diffusion with ControlNet-XS: own size, and a picture to follow; None for SDXL's."""
    config, (high, wide) = ask.config, ask.size()
    if config.addition_embed_type is not None:
        return None
    scale = 2 ** (len(config.ctrl_conditioning_embedding_out_channels) - 1)
    channels = config.ctrl_conditioning_channels
    return {
        "sample": ask.new(ask.rows, 4, high, wide),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, config.cross_attention_dim),
        "controlnet_cond": ask.new(ask.rows, channels, scale * high, scale * wide),
    }


def unet_3d(ask: Ask) -> dict[str, Any]:
    """ModelScope's text-to-video: own size, 16 frames."""
    return {
        "sample": ask.new(ask.rows, ask.config.in_channels, FRAMES, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, _text_width(ask.config)),
    }


def unet_motion(ask: Ask) -> dict[str, Any]:
    """AnimateDiff: own size, 16 frames, for every one of which the text is repeated."""
    config, frames = ask.config, min(FRAMES, ask.config.motion_max_seq_length)
    return {
        "sample": ask.new(ask.rows, config.in_channels, frames, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows * frames, ask.tokens, _text_width(config)),
    }


def unet_spatio_temporal(ask: Ask) -> dict[str, Any]:
    """Stable Video Diffusion: own size and length, one token of an image, three time ids."""
    config = ask.config
    frames = config.num_frames or FRAMES
    return {
        "sample": ask.new(ask.rows, frames, config.in_channels, *ask.size()),
        "timestep": ask.steps(0),
        "encoder_hidden_states": ask.new(ask.rows, 1, _text_width(config)),
        "added_time_ids": ask.new(ask.rows, 3),
    }


def i2vgen_xl(ask: Ask) -> dict[str, Any]:
    """I2VGen-XL: own size, 16 frames; text, the first frame's latents and its embedding."""
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
    """Kandinsky 3: 1024 pixels, T5's text with a mask."""
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
