"""diffusers' transformers with joint attention: text and picture share one softmax.

There is nothing to gate as cross-attention. Guidance is gated as everywhere, and the `text` gate is
an experiment: where a block has a text stream of its own, the stream's projections, modulation and
feed-forward are reused from the step before the gate. The stream then stands still, its keys and
values with it; its queries still run through the shared softmax, for an output nobody reads.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from tgate_adapters._diffusers import DiffusersAdapter
from tgate_adapters.description import Backbone
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl


def _stream(*parts: str) -> tuple[str, ...]:
    """Parts of the two-stream blocks; those of one stream have other names."""
    return tuple(f"transformer_blocks.*.{part}" for part in parts)


#: What the text stream of a block runs through alone, as SD3 names it, and most do after it.
PROJECTIONS = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
STREAM = _stream("norm1_context", *PROJECTIONS, "ff_context")

#: Positions of tokens, the same for every row.
IDS = frozenset({"img_ids", "txt_ids"})


def _takes_guidance(config: Any) -> bool:
    return bool(getattr(config, "guidance_embeds", False))


def _joint(model: str, recipe: Any = None, **about: Any) -> Backbone:
    return Backbone(model, recipe, cross=(), selfs=(), **about)


TABLE = MappingProxyType(
    {
        about.model: about
        for about in (
            _joint("SD3Transformer2DModel", text=STREAM),
            _joint(
                "FluxTransformer2DModel",
                text=STREAM,
                whole=IDS,
                embeds=_takes_guidance,
                calls="separate",
            ),
            _joint("Flux2Transformer2DModel", calls="separate", embeds=_takes_guidance),
            _joint(
                "QwenImageTransformer2DModel",
                text=_stream("txt_mod", *PROJECTIONS, "txt_mlp"),
                calls="separate",
                embeds=_takes_guidance,
            ),
            _joint(
                "ChromaTransformer2DModel",
                text=STREAM,
                whole=IDS,
                calls="separate",
            ),
            _joint("ZImageTransformer2DModel", sample="x", timestep="t", lists=True),
            _joint("AuraFlowTransformer2DModel"),
            _joint("CogVideoXTransformer3DModel"),
            _joint("CogView3PlusTransformer2DModel"),
            _joint("CogView4Transformer2DModel", calls="separate"),
            _joint("HunyuanVideoTransformer3DModel", calls="separate", embeds=_takes_guidance),
            _joint("HunyuanImageTransformer2DModel", calls="separate"),
            _joint("MochiTransformer3DModel"),
            _joint("Lumina2Transformer2DModel", calls="separate"),
            _joint(
                "HiDreamImageTransformer2DModel",
                timestep="timesteps",
                rows_at={"encoder_hidden_states_llama3": 1},
            ),
            _joint("EasyAnimateTransformer3DModel"),
            _joint("BriaTransformer2DModel", whole=IDS),
            _joint("PRXTransformer2DModel"),
        )
    }
)


class MMDiTAdapter(DiffusersAdapter):
    """Transformers in which text and picture attend together."""

    name = "diffusers-mmdit"
    table = TABLE


@hookimpl
def tgate_register_adapters(register: RegisterAdapter) -> None:
    register("diffusers-mmdit", MMDiTAdapter, models=tuple(TABLE))
