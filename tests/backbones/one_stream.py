"""Tiny image transformers of diffusers which put the prompt's tokens among the image's."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import (
    Keywords,
    Tiny,
    each,
    lengths,
    mask,
    per_row,
    reversed_thousandth,
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
Z_IMAGE = {
    "in_channels": 4,
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": TEXT,
    "axes_dims": [8, 4, 4],
    "axes_lens": [96, 8, 8],
}
LUMINA2 = {
    "sample_size": 8,
    "in_channels": 4,
    "hidden_size": WIDTH,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 8,
    "axes_dim_rope": (4, 2, 2),
    "axes_lens": (16, 8, 8),
    "cap_feat_dim": TEXT,
}
ERNIE = {
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "num_layers": 2,
    "ffn_hidden_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "text_in_dim": TEXT,
    "rope_axes_dim": (4, 2, 2),
}
PRX = {
    "in_channels": 4,
    "context_in_dim": TEXT,
    "hidden_size": WIDTH,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "axes_dim": [4, 4],
}
OMNIGEN = {
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "num_layers": 2,
    "pad_token_id": 0,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 64,
    "rope_scaling": {"short_factor": [1.0] * 4, "long_factor": [1.0] * 4},
    "pos_embed_max_size": 8,
    "time_step_dim": 8,
}
DIT = HEADS | {
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 10,
    "norm_num_groups": 4,
}
PRIOR = HEADS | {
    "num_layers": 2,
    "embedding_dim": TEXT,
    "num_embeddings": TOKENS,
    "additional_embeddings": 4,
}


def image(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def masked(rows: int) -> Keywords:
    return image(rows) | {"encoder_attention_mask": mask(rows, TOKENS, torch.bool)}


def z_image(rows: int) -> Keywords:
    """Python lists, an entry a row; prompts have lengths of their own."""
    text = each(rows, TOKENS, TEXT)
    return {
        "x": list(same(rows, 4, 1, 8, 8).unbind(0)),
        "cap_feats": [row[:n] for row, n in zip(text, lengths(rows, TOKENS), strict=True)],
    }


def ernie(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "text_bth": each(rows, TOKENS, TEXT),
        "text_lens": torch.tensor(lengths(rows, TOKENS)),
    }


def prx(rows: int) -> Keywords:
    return image(rows) | {"attention_mask": mask(rows, TOKENS, torch.bool)}


def omnigen(rows: int) -> Keywords:
    """One sequence: prompt, a token for the time, image; the mask has rows too."""
    length = TOKENS + 1 + PATCHES
    ids = each(rows, TOKENS).mul(4).round().long() % 30 + 1
    return {
        "hidden_states": same(rows, 4, 8, 8),
        "input_ids": ids,
        "input_img_latents": [],
        "input_image_sizes": {},
        "attention_mask": torch.ones(rows, length, length),
        "position_ids": torch.arange(length).repeat(rows, 1),
    }


def dit(rows: int) -> Keywords:
    """A class in place of a prompt; the last row's is the class for "none"."""
    labels = torch.tensor([3, 10, 5, 10][:rows])
    return {"hidden_states": same(rows, 4, 8, 8), "class_labels": labels}


def prior(rows: int) -> Keywords:
    """The latents are one vector, a token among the prompt's."""
    return {
        "hidden_states": same(rows, TEXT),
        "proj_embedding": each(rows, TEXT, seed=2),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "attention_mask": mask(rows, TOKENS, torch.bool),
    }


def joint(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(name, config, inputs, facts.pop("timestep", per_row()), **facts)


MODELS = table(
    [
        joint(
            "ZImageTransformer2DModel",
            Z_IMAGE,
            z_image,
            selfs=1,
            joints=2,
            texts=1,
            timestep=per_row("t", reversed_thousandth),
            sample=("x",),
            text=("cap_feats",),
            note="lists in and out, an entry a row; cond rows first",
        ),
        joint(
            "Lumina2Transformer2DModel",
            LUMINA2,
            masked,
            selfs=1,
            joints=2,
            texts=1,
            timestep=per_row(scale=reversed_thousandth),
        ),
        joint(
            "ErnieImageTransformer2DModel",
            ERNIE,
            ernie,
            joints=2,
            text=("text_bth",),
            note="tokens first inside: (tokens, rows, channels)",
        ),
        joint("PRXTransformer2DModel", PRX, prx, joints=2, timestep=per_row(scale=thousandth)),
        joint(
            "OmniGenTransformer2DModel",
            OMNIGEN,
            omnigen,
            joints=2,
            timestep=per_row(scale=thousandth),
            text=("input_ids",),
        ),
        joint(
            "DiTTransformer2DModel",
            DIT,
            dit,
            selfs=2,
            text=("class_labels",),
            note="cond rows first",
        ),
        joint("PriorTransformer", PRIOR, prior, joints=2),
    ]
)
