"""How transformers with joint attention are called for video, for counting without weights.

`height` and `width` are of the latents; the number of frames is the pipeline's own default.
"""

from __future__ import annotations

from typing import Any

from tgate_adapters.description import Ask
from tgate_adapters.recipes_common import (
    indices,
    masked,
    never_without_weights,
    rotary,
    text,
    video,
)

#: Tokens of an image in SigLIP's vision tower.
IMAGE = 729


def cogvideox(ask: Ask) -> dict[str, Any]:
    """CogVideoX: own size and length (49 frames of 480x720); the text is always padded in full."""
    config = ask.config
    own, step = (config.sample_height, config.sample_width), config.patch_size_t or 1
    frames, (high, wide) = (config.sample_frames - 1) // 4 + 1, ask.size(own)
    frames += -frames % step
    tokens = frames // step * (high // config.patch_size) * (wide // config.patch_size)
    made: dict[str, Any] = {
        "hidden_states": ask.new(ask.rows, frames, config.in_channels, high, wide),
        "encoder_hidden_states": ask.new(
            ask.rows, config.max_text_seq_length, config.text_embed_dim
        ),
        "timestep": ask.steps(),
    }
    if config.use_rotary_positional_embeddings:
        made["image_rotary_emb"] = rotary(ask, tokens, config.attention_head_dim)
    return made | ({"ofs": ask.new(1)} if config.ofs_embed_dim else {})


def hunyuan_video(ask: Ask) -> dict[str, Any]:
    """HunyuanVideo: 129 frames of 720x1280; the guidance scale where it is an input."""
    return _hunyuan(ask, 33)


@never_without_weights
def hunyuan_video_15(ask: Ask) -> dict[str, Any]:
    """HunyuanVideo 1.5: 121 frames of 480x848, 16 pixels a latent; a second text, and an image."""
    config, glyphs = ask.config, 256
    return {
        "hidden_states": video(ask, config.in_channels, 31, (30, 53)),
        "timestep": ask.new(ask.rows),
        **masked(ask, config.text_embed_dim),
        "encoder_hidden_states_2": ask.new(ask.rows, glyphs, config.text_embed_2_dim),
        "encoder_attention_mask_2": ask.mask(ask.rows, glyphs),
        "image_embeds": ask.new(ask.rows, IMAGE, config.image_embed_dim),
    } | ({"timestep_r": ask.new(ask.rows)} if config.use_meanflow else {})


@never_without_weights
def framepack(ask: Ask) -> dict[str, Any]:
    """FramePack: 33 frames of 720x1280, and 20 latent frames before them at three scales."""
    config, size = ask.config, (90, 160)
    history = {"latents_clean": 2, "latents_history_2x": 2, "latents_history_4x": 16}
    return (
        _hunyuan(ask, 9)
        | {name: video(ask, config.in_channels, n, size) for name, n in history.items()}
        | {f"indices_{name}": indices(ask, n) for name, n in history.items()}
        | {
            "indices_latents": indices(ask, 9),
            "image_embeds": ask.new(ask.rows, IMAGE, config.image_proj_dim),
        }
    )


@never_without_weights
def mochi(ask: Ask) -> dict[str, Any]:
    """Mochi: 19 frames of 480x848, eight pixels a latent and six frames a latent one."""
    return {
        "hidden_states": video(ask, ask.config.in_channels, 4, (60, 106)),
        **masked(ask, ask.config.text_embed_dim),
        "timestep": ask.steps(),
    }


def easy_animate(ask: Ask) -> dict[str, Any]:
    """EasyAnimate: 49 frames of 512x512."""
    return {
        "hidden_states": video(ask, ask.config.in_channels, 13, (64, 64)),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, ask.config.text_embed_dim),
    }


def motif_video(ask: Ask) -> dict[str, Any]:
    """Motif: 121 frames of 736x1280."""
    return {
        "hidden_states": video(ask, ask.config.in_channels, 31, (92, 160)),
        "timestep": ask.steps(),
        **masked(ask, ask.config.text_embed_dim),
    }


def _hunyuan(ask: Ask, frames: int) -> dict[str, Any]:
    config = ask.config
    made = {
        "hidden_states": video(ask, config.in_channels, frames, (90, 160)),
        "timestep": ask.steps(),
        **masked(ask, config.text_embed_dim),
        "pooled_projections": ask.new(ask.rows, config.pooled_projection_dim),
    }
    return made | ({"guidance": ask.new(ask.rows)} if config.guidance_embeds else {})
