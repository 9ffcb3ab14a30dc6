"""Tiny diffusion transformers of diffusers with cross-attention: images and sound."""

from __future__ import annotations

import torch
from diffusers.models import embeddings

from tests.backbones.tiny import (
    Keywords,
    each,
    mask,
    per_row,
    reversed_thousandth,
    same,
    table,
    thousandth,
    tiny,
)

WIDTH = 16
HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
TEXT = 12
TOKENS = 5
TOKENS_T5 = 6
#: Three heads: a third of the width goes to each of three sizes.
PIXART = HEADS | {
    "num_attention_heads": 3,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": 24,
    "caption_channels": TEXT,
    "sample_size": 8,
}
HUNYUAN = HEADS | {
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 8,
    "hidden_size": WIDTH,
    "num_layers": 4,
    "mlp_ratio": 2.0,
    "cross_attention_dim": TEXT,
    "cross_attention_dim_t5": WIDTH,
    "pooled_projection_dim": 8,
    "text_len": TOKENS,
    "text_len_t5": TOKENS_T5,
}
SANA = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": WIDTH,
    "caption_channels": TEXT,
    "sample_size": 8,
}
LUMINA = {
    "sample_size": 8,
    "hidden_size": WIDTH,
    "num_layers": 2,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "cross_attention_dim": TEXT,
}
FIBO2 = {
    "in_channels": 4,
    "dim": 32,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "cap_feat_dim": TEXT,
    "injection_layer_ids": (0, 2),
    "perceiver_num_layers": 1,
    "min_num_gist_tokens": 2,
    "max_num_gist_tokens": 4,
    "gist_step": 1,
    "gist_min_text_len": 2,
    "gist_max_text_len": 8,
    "axes_dims": (8, 4, 4),
    "axes_lens": (16, 16, 16),
}


def image(rows: int, tokens: int = TOKENS) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states": each(rows, tokens, TEXT),
        "encoder_attention_mask": mask(rows, tokens),
    }


def alpha(rows: int) -> Keywords:
    sizes = {
        "resolution": torch.tensor([[64.0, 64.0]]).repeat(rows, 1),
        "aspect_ratio": torch.tensor([[1.0]]).repeat(rows, 1),
    }
    return image(rows) | {"added_cond_kwargs": sizes}


def sigma(rows: int) -> Keywords:
    return image(rows) | {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}


def hunyuan(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "text_embedding_mask": mask(rows, TOKENS),
        "encoder_hidden_states_t5": each(rows, TOKENS_T5, WIDTH, seed=2),
        "text_embedding_mask_t5": mask(rows, TOKENS_T5),
        "image_meta_size": torch.tensor([[64.0, 64.0, 64.0, 64.0, 0.0, 0.0]]).repeat(rows, 1),
        "style": torch.zeros(rows, dtype=torch.long),
        "image_rotary_emb": embeddings.get_2d_rotary_pos_embed(
            8, ((0, 0), (4, 4)), (4, 4), output_type="pt"
        ),
    }


def sprint(rows: int) -> Keywords:
    return image(rows) | {"guidance": torch.full((rows,), 4.5)}


def lumina(rows: int) -> Keywords:
    given = image(rows)
    given["encoder_mask"] = given.pop("encoder_attention_mask")
    rotary = embeddings.get_2d_rotary_pos_embed_lumina(8, 384, 384)
    return given | {"image_rotary_emb": rotary, "cross_attention_kwargs": {}}


def fibo2(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states": each(rows, 3, TOKENS, TEXT),
        "encoder_attention_mask": mask(rows, TOKENS, torch.bool),
    }


MODELS = table(
    [
        tiny(
            "PixArtTransformer2DModel",
            PIXART | {"use_additional_conditions": True},
            alpha,
            per_row(),
            cross=2,
            selfs=2,
        ),
        tiny(
            "PixArtTransformer2DModel:sigma",
            PIXART | {"use_additional_conditions": False},
            sigma,
            per_row(),
            cross=2,
            selfs=2,
        ),
        tiny(
            "HunyuanDiT2DModel",
            HUNYUAN,
            hunyuan,
            per_row(),
            cross=4,
            selfs=4,
            texts=1,
            text=("encoder_hidden_states", "encoder_hidden_states_t5"),
        ),
        tiny("SanaTransformer2DModel", SANA, image, per_row(), cross=2, selfs=2),
        tiny(
            "SanaTransformer2DModel:sprint",
            SANA | {"guidance_embeds": True, "qk_norm": "rms_norm_across_heads"},
            sprint,
            per_row(),
            cross=2,
            selfs=2,
            rows=1,
            note="guidance is an input: no uncond rows",
        ),
        tiny(
            "LuminaNextDiT2DModel",
            LUMINA,
            lumina,
            per_row(scale=reversed_thousandth),
            cross=2,
            selfs=2,
            note="cond rows first; a cross site's output is (rows, tokens, heads, channels)",
        ),
        tiny(
            "BriaFibo2Transformer2DModel",
            FIBO2,
            fibo2,
            per_row(scale=thousandth),
            cross=2,
            selfs=1,
            joints=3,
            texts=2,
            note="encoder_hidden_states: (rows, layers, tokens, channels)",
        ),
    ]
)
