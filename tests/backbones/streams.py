"""Tiny transformers of diffusers with two streams of latents, or with more than text to read."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import Keywords, each, mask, per_row, same, table, tiny

TEXT = 10
TOKENS = 5
FRAMES = 3
SOUND = 6

LTX2 = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "audio_in_channels": 4,
    "audio_out_channels": 4,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 6,
    "audio_cross_attention_dim": 12,
    "num_layers": 2,
    "caption_channels": TEXT,
    "rope_double_precision": False,
}
KANDINSKY6 = {
    "in_visual_dim": 4,
    "out_visual_dim": 4,
    "in_text_dim": TEXT,
    "in_text_dim2": 6,
    "time_dim": 16,
    "model_dim": 24,
    "ff_dim": 32,
    "num_text_blocks": 1,
    "num_visual_blocks": 2,
    "axes_dims": (4, 4, 4),
    "visual_cond": False,
    "in_audio_dim": 4,
    "out_audio_dim": 4,
}
ANIMATE = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 12,
    "latent_channels": 4,
    "out_channels": 4,
    "text_dim": TEXT,
    "freq_dim": 8,
    "ffn_dim": 32,
    "num_layers": 2,
    "image_dim": 6,
    "added_kv_proj_dim": 24,
    "rope_max_seq_len": 16,
    "motion_encoder_channel_sizes": {"4": 4, "8": 4, "16": 4},
    "motion_encoder_size": 16,
    "motion_style_dim": 8,
    "motion_dim": 4,
    "motion_encoder_dim": 8,
    "face_encoder_hidden_dim": 8,
    "face_encoder_num_heads": 2,
    "inject_face_latents_blocks": 2,
}


def ltx2(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, FRAMES * 16, 4),
        "audio_hidden_states": same(rows, SOUND, 4, seed=3),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "audio_encoder_hidden_states": each(rows, TOKENS, TEXT, seed=2),
        "encoder_attention_mask": mask(rows, TOKENS),
        "audio_encoder_attention_mask": mask(rows, TOKENS),
        "num_frames": FRAMES,
        "height": 4,
        "width": 4,
        "fps": 24.0,
        "audio_num_frames": SOUND,
    }


def ltx2_time(rows: int, t: float) -> Keywords:
    now = torch.full((rows,), t)
    return {"timestep": now, "sigma": now}


def kandinsky6(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, FRAMES, 8, 8, 4),
        "audio_hidden_states": same(rows, SOUND, 4, seed=3),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "pooled_projections": each(rows, 6, seed=2),
        "visual_rope_pos": tuple(torch.arange(n) for n in (FRAMES, 4, 4)),
    }


def animate(rows: int) -> Keywords:
    """Pose and face steer the person; the pipeline's uncond rows have a face of -1."""
    face = same(rows, 3, 8, 16, 16, seed=5)
    face[0] = -1
    return {
        "hidden_states": same(rows, 12, FRAMES, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "encoder_hidden_states_image": same(rows, 4, 6, seed=3),
        "pose_hidden_states": same(rows, 4, FRAMES - 1, 8, 8, seed=4),
        "face_pixel_values": face,
    }


BOTH: dict[str, Any] = {"sample": ("hidden_states", "audio_hidden_states")}

MODELS = table(
    [
        tiny(
            "LTX2VideoTransformer3DModel",
            LTX2,
            ltx2,
            ltx2_time,
            cross=4,
            selfs=4,
            exchanges=4,
            text=("encoder_hidden_states", "audio_encoder_hidden_states"),
            note="two outputs, video and sound; each cross-attends to the other",
            **BOTH,
        ),
        tiny(
            "LTX2VideoTransformer3DModel:2.3",
            LTX2
            | {
                "cross_attn_mod": True,
                "audio_cross_attn_mod": True,
                "gated_attn": True,
                "audio_gated_attn": True,
            },
            ltx2,
            ltx2_time,
            cross=4,
            selfs=4,
            exchanges=4,
            text=("encoder_hidden_states", "audio_encoder_hidden_states"),
            note="the text that cross sites read is modulated by sigma",
            **BOTH,
        ),
        tiny(
            "Kandinsky6Transformer3DModel",
            KANDINSKY6,
            kandinsky6,
            per_row(),
            cross=4,
            selfs=4,
            texts=2,
            exchanges=4,
            note="two outputs; the text that cross sites read depends on the timestep",
            **BOTH,
        ),
        tiny(
            "WanAnimateTransformer3DModel",
            ANIMATE,
            animate,
            per_row(),
            cross=3,
            selfs=2,
            note="one more cross site for every other block, over the face's motion",
        ),
    ]
)
