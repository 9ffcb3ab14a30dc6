"""`explain` on public configurations gives the numbers that are published or were counted for them.

Rows are those of T-GATE's tables, in TMAC for one image at 25 steps: counted with attention's own
products, and without, as the literature does.
"""

from __future__ import annotations

from typing import Any

import pytest

import tgate_sampling as tg

#: UNets of runwayml/stable-diffusion-v1-5, stabilityai/stable-diffusion-2-1 and
#: stabilityai/stable-diffusion-xl-base-1.0; the rest are the class's defaults.
CONFIGS: dict[str, dict[str, Any]] = {
    "sd-1.5": {"sample_size": 64, "cross_attention_dim": 768},
    "sd-2.1": {
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
    "sdxl": {
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
    },
}

FIRST = {"policy": "tgate", "sp_interval": 1, "fi_interval": 1, "warm_up": 0}

#: (model, options, true TMAC, TMAC without attention's products)
PUBLISHED: list[tuple[str, dict[str, Any], float, float]] = [
    ("sd-1.5", {"policy": "never"}, 20.082, 16.931),
    ("sd-1.5", {**FIRST, "gate_step": 10}, 13.817, 11.637),
    ("sd-1.5", {**FIRST, "gate_step": 5}, 11.728, 9.873),
    ("sd-2.1", {"policy": "never"}, 53.728, 38.024),
    ("sd-2.1", {**FIRST, "gate_step": 10}, 37.088, 26.156),
    ("sd-2.1", {**FIRST, "gate_step": 5}, 31.542, 22.200),
    ("sdxl", {"policy": "never"}, 169.031, 149.433),
    ("sdxl", {**FIRST, "gate_step": 10}, 114.163, 100.686),
    ("sdxl", {**FIRST, "gate_step": 5}, 95.873, 84.437),
    ("sdxl", {"policy": "tgate", "gate_step": 10}, 105.707, 95.989),
    ("sdxl", {"policy": "never", "guidance": False, "steps": 4}, 13.522, 11.955),
    ("sdxl", {**FIRST, "gate_step": 1, "guidance": False, "steps": 4}, 12.691, 11.171),
]


def explain(model: str, **options: Any) -> tg.Prediction:
    return tg.explain({"_class_name": "UNet2DConditionModel", **CONFIGS[model]}, **options)


@pytest.mark.parametrize(
    ("model", "options", "true", "layers"),
    PUBLISHED,
    ids=[
        f"{m} {o['policy']} {o.get('gate_step', '')} {o.get('steps', 25)}" for m, o, *_ in PUBLISHED
    ],
)
def test_a_published_row_is_predicted(
    model: str, options: dict[str, Any], true: float, layers: float
) -> None:
    """To the last digit printed, from the configuration alone."""
    done = explain(model, **options).macs.done
    assert (done.true / 1e12, done.layers / 1e12) == pytest.approx((true, layers), abs=6e-4)


def test_half_precision_caches_of_sd15_are_as_large_as_its_outputs() -> None:
    """What 16 cross sites return for one row is 11 M numbers; both branches until they merge."""
    import torch

    prediction = explain("sd-1.5", policy="tgate", sp_interval=1, warm_up=0, dtype=torch.float16)
    sites = 5 * 4096 * 320 + 5 * 1024 * 640 + 5 * 256 * 1280 + 64 * 1280
    assert prediction.peak_cache_bytes == 2 * 2 * sites
