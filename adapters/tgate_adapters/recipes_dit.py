"""How transformers with cross-attention are called, for pictures and sound.

For counting without weights, and for the conformance kit.
"""

from __future__ import annotations

from typing import Any

import torch

from tgate_adapters.description import Ask
from tgate_adapters.recipes_common import masked, picture, rotary, text

#: Latent frames of a minute of sound at 25 a second, as ACE-Step and LongCat count them.
MINUTE = 1500


def pixart(ask: Ask) -> dict[str, Any]:
    """PixArt-alpha (with micro-conditions where it was trained on them) and Sigma: own size."""
    config = ask.config
    added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    told = config.use_additional_conditions
    if config.sample_size == 128 if told is None else told:
        added = {"resolution": ask.new(ask.rows, 2), "aspect_ratio": ask.new(ask.rows, 1)}
    return {
        "hidden_states": picture(ask, config.in_channels),
        **masked(ask, config.caption_channels),
        "timestep": ask.steps(),
        "added_cond_kwargs": added,
    }


def hunyuan_dit(ask: Ask) -> dict[str, Any]:
    """HunyuanDiT: own size; both texts are as long as the configuration says, whatever is asked."""
    config, (high, wide) = ask.config, ask.size()
    tokens = (high // config.patch_size) * (wide // config.patch_size)
    lengths = {"": config.text_len, "_t5": config.text_len_t5}
    widths = {"": config.cross_attention_dim, "_t5": config.cross_attention_dim_t5}
    return {
        "hidden_states": picture(ask, config.in_channels),
        "timestep": ask.new(ask.rows),
        **{f"encoder_hidden_states{x}": ask.new(ask.rows, lengths[x], widths[x]) for x in lengths},
        **{f"text_embedding_mask{x}": ask.mask(ask.rows, lengths[x]) for x in lengths},
        "image_meta_size": ask.new(ask.rows, 6),
        "style": ask.steps(),
        "image_rotary_emb": rotary(ask, tokens, config.attention_head_dim),
    }


def sana(ask: Ask) -> dict[str, Any]:
    """Sana and Sana-Sprint: own size (32 latents are 1024 pixels)."""
    config = ask.config
    made = {
        "hidden_states": picture(ask, config.in_channels),
        **masked(ask, config.caption_channels),
        "timestep": ask.steps(),
    }
    return made | ({"guidance": ask.new(ask.rows)} if config.guidance_embeds else {})


def lumina_next(ask: Ask) -> dict[str, Any]:
    """Lumina-Next: own size; rotary embeddings are one table for sizes up to 384 patches."""
    config = ask.config
    half = config.hidden_size // config.num_attention_heads // 2
    return {
        "hidden_states": picture(ask, config.in_channels),
        "timestep": ask.steps(),
        **masked(ask, config.cross_attention_dim, "encoder_mask"),
        "image_rotary_emb": ask.like.new_ones((384, 384, half), dtype=torch.complex64),
        "cross_attention_kwargs": {},
    }


def dit(ask: Ask) -> dict[str, Any]:
    """DiT, with a class in place of a text: own size (32 latents are 256 pixels)."""
    return {
        "hidden_states": picture(ask, ask.config.in_channels),
        "timestep": ask.steps(),
        "class_labels": ask.steps(),
    }


def stable_audio(ask: Ask) -> dict[str, Any]:
    """Stable Audio: own length, 1024 latents; `width` asks for another. One timestep for all."""
    config = ask.config
    length = ask.width or config.sample_size
    return {
        "hidden_states": ask.new(ask.rows, config.in_channels, length),
        "timestep": ask.steps(1),
        "encoder_hidden_states": text(ask, config.cross_attention_input_dim),
        "global_hidden_states": ask.new(ask.rows, 1, config.global_states_input_dim),
        "rotary_embedding": rotary(ask, length + 1, config.attention_head_dim // 2),
    }


def stable_audio_3(ask: Ask) -> dict[str, Any]:
    """Stable Audio 3: 1024 latents; `width` asks for another length."""
    config = ask.config
    return {
        "hidden_states": ask.new(ask.rows, config.io_channels, ask.width or 1024),
        "timestep": ask.steps(),
        **masked(ask, config.cond_token_dim),
        "global_hidden_states": ask.new(ask.rows, config.global_cond_dim),
    }


def ace_step(ask: Ask) -> dict[str, Any]:
    """ACE-Step: a minute of sound; `width` asks for another number of latents."""
    config, length = ask.config, ask.width or MINUTE
    channels = config.audio_acoustic_hidden_dim
    return {
        "hidden_states": ask.new(ask.rows, length, channels),
        "timestep": ask.new(ask.rows),
        "timestep_r": ask.new(ask.rows),
        "encoder_hidden_states": text(ask, config.encoder_hidden_size or config.hidden_size),
        "context_latents": ask.new(ask.rows, length, config.in_channels - channels),
    }


def longcat_audio(ask: Ask) -> dict[str, Any]:
    """LongCat's sound: 30 s are 350 latents; `width` asks for another number."""
    config, length = ask.config, ask.width or 350
    return {
        "hidden_states": ask.new(ask.rows, length, config.latent_dim),
        **masked(ask, config.dit_text_dim),
        "timestep": ask.steps(),
        "attention_mask": ask.mask(ask.rows, length),
        "latent_cond": ask.new(ask.rows, length, config.latent_dim),
    }
