"""How transformers with joint attention are called for pictures, for counting without weights."""

from __future__ import annotations

from typing import Any

from tgate_adapters.description import Ask
from tgate_adapters.recipes_common import (
    SIDE,
    grid,
    indices,
    masked,
    never_without_weights,
    packed,
    picture,
    placed,
    text,
)


def sd3(ask: Ask) -> dict[str, Any]:
    """Stable Diffusion 3 and 3.5: own size (128 latents are 1024 pixels)."""
    config = ask.config
    return {
        "hidden_states": picture(ask, config.in_channels),
        "encoder_hidden_states": text(ask, config.joint_attention_dim),
        "pooled_projections": ask.new(ask.rows, config.pooled_projection_dim),
        "timestep": ask.steps(),
    }


def flux(ask: Ask) -> dict[str, Any]:
    """Flux.1: 1024 pixels; the guidance scale where it is an input."""
    pooled = {"pooled_projections": ask.new(ask.rows, ask.config.pooled_projection_dim)}
    return placed(ask) | pooled | _guidance(ask)


def flux_2(ask: Ask) -> dict[str, Any]:
    """Flux.2: 1024 pixels; positions for every row, the same in all."""
    made = placed(ask)
    ids = {k: indices(ask, ask.rows, *made[k].shape) for k in ("img_ids", "txt_ids")}
    return made | ids | _guidance(ask)


def flux_3(ask: Ask) -> dict[str, Any]:
    """Flux.3: 1024 pixels; where the step ends, for one that was taught to take large ones."""
    return placed(ask) | ({"target_timestep": ask.new(ask.rows)} if ask.config.flow_map else {})


def plain(ask: Ask) -> dict[str, Any]:
    """Ovis and LongCat, in which Flux has no pooled text: 1024 pixels."""
    return placed(ask)


def chroma(ask: Ask) -> dict[str, Any]:
    """Chroma: 1024 pixels, and a mask over text and picture."""
    made = placed(ask)
    return made | {"attention_mask": ask.mask(ask.rows, ask.tokens + made["img_ids"].shape[0])}


def bria(ask: Ask) -> dict[str, Any]:
    """Bria: 1024 pixels, 16 of them to a latent."""
    return _bria(ask)


def bria_fibo(ask: Ask) -> dict[str, Any]:
    """Bria Fibo: 1024 pixels, 16 of them to a latent, and the text again for every block."""
    config, made = ask.config, _bria(ask)
    tokens = ask.tokens + made["img_ids"].shape[0]
    layers = range(config.num_layers + config.num_single_layers)
    return made | {
        "text_encoder_layers": [text(ask, config.text_encoder_dim) for _ in layers],
        "joint_attention_kwargs": {"attention_mask": ask.new(ask.rows, 1, tokens, tokens)},
    }


def qwen_image(ask: Ask) -> dict[str, Any] | None:
    """Qwen-Image: 1024 pixels; None for the layered one, which is told how many there are."""
    return None if ask.config.use_additional_t_cond else _shaped(ask)


def nucleus(ask: Ask) -> dict[str, Any] | None:
    """Nucleus: 1024 pixels; None without weights where experts are chosen by value."""
    return None if ask.config.moe_enabled and ask.like.is_meta else _shaped(ask)


def krea_2(ask: Ask) -> dict[str, Any]:
    """Krea 2: 1024 pixels, several layers of a text, one table of positions."""
    config, (high, wide) = ask.config, grid(ask)
    return {
        "hidden_states": ask.new(ask.rows, high * wide, config.in_channels),
        "encoder_hidden_states": ask.new(
            ask.rows, ask.tokens, config.num_text_layers, config.text_hidden_dim
        ),
        "encoder_attention_mask": ask.mask(ask.rows, ask.tokens),
        "timestep": ask.new(ask.rows),
        "position_ids": ask.new(ask.tokens + high * wide, 3),
    }


def z_image(ask: Ask) -> dict[str, Any]:
    """Z-Image: 1024 pixels; lists with an entry a row."""
    config, size = ask.config, ask.size(SIDE)
    return {
        "x": [ask.new(config.in_channels, 1, *size) for _ in range(ask.rows)],
        "t": ask.new(ask.rows),
        "cap_feats": [ask.new(ask.tokens, config.cap_feat_dim) for _ in range(ask.rows)],
    }


def aura_flow(ask: Ask) -> dict[str, Any]:
    """AuraFlow: 1024 pixels."""
    return {
        "hidden_states": picture(ask, ask.config.in_channels, SIDE),
        "encoder_hidden_states": text(ask, ask.config.joint_attention_dim),
        "timestep": ask.new(ask.rows),
    }


