"""`explain` on public configurations gives the numbers that are published or were counted for them.

Rows are those of T-GATE's tables, in TMAC for one image at 25 steps: counted with attention's own
products, and without, as the literature does.
"""

from __future__ import annotations

from typing import Any

import pytest

import tgate_sampling as tg

#: UNets of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1,
#: stabilityai/stable-diffusion-xl-base-1.0 and latent-consistency/lcm-sdxl, transformers of
#: PixArt-alpha/PixArt-XL-2-1024-MS and PixArt-alpha/PixArt-Sigma-XL-2-1024-MS; the rest are the
#: class's defaults.
SDXL: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
PIXART: dict[str, Any] = {
    "_class_name": "PixArtTransformer2DModel",
    "sample_size": 128,
    "caption_channels": 4096,
    "in_channels": 4,
    "out_channels": 8,
    "use_additional_conditions": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd-1.5": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "cross_attention_dim": 768,
    },
    "sd-2.1": {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": SDXL,
    "lcm-sdxl": {**SDXL, "time_cond_proj_dim": 256},
    "pixart-alpha": PIXART,
    "pixart-sigma": {**PIXART, "use_additional_conditions": False, "interpolation_scale": 2},
}

#: Text tokens of a prompt, where they are not CLIP's 77.
TOKENS = {"pixart-alpha": 120, "pixart-sigma": 300}


def first(gate_step: int) -> dict[str, Any]:
    """T-GATE's first schedule: self-attention is computed in every step."""
    schedule = {"sp_interval": 1, "fi_interval": 1, "warm_up": 0}
    return {"policy": "tgate", "gate_step": gate_step, **schedule}


def second(gate_step: int, sp_interval: int) -> dict[str, Any]:
    """Its second: self-attention is reused between every few steps before the gate."""
    schedule = {"sp_interval": sp_interval, "fi_interval": 1, "warm_up": 2}
    return {"policy": "tgate", "gate_step": gate_step, **schedule}


NEVER = {"policy": "never"}

#: Four steps of a model without a second branch: LCM-SDXL takes its guidance as an input, and
#: LCM-PixArt is PixArt-alpha called without guidance.
FOUR = {"guidance": False, "steps": 4}

#: (model, options, published TMAC or None, TMAC without attention's products, true TMAC). In
#: T-GATE's first table the gate step is 5, and 8 for PixArt, though its text says 10.
ROWS: list[tuple[str, dict[str, Any], float | None, float, float]] = [
    ("sd-1.5", NEVER, 16.938, 16.931, 20.082),
    ("sd-1.5", first(10), None, 11.637, 13.817),
    ("sd-1.5", first(5), 9.875, 9.873, 11.728),
    ("sd-2.1", NEVER, 38.041, 38.024, 53.728),
    ("sd-2.1", first(10), None, 26.156, 37.088),
    ("sd-2.1", first(5), 22.208, 22.200, 31.542),
    ("sdxl", NEVER, 149.438, 149.433, 169.031),
    ("sdxl", first(10), None, 100.686, 114.163),
    ("sdxl", first(5), 84.438, 84.437, 95.873),
    ("sdxl", second(10, 5), 95.988, 95.989, 105.707),
    ("lcm-sdxl", {**NEVER, **FOUR}, 11.955, 11.955, 13.522),
    ("lcm-sdxl", {**first(1), **FOUR}, 11.171, 11.171, 12.691),
    ("pixart-alpha", NEVER, 107.031, 107.036, 162.738),
    ("pixart-alpha", first(10), 70.225, 70.225, 108.741),
    ("pixart-alpha", first(8), 65.318, 65.317, 101.542),
    ("pixart-alpha", second(15, 3), 73.971, 73.972, 103.064),
    ("pixart-alpha", {**NEVER, **FOUR}, 8.563, 8.563, 13.019),
    ("pixart-alpha", {**first(1), **FOUR}, 7.623, 7.623, 11.984),
    ("pixart-sigma", NEVER, 107.766, 107.759, 165.839),
    ("pixart-sigma", second(15, 3), 74.420, 74.417, 104.936),
]


def explain(model: str, **options: Any) -> tg.Prediction:
    tokens = TOKENS.get(model, 77)
    return tg.explain(CONFIGS[model], tokens=tokens, **options)


def label(model: str, options: dict[str, Any]) -> str:
    """What a row is called in a test's name."""
    gate = f"gate {options['gate_step']}" if "gate_step" in options else "ungated"
    return f"{model}, {options.get('steps', 25)} steps, {gate}, sp {options.get('sp_interval', 1)}"


@pytest.mark.parametrize(
    ("model", "options", "published", "layers", "true"),
    ROWS,
    ids=[label(model, options) for model, options, *_ in ROWS],
)
def test_a_published_row_is_predicted(
    model: str, options: dict[str, Any], published: float | None, layers: float, true: float
) -> None:
    """The published number to 0.1 %, ours to the last digit, from the configuration alone."""
    done = explain(model, **options).macs.done
    assert (done.layers / 1e12, done.true / 1e12) == pytest.approx((layers, true), abs=6e-4)
    if published is not None:
        assert done.layers / 1e12 == pytest.approx(published, rel=1e-3)
    if published is not None and "gate_step" in options:  # and no other gate step gives it
        later = explain(model, **options | {"gate_step": options["gate_step"] + 1})
        assert later.macs.done.layers / 1e12 != pytest.approx(published, rel=1e-3)


def test_every_model_of_the_tables_is_asked_for() -> None:
    """Each configuration has its ungated row, so that a saving can be read off."""
    assert {model for model, options, *_ in ROWS if options["policy"] == "never"} == set(CONFIGS)


def test_half_precision_caches_of_sd15_are_as_large_as_its_outputs() -> None:
    """What 16 cross sites return for one row is 11 M numbers; both branches until they merge."""
    import torch

    prediction = explain("sd-1.5", policy="tgate", sp_interval=1, warm_up=0, dtype=torch.float16)
    sites = 5 * 4096 * 320 + 5 * 1024 * 640 + 5 * 256 * 1280 + 64 * 1280
    assert prediction.peak_cache_bytes == 2 * 2 * sites
