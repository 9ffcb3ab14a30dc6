"""Tiny random diffusers pipelines by name: `PIPELINES`, and what is known about each.

    pipelines = load_helper("backbones/pipelines.py")
    row = pipelines.PIPELINES["flux-true-cfg"]
    pipe = row.build()
    latents = row.call(pipe, steps=6, batch=2)

Nothing is downloaded; text encoders are left out wherever a pipeline takes embeddings.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import load_helper

# The table is of this version's pipelines.
pytest.importorskip("diffusers", minversion="0.42")

kit = load_helper("backbones/pipes_kit.py")

#: The files of the table; each has `ROWS`.
FAMILIES = ("sd", "sd_more", "mmdit", "dit", "video", "unet", "modular")

PIPELINES: dict[str, Any] = {
    row.name: row for family in FAMILIES for row in load_helper(f"backbones/pipes_{family}.py").ROWS
}

#: What could not be built, and why.
LEFT_OUT: dict[str, str] = {}

#: How the timestep a backbone is given comes from `scheduler.timesteps`; the rest are views of it.
_NOT_VIEWS: dict[str, str] = {
    "flux": "scaled",
    "flux-true-cfg": "scaled",
    "chroma": "scaled",
    "aura-flow": "scaled",
    "qwen-image": "scaled",
    "lumina": "reversed",
    "lumina2": "reversed",
    "z-image": "reversed",
    "modular-z-image": "reversed",
    "hunyuan-dit": "copied",
    "sana": "copied",
    "wan-ti2v": "copied",
    "allegro": "stale",
    "ledits": "stale",
}

#: By pipeline: `view` (same storage, its offset is the raw index), `stale` (a view of the tensor an
#: earlier `set_timesteps` made: the offset is right, the storage is not the scheduler's), `copied`
#: (a new tensor of the same value), `scaled` (t / 1000), `reversed` (1 - t / 1000).
TIMESTEPS: dict[str, str] = {name: _NOT_VIEWS.get(name, "view") for name in PIPELINES}

#: Where diffusers makes one picture a prompt only: it has no keyword for more, or ignores it, or
#: repeats the latents and not the embeddings it is passed. Pass a larger `batch` instead.
ONE_EACH: frozenset[str] = frozenset(
    {
        "ledits",
        "sd3",
        "sd3-skip-layer",
        "chroma",
        "hunyuan-dit",
        "lumina",
        "lumina2",
        "ltx",
        "cogvideox",
        "mochi",
        "allegro",
        "animatediff",
        "text-to-video",
    }
)

#: What torch and diffusers themselves warn of while these are built and called.
WARNINGS = (
    "ignore:__array_:DeprecationWarning",
    "ignore:`FluxPosEmbed` is deprecated:FutureWarning",
    "ignore:In CPU autocast:UserWarning",
    "ignore:You have passed 2 text prompts:FutureWarning",
    "ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning",
)
