"""Tiny UNets of diffusers for video."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import Keywords, Tiny, each, same, scalar, table, tiny

TEXT = 16
TOKENS = 7
FRAMES = 3
SHAPE: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
}
UNET_3D = SHAPE | {
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "attention_head_dim": 4,
}
MOTION = SHAPE | {
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "up_block_types": ("UpBlockMotion", "CrossAttnUpBlockMotion"),
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "motion_max_seq_length": 4,
}
SVD = {
    "sample_size": 8,
    "in_channels": 8,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 12,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "num_attention_heads": 2,
    "num_frames": FRAMES,
}


def video(rows: int) -> Keywords:
    return {
        "sample": same(rows, 4, FRAMES, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def animatediff(rows: int) -> Keywords:
    """The pipeline repeats the text for every frame, so it has more rows than the sample."""
    return video(rows) | {
        "encoder_hidden_states": each(rows, TOKENS, TEXT).repeat_interleave(FRAMES, 0)
    }


def svd(rows: int) -> Keywords:
    return {
        "sample": same(rows, FRAMES, 8, 8, 8),
        "encoder_hidden_states": each(rows, 1, TEXT),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02]]).repeat(rows, 1),
    }


def svd_image(rows: int) -> Keywords:
    """As the pipeline has it: row 0 (uncond) sees zeros in place of the image's latents."""
    given = svd(rows)
    given["sample"][0, :, 4:] = 0
    return given


def i2vgen(rows: int) -> Keywords:
    return video(rows) | {
        "fps": torch.full((rows,), 16),
        "image_latents": same(rows, 4, FRAMES, 8, 8, seed=3),
        "image_embeddings": each(rows, TEXT, seed=2),
    }


def unet(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(
        name, config, inputs, facts.pop("timestep", scalar()), **({"sample": ("sample",)} | facts)
    )


MODELS = table(
    [
        unet("UNet3DConditionModel", UNET_3D, video, cross=4, selfs=14),
        unet(
            "UNetMotionModel",
            MOTION,
            animatediff,
            cross=4,
            selfs=18,
            note="encoder_hidden_states has rows * frames rows, a row's frames side by side",
        ),
        unet(
            "UNetSpatioTemporalConditionModel",
            SVD,
            svd,
            cross=8,
            selfs=8,
            note="sample: (rows, frames, C, H, W)",
        ),
        unet(
            "UNetSpatioTemporalConditionModel:image",
            SVD,
            svd_image,
            cross=8,
            selfs=8,
            note="latents are equal in the first 4 channels only",
        ),
        unet("I2VGenXLUNet", UNET_3D, i2vgen, cross=4, selfs=14, texts=1),
    ]
)
