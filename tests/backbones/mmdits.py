"""Tiny transformers of diffusers with joint attention over images: (rows, channels, H, W)."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import (
    Keywords,
    Tiny,
    each,
    mask,
    per_row,
    same,
    table,
    thousandth,
    tiny,
)

TEXT = 12
TOKENS = 5
PATCHES = 16
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
WIDTH = 16
SD3 = HEADS | {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "joint_attention_dim": TEXT,
    "caption_projection_dim": WIDTH,
    "pooled_projection_dim": 6,
    "pos_embed_max_size": 4,
}
AURA = HEADS | {
    "sample_size": 8,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 2,
    "joint_attention_dim": TEXT,
    "caption_projection_dim": WIDTH,
    "pos_embed_max_size": 16,
}
COGVIEW = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "text_embed_dim": TEXT,
    "time_embed_dim": 8,
    "condition_dim": 4,
    "sample_size": 8,
    "pos_embed_max_size": 8,
}
HIDREAM = HEADS | {
    "patch_size": 2,
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "caption_channels": [10, TEXT],
    "text_emb_dim": 6,
    "num_routed_experts": 2,
    "num_activated_experts": 1,
    "axes_dims_rope": (4, 2, 2),
    "max_resolution": (8, 8),
    "llama_layers": [0, 1, 2],
}
HUNYUAN_IMAGE = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "patch_size": (2, 2),
    "text_embed_dim": TEXT,
    "rope_axes_dim": (4, 4),
}
GLM = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "text_embed_dim": TEXT,
    "time_embed_dim": 8,
    "condition_dim": 4,
    "prior_vq_quantizer_codebook_size": 20,
}


def image(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def sd3(rows: int) -> Keywords:
    return image(rows) | {"pooled_projections": each(rows, 6, seed=2)}


def masked(rows: int) -> Keywords:
    return image(rows) | {"encoder_attention_mask": mask(rows, TOKENS, torch.bool)}


def cogview(rows: int) -> Keywords:
    size = torch.tensor([[64.0, 64.0]]).repeat(rows, 1)
    return image(rows) | {
        "original_size": size,
        "target_size": size,
        "crop_coords": torch.zeros(rows, 2),
    }


def hidream(rows: int) -> Keywords:
    llama = torch.stack([each(rows, TOKENS, TEXT, seed=2 + layer) for layer in range(3)])
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states_t5": each(rows, TOKENS, 10),
        "encoder_hidden_states_llama3": llama,  # (layers, R, tokens, channels)
        "pooled_embeds": each(rows, 6, seed=9),
    }


def controlled(rows: int) -> Keywords:
    return sd3(rows) | {"block_controlnet_hidden_states": [same(rows, PATCHES, WIDTH, seed=3)]}


def glm(rows: int) -> Keywords:
    given = cogview(rows)
    del given["original_size"]
    return given | {
        "prior_token_id": torch.arange(PATCHES).repeat(rows, 1),
        "prior_token_drop": torch.zeros(rows, PATCHES, dtype=torch.bool),
    }


def joint(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(name, config, inputs, facts.pop("timestep", per_row()), **facts)


MODELS = table(
    [
        joint("SD3Transformer2DModel", SD3, sd3, joints=2),
        joint(
            "SD3Transformer2DModel:dual",
            SD3 | {"dual_attention_layers": (0,), "qk_norm": "rms_norm"},
            sd3,
            selfs=1,
            joints=2,
            note="SD 3.5 medium: some blocks have a second attention, over the latents alone",
        ),
        joint(
            "SD3Transformer2DModel:controlnet",
            SD3,
            controlled,
            joints=2,
            note="residuals in a list",
        ),
        joint(
            "AuraFlowTransformer2DModel", AURA, image, joints=3, timestep=per_row(scale=thousandth)
        ),
        joint("CogView3PlusTransformer2DModel", COGVIEW, cogview, joints=2),
        joint("CogView4Transformer2DModel", COGVIEW | {"rope_axes_dim": (8, 8)}, cogview, joints=2),
        joint(
            "HiDreamImageTransformer2DModel",
            HIDREAM,
            hidream,
            joints=3,
            timestep=per_row("timesteps"),
            text=("encoder_hidden_states_t5", "encoder_hidden_states_llama3"),
            note="encoder_hidden_states_llama3 has its rows in the second dimension",
        ),
        joint("HunyuanImageTransformer2DModel", HUNYUAN_IMAGE, masked, joints=3, texts=1),
        joint(
            "GlmImageTransformer2DModel",
            GLM,
            glm,
            joints=2,
            timestep=per_row(scale=lambda t: t - 1),
        ),
    ]
)
