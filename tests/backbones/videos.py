"""Tiny video transformers of diffusers with cross-attention."""

from __future__ import annotations

import torch
from diffusers.models import embeddings

from tests.backbones.tiny import Keywords, each, mask, per_row, same, table, thousandth, tiny

HEADS = {"num_attention_heads": 2, "attention_head_dim": 12}
WIDTH = 24
TEXT = 10
TOKENS = 5
FRAMES = 3
LATTE = HEADS | {
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": WIDTH,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "caption_channels": TEXT,
    "video_length": FRAMES,
}
ALLEGRO = HEADS | {
    "num_layers": 2,
    "cross_attention_dim": WIDTH,
    "sample_height": 8,
    "sample_width": 8,
    "sample_frames": FRAMES,
    "caption_channels": TEXT,
}
LTX = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "cross_attention_dim": WIDTH,
    "num_layers": 2,
    "caption_channels": TEXT,
}
COSMOS = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "mlp_ratio": 2.0,
    "text_embed_dim": TEXT,
    "adaln_lora_dim": 4,
    "max_size": (4, 8, 8),
    # With it, the model resizes the mask with torchvision.
    "concat_padding_mask": False,
}
KANDINSKY5 = {
    "in_text_dim": TEXT,
    "in_text_dim2": 6,
    "time_dim": 16,
    "model_dim": WIDTH,
    "ff_dim": 32,
    "num_text_blocks": 1,
    "num_visual_blocks": 2,
    "axes_dims": (4, 4, 4),
}
SANA_VIDEO = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 12,
    "cross_attention_dim": WIDTH,
    "caption_channels": TEXT,
    "sample_size": 8,
    "rope_max_seq_len": 16,
}
SANA_WM = {
    "in_channels": 4,
    "num_layers": 2,
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "softmax_every_n": 2,
    "linear_head_dim": 12,
    "chunk_plucker_channels": 4,
    "chunk_plucker_post_attn_blocks": 0,
    "caption_channels": TEXT,
    "mlp_ratio": 2.0,
}


def video(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, FRAMES, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def masked(rows: int) -> Keywords:
    return video(rows) | {"encoder_attention_mask": mask(rows, TOKENS)}


def allegro(rows: int) -> Keywords:
    *frequencies, t, h, w = embeddings.get_3d_rotary_pos_embed_allegro(
        embed_dim=12, crops_coords=((0, 0), (4, 4)), grid_size=(4, 4), temporal_size=FRAMES
    )
    places = torch.cartesian_prod(t.long(), h.long(), w.long()).T.reshape(3, 1, -1).contiguous()
    return masked(rows) | {"image_rotary_emb": (tuple(frequencies), tuple(places))}


def ltx(rows: int) -> Keywords:
    return masked(rows) | {
        "hidden_states": same(rows, FRAMES * 16, 4),
        "num_frames": FRAMES,
        "height": 4,
        "width": 4,
        "rope_interpolation_scale": (8 / 25, 32, 32),
    }


def sana_wm(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, FRAMES, 4, 4),
        "encoder_hidden_states": each(rows, 1, TOKENS, TEXT),
        "mask": mask(rows, TOKENS),
    }


def sana_wm_time(rows: int, t: float) -> Keywords:
    return {"timestep": torch.full((rows, 1, FRAMES), t)}


def cosmos(rows: int) -> Keywords:
    return video(rows) | {"fps": 30}


def kandinsky5(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, FRAMES, 8, 8, 4),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "pooled_projections": each(rows, 6, seed=2),
        "visual_rope_pos": [torch.arange(FRAMES), torch.arange(4), torch.arange(4)],
        "text_rope_pos": torch.arange(TOKENS),
    }


MODELS = table(
    [
        tiny("LatteTransformer3DModel", LATTE, video, per_row(), cross=2, selfs=4),
        tiny("AllegroTransformer3DModel", ALLEGRO, allegro, per_row(), cross=2, selfs=2),
        tiny(
            "LTXVideoTransformer3DModel",
            LTX,
            ltx,
            per_row(),
            cross=2,
            selfs=2,
            note="latents are packed: (rows, tokens, channels)",
        ),
        tiny(
            "CosmosTransformer3DModel", COSMOS, cosmos, per_row(scale=thousandth), cross=2, selfs=2
        ),
        tiny(
            "Kandinsky5Transformer3DModel",
            KANDINSKY5,
            kandinsky5,
            per_row(),
            cross=2,
            selfs=2,
            texts=1,
            note="channels last; the text that cross sites read depends on the timestep; "
            "return_dict=False gives a tensor",
        ),
        tiny("SanaWMTransformer3DModel", SANA_WM, sana_wm, sana_wm_time, cross=2, selfs=2),
        tiny("SanaVideoTransformer3DModel", SANA_VIDEO, masked, per_row(), cross=2, selfs=2),
    ]
)