def cogview(ask: Ask) -> dict[str, Any]:
    """CogView 3 Plus and 4: own size (128 latents are 1024 pixels), and sizes to be told."""
    return {
        "hidden_states": picture(ask, ask.config.in_channels),
        "encoder_hidden_states": text(ask, ask.config.text_embed_dim),
        "timestep": ask.steps(),
        **{k: ask.new(ask.rows, 2) for k in ("original_size", "target_size", "crop_coords")},
    }


@never_without_weights
def glm_image(ask: Ask) -> dict[str, Any]:
    """GLM-Image: 1024 pixels, and a token of a codebook for each patch."""
    config, (high, wide) = ask.config, ask.size(SIDE)
    patches = (high // config.patch_size) * (wide // config.patch_size)
    return {
        "hidden_states": picture(ask, config.in_channels, (high, wide)),
        "encoder_hidden_states": text(ask, config.text_embed_dim),
        "prior_token_id": indices(ask, ask.rows, patches),
        "prior_token_drop": ask.mask(ask.rows, patches),
        "timestep": ask.steps(),
        **{k: ask.new(ask.rows, 2) for k in ("target_size", "crop_coords")},
    }


def hunyuan_image(ask: Ask) -> dict[str, Any]:
    """HunyuanImage: 2048 pixels, 32 of them to a latent; without the second text, of glyphs."""
    config = ask.config
    ends = {"timestep_r": ask.new(ask.rows)} if config.use_meanflow else {}
    return {
        "hidden_states": picture(ask, config.in_channels, (64, 64)),
        **masked(ask, config.text_embed_dim),
        "timestep": ask.new(ask.rows),
        **ends,
    } | _guidance(ask)


@never_without_weights
def lumina_2(ask: Ask) -> dict[str, Any]:
    """Lumina 2: own size (128 latents are 1024 pixels)."""
    return {
        "hidden_states": picture(ask, ask.config.in_channels),
        **masked(ask, ask.config.cap_feat_dim),
        "timestep": ask.new(ask.rows),
    }


@never_without_weights
def hidream(ask: Ask) -> dict[str, Any]:
    """HiDream: 1024 pixels, two texts, one of them layer by layer."""
    config = ask.config
    t5, llama = config.caption_channels
    return {
        "hidden_states": picture(ask, config.in_channels, SIDE),
        "timesteps": ask.steps(),
        "encoder_hidden_states_t5": text(ask, t5),
        "encoder_hidden_states_llama3": ask.new(
            1 + max(config.llama_layers), ask.rows, ask.tokens, llama
        ),
        "pooled_embeds": ask.new(ask.rows, config.text_emb_dim),
    }


@never_without_weights
def ernie_image(ask: Ask) -> dict[str, Any]:
    """ERNIE-Image: 1024 pixels, 16 of them to a latent."""
    config = ask.config
    return {
        "hidden_states": picture(ask, config.in_channels, (64, 64)),
        "timestep": ask.steps(),
        "text_bth": text(ask, config.text_in_dim),
        "text_lens": indices(ask, ask.rows),
    }


def prx(ask: Ask) -> dict[str, Any]:
    """PRX: 512 pixels."""
    return {
        "hidden_states": picture(ask, ask.config.in_channels, (64, 64)),
        "timestep": ask.new(ask.rows),
        **masked(ask, ask.config.context_in_dim, "attention_mask"),
    }


def joy_image_edit(ask: Ask) -> dict[str, Any]:
    """JoyImage: 1024 pixels, and one picture that is edited."""
    return {
        "hidden_states": ask.new(ask.rows, 2, ask.config.in_channels, 1, *ask.size(SIDE)),
        "timestep": ask.steps(),
        "encoder_hidden_states": text(ask, ask.config.text_dim),
    }


def _guidance(ask: Ask) -> dict[str, Any]:
    return {"guidance": ask.new(ask.rows)} if ask.config.guidance_embeds else {}


def _shaped(ask: Ask) -> dict[str, Any]:
    """Packed latents, and the size of each row's picture in tokens."""
    return packed(ask) | {
        "encoder_hidden_states_mask": ask.mask(ask.rows, ask.tokens),
        "img_shapes": [[(1, *grid(ask))]] * ask.rows,
    }


def _bria(ask: Ask) -> dict[str, Any]:
    """As Flux has it, with a token a latent."""
    high, wide = ask.size((64, 64))
    return placed(Ask(ask.config, ask.like, ask.rows, 2 * high, 2 * wide, ask.tokens))
