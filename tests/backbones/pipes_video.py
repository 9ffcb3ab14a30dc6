"""Tiny video pipelines around transformers: Wan, LTX, CogVideoX, HunyuanVideo, Mochi and others."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")


def wan_transformer(seed: int = 0) -> Any:
    return kit.seeded(
        diffusers.WanTransformer3DModel,
        seed=seed,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=kit.TEXT_DIM,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def wan_scheduler() -> Any:
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )


def wan(**parts: Any) -> Any:
    return kit.assembled("WanPipeline", wan_transformer(), wan_scheduler(), **parts)


def wan22() -> Any:
    """Two experts: one for the noisy half of the run, `transformer_2` for the rest."""
    return wan(transformer_2=wan_transformer(seed=1), boundary_ratio=0.8)


def ltx() -> Any:
    return kit.assembled(
        "LTXPipeline",
        kit.seeded(
            diffusers.LTXVideoTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=12,
            cross_attention_dim=24,
            num_layers=2,
            caption_channels=kit.TEXT_DIM,
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def cogvideox() -> Any:
    return kit.assembled(
        "CogVideoXPipeline",
        kit.seeded(
            diffusers.CogVideoXTransformer3DModel,
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=8,
            text_embed_dim=kit.TEXT_DIM,
            num_layers=2,
            sample_width=8,
            sample_height=8,
            sample_frames=9,
            max_text_seq_length=kit.TOKENS,
            use_rotary_positional_embeddings=True,
        ),
        diffusers.CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
        ),
    )


def hunyuan_video() -> Any:
    return kit.assembled(
        "HunyuanVideoPipeline",
        kit.seeded(
            diffusers.HunyuanVideoTransformer3DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=kit.TEXT_DIM,
            pooled_projection_dim=kit.TEXT_DIM,
            rope_axes_dim=(2, 2, 4),
        ),
        text_encoder_2=None,
        tokenizer_2=None,
    )


def mochi() -> Any:
    return kit.assembled(
        "MochiPipeline",
        kit.seeded(
            diffusers.MochiTransformer3DModel,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            pooled_projection_dim=16,
            in_channels=4,
            text_embed_dim=kit.TEXT_DIM,
            time_embed_dim=8,
            max_sequence_length=kit.TOKENS,
        ),
    )


def allegro() -> Any:
    return kit.assembled(
        "AllegroPipeline",
        kit.seeded(
            diffusers.AllegroTransformer3DModel,
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            cross_attention_dim=24,
            sample_height=8,
            sample_width=8,
            sample_frames=3,
            caption_channels=kit.TEXT_DIM,
        ),
        diffusers.EulerAncestralDiscreteScheduler(),
    )


def latte() -> Any:
    return kit.assembled(
        "LattePipeline",
        kit.seeded(
            diffusers.LatteTransformer3DModel,
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=16,
            attention_bias=True,
            sample_size=8,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            caption_channels=kit.TEXT_DIM,
            video_length=2,
        ),
        diffusers.DDIMScheduler(beta_start=0.0001, beta_end=0.02, clip_sample=False),
    )


def masked(draw: Any, batch: int) -> dict[str, Any]:
    return kit.texts(draw, batch) | kit.masks(batch)


def pooled(draw: Any, batch: int) -> dict[str, Any]:
    """Embeddings of both prompts, per token, masked, and pooled."""
    return masked(draw, batch) | {
        "pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
        "negative_pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
    }


def positive(draw: Any, batch: int) -> dict[str, Any]:
    """As `pooled`, without a negative prompt: guidance is an embedding."""
    return {k: v for k, v in pooled(draw, batch).items() if not k.startswith("negative")}


SIZE = {"height": 32, "width": 32}

ROWS = (
    kit.TinyPipe(
        "wan", wan, kit.caller(kit.texts, num_frames=5, **SIZE), "transformer", "separate", 2
    ),
    kit.TinyPipe(
        "wan-ti2v",
        lambda: wan(expand_timesteps=True),
        kit.caller(kit.texts, num_frames=5, **SIZE),
        "transformer",
        "separate",
        2,
    ),
    kit.TinyPipe(
        "wan-2.2",
        wan22,
        kit.caller(kit.texts, num_frames=5, **SIZE),
        "transformer",
        "separate",
        2,
        experts=("transformer_2",),
    ),
    kit.TinyPipe("ltx", ltx, kit.caller(masked, num_frames=9, height=64, width=64), "transformer"),
    kit.TinyPipe(
        "cogvideox",
        cogvideox,
        kit.caller(kit.texts, num_frames=9, height=64, width=64),
        "transformer",
    ),
    kit.TinyPipe(
        "hunyuan-video",
        hunyuan_video,
        kit.caller(positive, num_frames=5, **SIZE),
        "transformer",
        "single",
    ),
    kit.TinyPipe(
        "hunyuan-video-true-cfg",
        hunyuan_video,
        kit.caller(pooled, scale="true_cfg_scale", num_frames=5, **SIZE),
        "transformer",
        "separate",
        2,
    ),
    kit.TinyPipe("mochi", mochi, kit.caller(masked, num_frames=7, **SIZE), "transformer"),
    kit.TinyPipe(
        "allegro",
        allegro,
        kit.caller(masked, negative_prompt=None, num_frames=12, height=64, width=64),
        "transformer",
    ),
    kit.TinyPipe(
        "latte",
        latte,
        kit.caller(kit.texts, negative_prompt=None, video_length=2, height=64, width=64),
        "transformer",
    ),
)
