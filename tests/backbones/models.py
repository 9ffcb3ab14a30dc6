"""Every tiny backbone: `MODELS` by name, and what is `LEFT_OUT` of diffusers, with the reason.

tiny = MODELS["FluxTransformer2DModel"]
model = tiny.build()
model(**tiny.inputs(2), **tiny.timestep(2, 500.0), return_dict=False)
"""

from __future__ import annotations

import pytest

from tests.backbones import (
    dits,
    mmdit_videos,
    mmdits,
    one_stream,
    packed,
    sounds,
    streams,
    unets,
    video_unets,
    videos,
    wans,
)
from tests.backbones.tiny import WARNINGS, Tiny, table

# The table is of this version's classes.
pytest.importorskip("diffusers", minversion="0.42")

__all__ = ["LEFT_OUT", "MODELS", "WARNINGS", "Tiny"]

PARTS = (
    unets,
    video_unets,
    dits,
    sounds,
    wans,
    videos,
    streams,
    mmdits,
    packed,
    one_stream,
    mmdit_videos,
)

MODELS: dict[str, Tiny] = table([tiny for part in PARTS for tiny in part.MODELS.values()])

#: Every other class of diffusers that denoises, and why it is no row of the table.
LEFT_OUT: dict[str, str] = {
    "Cosmos3OmniTransformer": "takes one packed sequence of index lists: a call has no rows",
    "MiniMaxH3Transformer3DModel": "takes one packed sequence of index lists: a call has no rows",
    "WanAnimate2Transformer3DModel": "denoises only with a cache that another call filled",
    "SanaWMLTX2RefinerTransformer3DModel": "denoises only with a cache that another call filled",
    "MiniMaxMusic3RVQDepthDecoder": "is autoregressive: it has no timestep",
    "UVit2DModel": "fills in masked tokens: it has no timestep",
    "UNet1DModel": "reads no prompt",
    "UNet2DModel": "reads no prompt",
    "Kandinsky6SRTransformer3DModel": "reads no prompt",
    "RFD4ProteinaTransformer": "makes proteins: some forty features in place of a prompt",
    "T5FilmDecoder": "made for deprecated pipelines",
    "Transformer2DModel": "a part of UNets; its use as a backbone is deprecated",
    "DreamLiteTransformer2DModel": "a part of DreamLiteUNetModel",
    "TransformerTemporalModel": "a part of video UNets",
    "MotionAdapter": "a part of UNetMotionModel: weights without a forward",
}
