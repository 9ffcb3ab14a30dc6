"""Tiny UNets of diffusers."""

from __future__ import annotations

from typing import Any

import torch

from tests.backbones.tiny import Keywords, Tiny, each, mask, same, scalar, table, tiny

TEXT = 16
TOKENS = 7
SHAPE: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
}
SD = SHAPE | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 2,
}
SDXL = SHAPE | {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (1, 2),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": TEXT + 6 * 4,
}
XS = {
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": TEXT,
    "num_attention_heads": 2,
    "upcast_attention": False,
    "ctrl_block_out_channels": (4, 8),
    "ctrl_num_attention_heads": 2,
    "ctrl_max_norm_num_groups": 4,
    "ctrl_conditioning_embedding_out_channels": (4, 4),
}
#: An attention over the latents alone, then one over each of two texts.
AUDIOLDM2 = SD | {"cross_attention_dim": ((None, TEXT, 12), (None, TEXT, 12))}
IF = SHAPE | {
    "down_block_types": ("SimpleCrossAttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"),
    "attention_head_dim": 4,
    "encoder_hid_dim": 12,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "resnet_time_scale_shift": "scale_shift",
}
KANDINSKY3 = {
    "time_embedding_dim": 16,
    "groups": 4,
    "attention_head_dim": 4,
    "layers_per_block": 2,
    "block_out_channels": (8, 8, 16, 16),
    "cross_attention_dim": TEXT,
    "encoder_hid_dim": 12,
}
DREAMLITE = {
    "sample_size": 8,
    "block_out_channels": (8, 8, 16),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "cross_attention_dim": TEXT,
    "attention_head_dim": 2,
    "num_kv_heads": 1,
    "ff_mult": 2,
}
CASCADE = {
    "in_channels": 4,
    "out_channels": 4,
    "timestep_ratio_embedding_dim": 8,
    "conditioning_dim": TEXT,
    "block_out_channels": (16, 16),
    "num_attention_heads": (2, 2),
    "down_num_layers_per_block": (1, 1),
    "up_num_layers_per_block": (1, 1),
    "clip_text_in_channels": 12,
    "clip_text_pooled_in_channels": 8,
    "clip_image_in_channels": 8,
    "clip_seq": 2,
    "switch_level": (False,),
    "timestep_conditioning_type": ("sca",),
}


def image(rows: int, channels: int = 4, text: int = TEXT) -> Keywords:
    return {
        "sample": same(rows, channels, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, text),
    }


def sdxl(rows: int) -> Keywords:
    ids = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).repeat(rows, 1)
    return image(rows) | {
        "added_cond_kwargs": {"text_embeds": each(rows, TEXT, seed=2), "time_ids": ids}
    }


def lcm(rows: int) -> Keywords:
    return image(rows) | {"timestep_cond": same(rows, 16, seed=2)}


def controlled_by_net(rows: int) -> Keywords:
    sizes = [(8, 8), (8, 8), (8, 4), (16, 4)]
    residuals = [same(rows, c, n, n, seed=3 + i) for i, (c, n) in enumerate(sizes)]
    return image(rows) | {
        "down_block_additional_residuals": tuple(residuals),
        "mid_block_additional_residual": same(rows, 16, 4, 4, seed=9),
    }


def audioldm2(rows: int) -> Keywords:
    return image(rows) | {
        "encoder_hidden_states_1": each(rows, 5, 12, seed=2),
        "encoder_attention_mask_1": mask(rows, 5),
    }


def upscaler(rows: int) -> Keywords:
    return image(rows, 7) | {"class_labels": torch.full((rows,), 20)}


def kandinsky3(rows: int) -> Keywords:
    """Three halvings of the size leave a site of one token on smaller latents."""
    return image(rows, text=12) | {
        "sample": same(rows, 4, 16, 16),
        "encoder_attention_mask": mask(rows, TOKENS),
    }


def controlled(rows: int) -> Keywords:
    return image(rows) | {"controlnet_cond": same(rows, 3, 16, 16, seed=3)}


def cascade(rows: int) -> Keywords:
    return {
        "sample": same(rows, 4, 8, 8),
        "clip_text_pooled": each(rows, 1, 8, seed=2),
        "clip_text": each(rows, TOKENS, 12),
        "clip_img": same(rows, 1, 8, seed=3),
    }


def ratio(rows: int, t: float) -> Keywords:
    """Stable Cascade counts its noise from 0 to 1, a row."""
    return {"timestep_ratio": torch.full((rows,), t / 1000)}


def unet(name: str, config: Keywords, inputs: Any, **facts: Any) -> Tiny:
    return tiny(
        name, config, inputs, facts.pop("timestep", scalar()), **({"sample": ("sample",)} | facts)
    )


MODELS = table(
    [
        unet("UNet2DConditionModel", SD, image, cross=4, selfs=4),
        unet("UNet2DConditionModel:sdxl", SDXL, sdxl, cross=8, selfs=8),
        unet(
            "UNet2DConditionModel:lcm",
            SD | {"time_cond_proj_dim": 16},
            lcm,
            cross=4,
            selfs=4,
            rows=1,
            note="guidance is an input, timestep_cond: no uncond rows",
        ),
        unet(
            "UNet2DConditionModel:pix2pix",
            SD | {"in_channels": 8},
            lambda rows: image(rows, 8),
            cross=4,
            selfs=4,
            rows=3,
            note="three rows a prompt: text, image, uncond",
        ),
        unet(
            "UNet2DConditionModel:upscaler",
            SD | {"in_channels": 7, "num_class_embeds": 50},
            upscaler,
            cross=4,
            selfs=4,
            note="class_labels: the low-resolution image's noise level",
        ),
        unet(
            "UNet2DConditionModel:controlnet",
            SD,
            controlled_by_net,
            cross=4,
            selfs=4,
            note="residuals with rows in a tuple",
        ),
        unet(
            "UNet2DConditionModel:if",
            IF | {"in_channels": 3},
            lambda r: image(r, 3, 12),
            joints=4,
            texts=1,
        ),
        unet(
            "AudioLDM2UNet2DConditionModel",
            AUDIOLDM2,
            audioldm2,
            cross=8,
            selfs=16,
            text=("encoder_hidden_states", "encoder_hidden_states_1"),
            note="two texts, each with cross sites of its own",
        ),
        unet("Kandinsky3UNet", KANDINSKY3, kandinsky3, cross=12, selfs=6, texts=1),
        unet("UNetControlNetXSModel", XS, controlled, cross=9, selfs=9),
        unet("DreamLiteUNetModel", DREAMLITE, image, cross=8, selfs=4),
        unet(
            "StableCascadeUNet",
            CASCADE,
            cascade,
            joints=4,
            timestep=ratio,
            text=("clip_text", "clip_text_pooled"),
            note="keys are the latents and the text, joined in the block",
        ),
    ]
)
