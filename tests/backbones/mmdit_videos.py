"""Tiny video transformers of diffusers with joint attention."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models import embeddings

from tests.backbones.tiny import Keywords, Tiny, each, mask, per_row, same, table, tiny

TEXT = 16
TOKENS = 5
FRAMES = 3

HEADS = {"num_attention_heads": 2, "attention_head_dim": 8}
WIDTH = 16
COGVIDEO = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 8,
    "text_embed_dim": TEXT,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": TOKENS,
}
HUNYUAN = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT,
    "pooled_projection_dim": 6,
    "rope_axes_dim": (4, 2, 2),
}
HUNYUAN15 = HEADS | {
    "in_channels": 9,
    "out_channels": 4,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT,
    "text_embed_2_dim": 10,
    "image_embed_dim": 6,
    "rope_axes_dim": (4, 2, 2),
    "patch_size": 2,
}
MOCHI = HEADS | {
    "num_layers": 2,
    "pooled_projection_dim": 8,
    "in_channels": 4,
    "text_embed_dim": TEXT,
    "time_embed_dim": 8,
    "max_sequence_length": TOKENS,
}
EASY = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,
    "sample_width": 8,
    "sample_height": 8,
    "num_layers": 2,
    "mmdit_layers": 1,
    "time_embed_dim": 8,
    "text_embed_dim": TEXT,
}
MOTIF = HEADS | {
    "in_channels": 9,
    "out_channels": 4,
    "num_layers": 1,
    "num_single_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT,
    "rope_axes_dim": (4, 2, 2),
}
JOY = {
    "in_channels": 4,
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "text_dim": TEXT,
    "mlp_width_ratio": 2.0,
    "num_layers": 2,
    "rope_dim_list": [4, 2, 2],
}
CONSISID = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 8,
    "text_embed_dim": TEXT,
    "num_layers": 2,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "max_text_seq_length": TOKENS,
    "is_train_face": True,
    "cross_attn_interval": 2,
    "cross_attn_dim_head": 8,
    "cross_attn_num_heads": 2,
    "LFE_id_dim": 6,
    "LFE_vit_dim": 8,
    "LFE_depth": 2,
    "LFE_dim_head": 4,
    "LFE_num_heads": 2,
    "LFE_num_id_token": 2,
    "LFE_num_querie": 3,
    # Two thirds of the width, fixed by the model.
    "LFE_output_dim": 32,
    "LFE_ff_mult": 2,
    "LFE_num_scale": 2,
}


def video(rows: int, channels: int = 4) -> Keywords:
    return {
        "hidden_states": same(rows, channels, FRAMES, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def masked(rows: int, channels: int = 4) -> Keywords:
    return video(rows, channels) | {"encoder_attention_mask": mask(rows, TOKENS)}


def cogvideo(rows: int) -> Keywords:
    return video(rows) | {"hidden_states": same(rows, FRAMES, 4, 8, 8)}


def cogvideo_rotary(rows: int) -> Keywords:
    rotary = embeddings.get_3d_rotary_pos_embed(16, ((0, 0), (4, 4)), (4, 4), FRAMES)
    return cogvideo(rows) | {"image_rotary_emb": rotary}


def hunyuan(rows: int) -> Keywords:
    return masked(rows) | {"pooled_projections": each(rows, 6, seed=2)}


def hunyuan_distilled(rows: int) -> Keywords:
    return hunyuan(rows) | {"guidance": torch.full((rows,), 6000.0)}


def hunyuan15(rows: int) -> Keywords:
    return masked(rows, 9) | {
        "encoder_hidden_states_2": each(rows, 3, 10, seed=2),
        "encoder_attention_mask_2": mask(rows, 3),
        "image_embeds": torch.zeros(rows, 2, 6),
    }


def framepack(rows: int) -> Keywords:
    """With earlier frames as history, at three resolutions in time; indices have no rows."""
    frames = torch.arange(32)
    return hunyuan(rows) | {
        "image_embeds": same(rows, 2, 6, seed=3),
        "indices_latents": frames[20 : 20 + FRAMES],
        "latents_clean": same(rows, 4, 2, 8, 8, seed=4),
        "indices_latents_clean": torch.tensor([0, 19]),
        "latents_history_2x": same(rows, 4, 2, 8, 8, seed=5),
        "indices_latents_history_2x": frames[17:19],
        "latents_history_4x": same(rows, 4, 16, 8, 8, seed=6),
        "indices_latents_history_4x": frames[1:17],
    }


def consisid(rows: int) -> Keywords:
    """The face has one row for all: it is repeated inside."""
    return cogvideo(rows) | {
        "id_cond": same(1, 6, seed=3),
        "id_vit_hidden": [same(1, 4, 8, seed=4), same(1, 4, 8, seed=5)],
    }


def joy_plus(rows: int) -> Keywords:
    """A patch has a place of its own, and a row is a list of images in shape_list."""
    return {
        "hidden_states": same(rows, FRAMES * 16, 4, 1, 2, 2),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "encoder_hidden_states_mask": mask(rows, TOKENS),
        "shape_list": [[(1, 4, 4)] * FRAMES] * rows,
    }


def joint(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(name, config, inputs, facts.pop("timestep", per_row()), **facts)


MODELS = table(
    [
        joint(
            "CogVideoXTransformer3DModel",
            COGVIDEO,
            cogvideo,
            joints=2,
            note="frames before channels",
        ),
        joint(
            "CogVideoXTransformer3DModel:rotary",
            COGVIDEO | {"use_rotary_positional_embeddings": True},
            cogvideo_rotary,
            joints=2,
        ),
        joint(
            "HunyuanVideoTransformer3DModel",
            HUNYUAN | {"guidance_embeds": False},
            hunyuan,
            joints=3,
            texts=1,
        ),
        joint(
            "HunyuanVideoTransformer3DModel:distilled",
            HUNYUAN,
            hunyuan_distilled,
            joints=3,
            texts=1,
            rows=1,
            note="guidance is an input: no uncond rows",
        ),
        joint(
            "HunyuanVideo15Transformer3DModel",
            HUNYUAN15,
            hunyuan15,
            joints=2,
            texts=1,
            text=("encoder_hidden_states", "encoder_hidden_states_2"),
            note="4.3 M parameters: the second text's projection has a fixed width of 2048",
        ),
        joint(
            "HunyuanVideoFramepackTransformer3DModel",
            HUNYUAN
            | {
                "guidance_embeds": False,
                "has_image_proj": True,
                "image_proj_dim": 6,
                "has_clean_x_embedder": True,
            },
            framepack,
            joints=3,
            texts=1,
            note="indices_latents_clean is as long as two rows, and is none",
        ),
        joint("MochiTransformer3DModel", MOCHI, masked, joints=2, texts=1),
        joint("EasyAnimateTransformer3DModel", EASY, video, joints=2),
        joint("MotifVideoTransformer3DModel", MOTIF, lambda rows: masked(rows, 9), joints=3),
        joint(
            "MotifVideoTransformer3DModel:cross",
            MOTIF
            | {
                "enable_text_cross_attention_dual": True,
                "enable_text_cross_attention_single": True,
            },
            lambda rows: masked(rows, 9),
            cross=3,
            joints=3,
        ),
        joint("JoyImageEditTransformer3DModel", JOY, video, joints=2),
        joint("JoyImageEditPlusTransformer3DModel", JOY, joy_plus, joints=2),
        joint(
            "ConsisIDTransformer3DModel",
            CONSISID,
            consisid,
            cross=1,
            joints=2,
            texts=2,
            note="the face has one row for all",
        ),
    ]
)
