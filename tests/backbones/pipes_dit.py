"""Tiny pipelines around plain transformers: PixArt, Sana, HunyuanDiT, Lumina2, Z-Image."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")

PIXART_TRAINED: dict[str, Any] = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
}


def pixart(kind: str, *, sample_size: int, resolution: bool) -> Any:
    """PixArt; with `resolution` it is conditioned on the picture's size, as PixArt-alpha 1024."""
    return kit.assembled(
        kind,
        kit.seeded(
            diffusers.PixArtTransformer2DModel,
            sample_size=sample_size,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=3,  # the size embedding is a third of the width
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            caption_channels=kit.TEXT_DIM,
            use_additional_conditions=resolution,
        ),
        diffusers.DPMSolverMultistepScheduler(**PIXART_TRAINED),
    )


def pixart_alpha() -> Any:
    return pixart("PixArtAlphaPipeline", sample_size=128, resolution=True)


def pixart_sigma() -> Any:
    return pixart("PixArtSigmaPipeline", sample_size=8, resolution=False)


def sana() -> Any:
    return kit.assembled(
        "SanaPipeline",
        kit.seeded(
            diffusers.SanaTransformer2DModel,
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=kit.TEXT_DIM,
            sample_size=8,
            patch_size=1,
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def hunyuan_dit() -> Any:
    return kit.assembled(
        "HunyuanDiTPipeline",
        kit.seeded(
            diffusers.HunyuanDiT2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=4,  # the last one is the first to take a skip
            attention_head_dim=8,
            num_attention_heads=2,
            hidden_size=16,
            mlp_ratio=2.0,
            cross_attention_dim=kit.TEXT_DIM,
            cross_attention_dim_t5=kit.TEXT_DIM,
            pooled_projection_dim=8,
            text_len=kit.TOKENS,
            text_len_t5=kit.TOKENS,
            activation_fn="gelu-approximate",
        ),
        diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.03, beta_schedule="scaled_linear"),
        text_encoder_2=None,
        tokenizer_2=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def lumina() -> Any:
    """Lumina-Next: cond rows come first, and guidance moves three of four channels."""
    return kit.assembled(
        "LuminaPipeline",
        kit.seeded(
            diffusers.LuminaNextDiT2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=16,
            num_layers=2,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            cross_attention_dim=kit.TEXT_DIM,
        ),
    )


def lumina2() -> Any:
    return kit.assembled(
        "Lumina2Pipeline",
        kit.seeded(
            diffusers.Lumina2Transformer2DModel,
            sample_size=8,
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(64, 32, 32),
            cap_feat_dim=kit.TEXT_DIM,
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def z_image() -> Any:
    return kit.assembled(
        "ZImagePipeline",
        kit.seeded(
            diffusers.ZImageTransformer2DModel,
            in_channels=4,
            dim=16,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=kit.TEXT_DIM,
            axes_dims=[4, 2, 2],
            axes_lens=[64, 32, 32],
        ),
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def masked(draw: Any, batch: int) -> dict[str, Any]:
    return kit.texts(draw, batch) | kit.masks(batch)


def long(draw: Any, batch: int) -> dict[str, Any]:
    """Texts as long as PixArt-sigma allows."""
    return kit.texts(draw, batch, tokens=300) | kit.masks(batch, tokens=300)


def twice(draw: Any, batch: int) -> dict[str, Any]:
    """The embeddings of two text encoders, each with its mask."""
    first, second = masked(draw, batch), masked(draw, batch)
    return first | {f"{name}_2": tensor for name, tensor in second.items()}


def listed(draw: Any, batch: int) -> dict[str, Any]:
    """A list of embeddings a prompt, each of its own length."""
    return {
        name: [embeds[: kit.TOKENS - row] for row, embeds in enumerate(tensor)]
        for name, tensor in kit.texts(draw, batch).items()
    }


SIZE = {"height": 64, "width": 64}
FIXED = SIZE | {"use_resolution_binning": False}
EMBEDDED = FIXED | {"negative_prompt": None}

ROWS = (
    kit.TinyPipe("pixart-alpha", pixart_alpha, kit.caller(masked, **EMBEDDED), "transformer"),
    kit.TinyPipe("pixart-sigma", pixart_sigma, kit.caller(masked, **EMBEDDED), "transformer"),
    kit.TinyPipe(
        "pixart-sigma-300",
        pixart_sigma,
        kit.caller(long, max_sequence_length=300, **EMBEDDED),
        "transformer",
    ),
    kit.TinyPipe(
        "sana",
        sana,
        kit.caller(masked, **EMBEDDED | {"height": 256, "width": 256}),
        "transformer",
    ),
    kit.TinyPipe("hunyuan-dit", hunyuan_dit, kit.caller(twice, **FIXED), "transformer"),
    kit.TinyPipe("lumina", lumina, kit.caller(masked, **SIZE), "transformer", "cond_first"),
    kit.TinyPipe("lumina2", lumina2, kit.caller(masked, **SIZE), "transformer", "separate", 2),
    kit.TinyPipe(
        "z-image",
        z_image,
        kit.caller(listed, unguided=0.0, **SIZE),
        "transformer",
        "cond_first",
    ),
)
