"""Tiny transformers of diffusers with cross-attention over sound."""

from __future__ import annotations

import torch
from diffusers.models import embeddings

from tests.backbones.tiny import (
    Keywords,
    each,
    mask,
    per_row,
    same,
    table,
    thousandth,
    tiny,
)

WIDTH = 16
TEXT = 12
TOKENS = 5
LENGTH = 8
STABLE_AUDIO = {
    "sample_size": LENGTH,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "num_key_value_attention_heads": 1,
    "cross_attention_dim": 16,
    "time_proj_dim": 8,
    "global_states_input_dim": 6,
    "cross_attention_input_dim": TEXT,
}
STABLE_AUDIO_3 = {
    "io_channels": 4,
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "cond_token_dim": TEXT,
    "global_cond_dim": 6,
    "local_add_cond_dim": 5,
    "timestep_features_dim": 8,
    "ff_mult": 2.0,
    "num_memory_tokens": 3,
}
ACE_STEP = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "in_channels": 12,
    "audio_acoustic_hidden_dim": 4,
    "sliding_window": 2,
    "encoder_hidden_size": TEXT,
}
LONGCAT_AUDIO = {
    "dit_dim": WIDTH,
    "dit_depth": 2,
    "dit_heads": 2,
    "dit_text_dim": TEXT,
    "latent_dim": 4,
    "ff_mult": 2.0,
}
MUSIC = {
    "in_channels": 4,
    "condition_dim": TEXT,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "ff_inner_dim": 32,
    "rotary_dim": 4,
    "fourier_embedding_dim": 8,
}


def stable_audio(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, LENGTH),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "global_hidden_states": same(rows, 1, 6, seed=3),
        "rotary_embedding": embeddings.get_1d_rotary_pos_embed(
            8, LENGTH + 1, use_real=True, repeat_interleave_real=False
        ),
    }


def stable_audio_3(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, LENGTH),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "global_hidden_states": same(rows, 6, seed=3),
        "encoder_attention_mask": mask(rows, TOKENS),
    }


def ace_step(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, LENGTH, 4),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "context_latents": same(rows, LENGTH, 8, seed=3),
    }


def ace_time(rows: int, t: float) -> Keywords:
    """The pipeline gives both ends of the step the same value."""
    now = torch.full((rows,), t / 1000)
    return {"timestep": now, "timestep_r": now}


def longcat_audio(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, LENGTH, 4),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
        "encoder_attention_mask": mask(rows, TOKENS, torch.bool),
        "attention_mask": torch.ones(rows, LENGTH, dtype=torch.bool),
        "latent_cond": torch.zeros(rows, LENGTH, 4),
    }


def music(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, LENGTH),
        "encoder_hidden_states": each(rows, LENGTH, TEXT),
    }


MODELS = table(
    [
        tiny(
            "StableAudioDiTModel",
            STABLE_AUDIO,
            stable_audio,
            lambda rows, t: {"timestep": torch.tensor([t / 1000])},
            cross=2,
            selfs=2,
            note="one timestep for all rows, shape (1,)",
        ),
        tiny(
            "StableAudio3DiTModel",
            STABLE_AUDIO_3,
            stable_audio_3,
            per_row(scale=thousandth),
            cross=2,
            selfs=2,
        ),
        tiny(
            "AceStepTransformer1DModel",
            ACE_STEP,
            ace_step,
            ace_time,
            cross=2,
            selfs=2,
            note="cond rows first",
        ),
        tiny(
            "LongCatAudioDiTTransformer",
            LONGCAT_AUDIO,
            longcat_audio,
            per_row(scale=thousandth),
            cross=2,
            selfs=2,
        ),
        tiny(
            "MiniMaxMusic3Transformer1DModel",
            MUSIC,
            music,
            per_row(scale=thousandth),
            selfs=2,
            note="the conditions join the latents channel by channel: no site reads them alone",
        ),
    ]
)
