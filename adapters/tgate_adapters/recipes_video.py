"""How transformers with cross-attention are called for video, for counting without weights.

`height` and `width` are of the latents; the number of frames is the pipeline's own default.
"""

from __future__ import annotations

from typing import Any

import torch

from tgate_adapters.description import Ask
from tgate_adapters.recipes_common import (
    indices,
    masked,
    never_without_weights,
    rotary,
    text,
    video,
)

#: 81 frames of 480x832 pixels, eight pixels a latent and four frames a latent one: Wan's default.
FRAMES, SIZE = 21, (60, 104)
#: Tokens of an image in CLIP's vision tower.
IMAGE = 257


def wan(ask: Ask) -> dict[str, Any] | None:
    """Wan, ChronoEdit: 81 frames of 480x832; None for first and last frame, which come in twos."""
    config = ask.config
    if config.pos_embed_seq_len is not None:
        return None
    return {
        "hidden_states": video(ask, config.in_channels, _frames(ask), SIZE),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, config.text_dim),
    } | _image(ask)


def wan_vace(ask: Ask) -> dict[str, Any] | None:
    """Wan VACE: 81 frames of 480x832, and as many that control it."""
    config, made = ask.config, wan(ask)
    return made and made | {
        "control_hidden_states": video(ask, config.vace_in_channels, _frames(ask), SIZE),
        "control_hidden_states_scale": ask.new(len(config.vace_layers)),
    }


def wan_animate(ask: Ask) -> dict[str, Any] | None:
    """Wan Animate: a segment of 77 frames of 720x1280 with a face for each, and a frame before."""
    config, frames, size = ask.config, _frames(ask), (90, 160)
    if config.pos_embed_seq_len is not None:
        return None
    side, pixels = config.motion_encoder_size, 4 * (frames - 2) + 1
    return {
        "hidden_states": video(ask, config.in_channels, frames, size),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, config.text_dim),
        "pose_hidden_states": video(ask, config.latent_channels, frames - 1, size),
        "face_pixel_values": ask.new(ask.rows, 3, pixels, side, side),
    } | _image(ask)


def skyreels(ask: Ask) -> dict[str, Any] | None:
    """SkyReels V2, all frames at one timestep: 97 frames of 544x960."""
    config = ask.config
    if config.pos_embed_seq_len is not None:
        return None
    made = {
        "hidden_states": video(ask, config.in_channels, _frames(ask, 25), (68, 120)),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, config.text_dim),
    }
    return made | _image(ask) | ({"fps": [0] * ask.rows} if config.inject_sample_info else {})


def anyflow(ask: Ask) -> dict[str, Any]:
    """AnyFlow: 81 frames of 480x832, frames before channels, two timesteps a frame."""
    config, frames = ask.config, _frames(ask)
    return {
        "hidden_states": ask.new(ask.rows, frames, config.in_channels, *ask.size(SIZE)),
        "timestep": ask.new(ask.rows, frames),
        "r_timestep": ask.new(ask.rows, frames),
        "encoder_hidden_states": text(ask, config.text_dim),
    } | _image(ask)


@never_without_weights
def anyflow_far(ask: Ask) -> dict[str, Any]:
    """AnyFlow FAR: a chunk of 480x832, the first one, with nothing cached before it."""
    config, frames = ask.config, max(ask.config.chunk_partition)
    nothing = (2, ask.rows, config.num_attention_heads, 0, config.attention_head_dim)
    caches = ("compressed_cache", "full_cache")
    return {
        "hidden_states": ask.new(ask.rows, frames, config.in_channels, *ask.size(SIZE)),
        "timestep": ask.new(ask.rows, frames),
        "r_timestep": ask.new(ask.rows, frames),
        "encoder_hidden_states": text(ask, config.text_dim),
        "chunk_partition": [frames],
        "kv_cache": [{c: ask.new(*nothing) for c in caches} for _ in range(config.num_layers)],
        "kv_cache_flag": {"num_cached_chunks": 0, "is_cache_step": False},
    } | _image(ask)


@never_without_weights
def helios(ask: Ask) -> dict[str, Any]:
    """Helios: a chunk of 33 frames of 384x640, and 20 latent frames before it at three scales."""
    config, size, history = ask.config, (48, 80), {"long": 16, "mid": 2, "short": 2}
    channels = config.in_channels
    return {
        "hidden_states": video(ask, channels, 9, size),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, config.text_dim),
        "indices_hidden_states": indices(ask, ask.rows, 9),
        **{f"indices_latents_history_{k}": indices(ask, ask.rows, n) for k, n in history.items()},
        **{f"latents_history_{k}": video(ask, channels, n, size) for k, n in history.items()},
    }


def sana_video(ask: Ask) -> dict[str, Any]:
    """Sana-Video: 81 frames of 480x832."""
    config = ask.config
    made = {
        "hidden_states": video(ask, config.in_channels, _frames(ask), SIZE),
        **masked(ask, config.caption_channels),
        "timestep": ask.steps(),
    }
    return made | ({"guidance": ask.new(ask.rows)} if config.guidance_embeds else {})


