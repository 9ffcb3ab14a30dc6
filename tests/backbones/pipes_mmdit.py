"""Tiny pipelines whose text and image tokens share one attention: SD3, Flux, Qwen and others."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")


def sd3() -> Any:
    return kit.assembled(
        "StableDiffusion3Pipeline",
        kit.seeded(
            diffusers.SD3Transformer2DModel,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=kit.TEXT_DIM,
            caption_projection_dim=16,
            pooled_projection_dim=kit.TEXT_DIM,
            pos_embed_max_size=16,
        ),
        text_encoder_2=None,
        tokenizer_2=None,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def flux(*, guidance_embeds: bool = True) -> Any:
    return kit.assembled(
        "FluxPipeline",
        kit.seeded(
            diffusers.FluxTransformer2DModel,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=kit.TEXT_DIM,
            pooled_projection_dim=kit.TEXT_DIM,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(2, 2, 4),
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder_2=None,
        tokenizer_2=None,
    )


def chroma() -> Any:
    return kit.assembled(
        "ChromaPipeline",
        kit.seeded(
            diffusers.ChromaTransformer2DModel,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=kit.TEXT_DIM,
            axes_dims_rope=(2, 2, 4),
            approximator_num_channels=8,
            approximator_hidden_dim=16,
            approximator_layers=1,
        ),
    )


def aura_flow() -> Any:
    return kit.assembled(
        "AuraFlowPipeline",
        kit.seeded(
            diffusers.AuraFlowTransformer2DModel,
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=kit.TEXT_DIM,
            caption_projection_dim=32,
            pos_embed_max_size=64,
        ),
    )


def qwen() -> Any:
    return kit.assembled(
        "QwenImagePipeline",
        kit.seeded(
            diffusers.QwenImageTransformer2DModel,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=kit.TEXT_DIM,
            axes_dims_rope=(2, 2, 4),
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def cogview4() -> Any:
    return kit.assembled(
        "CogView4Pipeline",
        kit.seeded(
            diffusers.CogView4Transformer2DModel,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=kit.TEXT_DIM,
            time_embed_dim=8,
            condition_dim=4,
            pos_embed_max_size=16,
            sample_size=8,
            rope_axes_dim=(8, 8),
        ),
    )


def pooled(draw: Any, batch: int) -> dict[str, Any]:
    """Embeddings of both prompts, per token and pooled."""
    return kit.texts(draw, batch) | {
        "pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
        "negative_pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
    }


def positive(draw: Any, batch: int) -> dict[str, Any]:
    """As `pooled`, without a negative prompt: guidance is an embedding."""
    return {k: v for k, v in pooled(draw, batch).items() if not k.startswith("negative")}


def masked(draw: Any, batch: int) -> dict[str, Any]:
    return kit.texts(draw, batch) | kit.masks(batch)


def chroma_inputs(draw: Any, batch: int) -> dict[str, Any]:
    """Chroma masks in the dtype of its embeddings."""
    return kit.texts(draw, batch) | {name: m.float() for name, m in kit.masks(batch).items()}


def qwen_inputs(draw: Any, batch: int) -> dict[str, Any]:
    """Qwen's masks have names of their own."""
    return kit.texts(draw, batch) | {
        name.replace("attention", "embeds"): mask for name, mask in kit.masks(batch).items()
    }


#: Skip-layer guidance in every step: one more call, of the cond rows alone.
SKIP: dict[str, Any] = {
    "skip_guidance_layers": [1],
    "skip_layer_guidance_start": -1.0,
    "skip_layer_guidance_stop": 2.0,
}
SIZE = {"height": 64, "width": 64}

ROWS = (
    kit.TinyPipe("sd3", sd3, kit.caller(pooled), "transformer"),
    kit.TinyPipe(
        "sd3-skip-layer",
        sd3,
        kit.caller(pooled, **SKIP),
        "transformer",
        "uncond_first",
        2,
        rows=(2, 1),
    ),
    kit.TinyPipe("flux", flux, kit.caller(positive, **SIZE), "transformer", "single"),
    kit.TinyPipe(
        "flux-true-cfg",
        flux,
        kit.caller(pooled, scale="true_cfg_scale", **SIZE),
        "transformer",
        "separate",
        2,
    ),
    kit.TinyPipe("chroma", chroma, kit.caller(chroma_inputs, **SIZE), "transformer", "separate", 2),
    kit.TinyPipe("aura-flow", aura_flow, kit.caller(masked, **SIZE), "transformer"),
    kit.TinyPipe(
        "qwen-image",
        qwen,
        kit.caller(qwen_inputs, scale="true_cfg_scale", **SIZE),
        "transformer",
        "separate",
        2,
    ),
    kit.TinyPipe("cogview4", cogview4, kit.caller(kit.texts), "transformer", "separate", 2),
)
