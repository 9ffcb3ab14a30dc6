"""Tiny transformers of diffusers with joint attention over packed latents, a token a patch."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import (
    Keywords,
    Tiny,
    each,
    grid,
    mask,
    per_row,
    same,
    table,
    thousandth,
    tiny,
)

TEXT = 12
TOKENS = 5
SIDE = 4
PATCHES = SIDE * SIDE

HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
FLUX = HEADS | {
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT,
    "pooled_projection_dim": 6,
    "axes_dims_rope": (2, 2, 4),
}
FLUX2 = HEADS | {
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT,
    "timestep_guidance_channels": 8,
    "mlp_ratio": 2.0,
    "axes_dims_rope": (2, 2, 2, 2),
}
FLUX3 = HEADS | {
    "in_channels": 4,
    "cond_in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT,
    "timestep_channels": 8,
    "mlp_ratio": 2.0,
    "axes_dims_rope": (2, 2, 2, 2),
}
CHROMA = HEADS | {
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (2, 2, 4),
    "approximator_num_channels": 8,
    "approximator_hidden_dim": 16,
    "approximator_layers": 1,
}
QWEN = HEADS | {
    "in_channels": 4,
    "out_channels": 1,
    "num_layers": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (2, 2, 4),
}
PLAIN = HEADS | {
    "in_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (2, 2, 4),
}
NUCLEUS = HEADS | {
    "in_channels": 4,
    "out_channels": 1,
    "num_layers": 2,
    "joint_attention_dim": TEXT,
    "axes_dims_rope": (2, 2, 4),
    # Hidden layers come in multiples of 128.
    "mlp_ratio": 12.0,
    "moe_enabled": False,
}
NUCLEUS_MOE = NUCLEUS | {
    "moe_enabled": True,
    "dense_moe_strategy": "leave_first_block_dense",
    "num_experts": 3,
    "moe_intermediate_dim": 16,
    "capacity_factors": 2.0,
}
KREA2 = {
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "timestep_embed_dim": 8,
    "text_hidden_dim": TEXT,
    "num_text_layers": 2,
    "text_num_attention_heads": 2,
    "text_num_key_value_heads": 2,
    "text_intermediate_size": 16,
    "num_layerwise_text_blocks": 1,
    "num_refiner_text_blocks": 1,
    "axes_dims_rope": (4, 2, 2),
}
QWEN21 = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "context_in_dim": TEXT,
    "mlp_ratio": 2,
    "axes_dims_rope": (2, 2, 4),
}
IDEOGRAM = {
    "in_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "adaln_dim": 8,
    "llm_features_dim": TEXT,
    "mrope_section": (2, 1, 1),
}
IDEOGRAM_TEXT, IDEOGRAM_IMAGE = 3, 2


def packed(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, PATCHES, 4),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def placed(rows: int, axes: int = 3) -> Keywords:
    """With position ids, which are one table for all rows."""
    return packed(rows) | {
        "img_ids": grid(SIDE, SIDE, axes),
        "txt_ids": torch.zeros(TOKENS, axes),
    }


def flux(rows: int) -> Keywords:
    return placed(rows) | {"pooled_projections": each(rows, 6, seed=2)}


def flux_dev(rows: int) -> Keywords:
    return flux(rows) | {"guidance": torch.full((rows,), 3.5)}


def flux2(rows: int) -> Keywords:
    """Position ids with a row dimension, equal in all rows."""
    given = placed(rows, 4)
    ids = {name: given[name].repeat(rows, 1, 1) for name in ("img_ids", "txt_ids")}
    return given | ids | {"guidance": torch.full((rows,), 4.0)}


def flux3(rows: int) -> Keywords:
    return placed(rows, 4)


def chroma(rows: int) -> Keywords:
    image = torch.ones(rows, PATCHES)
    return placed(rows) | {"attention_mask": torch.cat([mask(rows, TOKENS), image], 1).bool()}


def bria(rows: int) -> Keywords:
    return placed(rows)


def fibo(rows: int) -> Keywords:
    """The prompt also comes layer by layer, as a list; the mask hides in a dict."""
    ones = torch.cat([mask(rows, TOKENS), torch.ones(rows, PATCHES)], 1)
    pairs = torch.einsum("ri,rj->rij", ones, ones)[:, None]  # (R, 1, tokens, tokens)
    bias = torch.where(pairs == 1, 0.0, float("-inf"))
    return placed(rows) | {
        "text_encoder_layers": [each(rows, TOKENS, 10, seed=2 + i) for i in range(3)],
        "joint_attention_kwargs": {"attention_mask": bias.nan_to_num(neginf=-1e4)},
    }


def shaped(rows: int) -> Keywords:
    """Sizes are a list with an entry a row."""
    return packed(rows) | {
        "encoder_hidden_states_mask": mask(rows, TOKENS, torch.bool),
        "img_shapes": [[(1, SIDE, SIDE)]] * rows,
    }


def qwen21(rows: int) -> Keywords:
    """The prompt ends with slots for the image, each of four latent tokens."""
    slots = torch.arange(TOKENS + PATCHES // 4) >= TOKENS
    return shaped(rows) | {"img_mask": slots.repeat(rows, 1)}


def krea2(rows: int) -> Keywords:
    text = torch.zeros(TOKENS, 3)
    return {
        "hidden_states": same(rows, PATCHES, 4),
        "encoder_hidden_states": each(rows, TOKENS, 2, TEXT),
        "position_ids": torch.cat([text, grid(SIDE, SIDE)]),
        "encoder_attention_mask": mask(rows, TOKENS, torch.bool),
    }


def ideogram(rows: int) -> Keywords:
    """One sequence of text and image slots, with both streams padded to its length."""
    pad = torch.nn.functional.pad
    places = torch.cat([torch.zeros(TOKENS, 3), grid(SIDE, SIDE)]).long()
    roles = torch.tensor([IDEOGRAM_TEXT] * TOKENS + [IDEOGRAM_IMAGE] * PATCHES)
    return {
        "hidden_states": pad(same(rows, PATCHES, 4), (0, 0, TOKENS, 0)),
        "encoder_hidden_states": pad(each(rows, TOKENS, TEXT), (0, 0, 0, PATCHES)),
        "position_ids": places.repeat(rows, 1, 1),
        "segment_ids": torch.zeros(rows, TOKENS + PATCHES, dtype=torch.long),
        "indicator": roles.repeat(rows, 1),
    }


def joint(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(name, config, inputs, facts.pop("timestep", per_row(scale=thousandth)), **facts)


MODELS = table(
    [
        joint("FluxTransformer2DModel", FLUX, flux, joints=3, text=("encoder_hidden_states",)),
        joint(
            "FluxTransformer2DModel:dev",
            FLUX | {"guidance_embeds": True},
            flux_dev,
            joints=3,
            rows=1,
            note="guidance is an input: no uncond rows",
        ),
        joint(
            "Flux2Transformer2DModel", FLUX2, flux2, joints=3, rows=1, note="guidance is an input"
        ),
        joint("Flux3Transformer2DModel", FLUX3, flux3, selfs=1, joints=2, texts=1),
        joint("ChromaTransformer2DModel", CHROMA, chroma, joints=3),
        joint("BriaTransformer2DModel", PLAIN, bria, joints=3, timestep=per_row()),
        joint(
            "BriaFiboTransformer2DModel",
            PLAIN | {"text_encoder_dim": 10},
            fibo,
            joints=3,
            timestep=per_row(),
            text=("encoder_hidden_states", "text_encoder_layers"),
        ),
        joint("OvisImageTransformer2DModel", PLAIN | {"out_channels": 4}, placed, joints=3),
        joint(
            "LongCatImageTransformer2DModel", PLAIN | {"pooled_projection_dim": 6}, placed, joints=3
        ),
        joint(
            "QwenImageTransformer2DModel", QWEN, shaped, joints=2, note="img_shapes: an entry a row"
        ),
        joint("QwenImage21Transformer2DModel", QWEN21, qwen21, joints=2),
        joint(
            "NucleusMoEImageTransformer2DModel",
            NUCLEUS,
            shaped,
            joints=2,
            note="img_shapes: an entry a row",
        ),
        joint("NucleusMoEImageTransformer2DModel:moe", NUCLEUS_MOE, shaped, joints=2),
        joint("Krea2Transformer2DModel", KREA2, krea2, joints=2, texts=2),
        joint(
            "Ideogram4Transformer2DModel",
            IDEOGRAM,
            ideogram,
            joints=2,
            rows=1,
            note="guidance runs another transformer: no uncond rows",
        ),
    ]
)