def ltx(ask: Ask) -> dict[str, Any]:
    """LTX: 161 frames of 512x704, 32 pixels a latent and eight frames a latent one, packed."""
    frames, (high, wide) = 21, ask.size((16, 22))
    return {
        "hidden_states": ask.new(ask.rows, frames * high * wide, ask.config.in_channels),
        **masked(ask, ask.config.caption_channels),
        "timestep": ask.steps(),
        "num_frames": frames,
        "height": high,
        "width": wide,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def ltx2(ask: Ask) -> dict[str, Any]:
    """LTX-2: 121 frames of 512x768 and their five seconds of sound, all packed."""
    config, frames, sound, (high, wide) = ask.config, 16, 126, ask.size((16, 24))
    wide_text = {False: config.cross_attention_dim, True: config.caption_channels}
    wide_sound = {False: config.audio_cross_attention_dim, True: config.caption_channels}
    told = bool(config.use_prompt_embeddings)
    return {
        "hidden_states": ask.new(ask.rows, frames * high * wide, config.in_channels),
        "audio_hidden_states": ask.new(ask.rows, sound, config.audio_in_channels),
        **masked(ask, wide_text[told]),
        "audio_encoder_hidden_states": text(ask, wide_sound[told]),
        "audio_encoder_attention_mask": ask.mask(ask.rows, ask.tokens),
        "timestep": ask.new(ask.rows),
        "sigma": ask.new(ask.rows),
        "num_frames": frames,
        "height": high,
        "width": wide,
        "audio_num_frames": sound,
    }


def latte(ask: Ask) -> dict[str, Any]:
    """Latte: own size and length (16 frames of 512 pixels)."""
    config = ask.config
    return {
        "hidden_states": video(ask, config.in_channels, config.video_length, None),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, config.caption_channels),
    }


def allegro(ask: Ask) -> dict[str, Any]:
    """Allegro: own size and length (88 frames of 720x1280)."""
    config = ask.config
    own = (config.sample_height, config.sample_width)
    frames, (high, wide) = config.sample_frames, ask.size(own)
    sides = [frames // config.patch_size_t, high // config.patch_size, wide // config.patch_size]
    tokens, third = sides[0] * sides[1] * sides[2], config.attention_head_dim // 3
    return {
        "hidden_states": video(ask, config.in_channels, frames, own),
        **masked(ask, config.caption_channels),
        "timestep": ask.steps(),
        "image_rotary_emb": (
            tuple(rotary(ask, side, third) for side in sides),
            tuple(indices(ask, 1, tokens) for _ in sides),
        ),
    }


def cosmos(ask: Ask) -> dict[str, Any] | None:
    """Cosmos: 121 frames of 704x1280, eight pixels and eight frames; None where it sees images."""
    config, (high, wide) = ask.config, ask.size((88, 160))
    if config.img_context_dim_in:
        return None
    projects = config.use_crossattn_projection
    width = config.crossattn_proj_in_channels if projects else config.text_embed_dim
    made = {
        "hidden_states": video(ask, config.in_channels, min(16, config.max_size[0]), (high, wide)),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, width),
        "fps": 30,
    }
    pads = config.concat_padding_mask
    return made | ({"padding_mask": ask.new(1, 1, 8 * high, 8 * wide)} if pads else {})


def kandinsky_5(ask: Ask) -> dict[str, Any]:
    """Kandinsky 5: 121 frames of 512x768, channels last."""
    config, frames, (high, wide) = ask.config, 31, ask.size((64, 96))
    own = config.in_visual_dim
    channels = 2 * own + 1 if config.visual_cond else own
    patched = [n // p for n, p in zip((frames, high, wide), config.patch_size, strict=True)]
    return {
        "hidden_states": ask.new(ask.rows, frames, high, wide, channels),
        "encoder_hidden_states": text(ask, config.in_text_dim),
        "timestep": ask.steps(),
        "pooled_projections": ask.new(ask.rows, config.in_text_dim2),
        "visual_rope_pos": [indices(ask, side) for side in patched],
        "text_rope_pos": indices(ask, ask.tokens),
    }


def kandinsky_6(ask: Ask) -> dict[str, Any]:
    """Kandinsky 6: 121 frames of 512x768, channels last, and their five seconds of sound."""
    made = kandinsky_5(ask)
    del made["text_rope_pos"]
    return made | {
        "visual_rope_pos": tuple(made["visual_rope_pos"]),
        "audio_hidden_states": ask.new(ask.rows, 218, ask.config.in_audio_dim),
    }


def _frames(ask: Ask, own: int = FRAMES) -> int:
    """Latent frames of a call; a small model may have positions for fewer."""
    return min(own, int(ask.config.rope_max_seq_len))


def _image(ask: Ask) -> dict[str, torch.Tensor]:
    """The image of image-to-video, where the backbone was trained on one."""
    width = ask.config.image_dim
    return {} if width is None else {"encoder_hidden_states_image": ask.new(ask.rows, IMAGE, width)}
