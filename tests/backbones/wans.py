"""Tiny video transformers of diffusers: Wan and what is built like it."""

from __future__ import annotations

import torch

from tests.backbones.tiny import Keywords, each, per_row, same, table, tiny

HEADS = {"num_attention_heads": 2, "attention_head_dim": 12}
WIDTH = 24
TEXT = 10
TOKENS = 5
FRAMES = 3
WAN = HEADS | {
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": TEXT,
    "freq_dim": 8,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 16,
}
IMAGE_TO_VIDEO = WAN | {"image_dim": 6, "added_kv_proj_dim": WIDTH}
HELIOS = {k: v for k, v in WAN.items() if k != "rope_max_seq_len"} | {"rope_dim": (4, 4, 4)}


def video(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, FRAMES, 8, 8),
        "encoder_hidden_states": each(rows, TOKENS, TEXT),
    }


def image_to_video(rows: int) -> Keywords:
    """The image's tokens are keys of the same sites, projected apart."""
    return video(rows) | {"encoder_hidden_states_image": same(rows, 4, 6, seed=3)}


def vace(rows: int) -> Keywords:
    return video(rows) | {
        "control_hidden_states": same(rows, 6, FRAMES, 8, 8, seed=3),
        "control_hidden_states_scale": torch.ones(2),
    }


def anyflow(rows: int) -> Keywords:
    return video(rows) | {"hidden_states": same(rows, FRAMES, 4, 8, 8)}


def anyflow_time(rows: int, t: float) -> Keywords:
    """A timestep a frame; r is where the step ends."""
    now = torch.full((rows, FRAMES), t)
    return {"timestep": now, "r_timestep": now - 100}


def far(rows: int) -> Keywords:
    """The first chunk of a video: the caches of earlier chunks are empty."""
    empty = {name: torch.zeros(2, rows, 2, 0, 12) for name in ("compressed_cache", "full_cache")}
    return anyflow(rows) | {
        "chunk_partition": [FRAMES],
        "kv_cache": [dict(empty) for _ in range(2)],
        "kv_cache_flag": {"num_cached_chunks": 0, "is_cache_step": False},
    }


def per_token(rows: int, t: float) -> Keywords:
    """Wan 2.2 with a first frame given: zero at that frame's tokens."""
    times = torch.full((rows, FRAMES * 16), t)
    times[:, :16] = 0
    return {"timestep": times}


def forcing_time(rows: int, t: float) -> Keywords:
    """Diffusion forcing: a timestep a frame, earlier frames further on."""
    return {"timestep": torch.tensor([0.5 * t, 0.75 * t, t]).repeat(rows, 1)}


def forcing(rows: int) -> Keywords:
    """Without fps, which diffusers can add to the timesteps of one row only."""
    return video(rows) | {"enable_diffusion_forcing": True}


def helios(rows: int) -> Keywords:
    """With what was made before as history, at three resolutions in time."""
    frames = torch.arange(16)
    return video(rows) | {
        "indices_hidden_states": frames[13:16].repeat(rows, 1),
        "indices_latents_history_long": frames[:8].repeat(rows, 1),
        "indices_latents_history_mid": frames[8:10].repeat(rows, 1),
        "indices_latents_history_short": frames[10:13].repeat(rows, 1),
        "latents_history_long": same(rows, 4, 8, 8, 8, seed=3),
        "latents_history_mid": same(rows, 4, 2, 8, 8, seed=4),
        "latents_history_short": same(rows, 4, 3, 8, 8, seed=5),
    }


MODELS = table(
    [
        tiny("WanTransformer3DModel", WAN, video, per_row(), cross=2, selfs=2),
        tiny(
            "WanTransformer3DModel:i2v", IMAGE_TO_VIDEO, image_to_video, per_row(), cross=2, selfs=2
        ),
        tiny(
            "WanTransformer3DModel:ti2v",
            WAN,
            video,
            per_token,
            cross=2,
            selfs=2,
            note="a timestep a token",
        ),
        tiny(
            "WanVACETransformer3DModel",
            WAN | {"vace_layers": [0, 1], "vace_in_channels": 6},
            vace,
            per_row(),
            cross=4,
            selfs=4,
        ),
        tiny(
            "ChronoEditTransformer3DModel",
            WAN | {"rope_temporal_skip_len": 4},
            video,
            per_row(),
            cross=2,
            selfs=2,
        ),
        tiny("SkyReelsV2Transformer3DModel", WAN, video, per_row(), cross=2, selfs=2),
        tiny(
            "SkyReelsV2Transformer3DModel:forcing",
            WAN,
            forcing,
            forcing_time,
            cross=2,
            selfs=2,
            note="a timestep a frame",
        ),
        tiny("HeliosTransformer3DModel", HELIOS, helios, per_row(), cross=2, selfs=2),
        tiny("AnyFlowTransformer3DModel", WAN, anyflow, anyflow_time, cross=2, selfs=2),
        tiny(
            "AnyFlowFARTransformer3DModel",
            WAN | {"chunk_partition": (FRAMES,)},
            far,
            anyflow_time,
            cross=2,
            selfs=2,
            note="two outputs, the second a cache; caches have their rows in the second dimension",
        ),
    ]
)
