"""diffusers' transformers with joint attention: text and picture share one softmax.

There is nothing to gate as cross-attention. Guidance is gated as everywhere, and the `text` gate is
an experiment: where a block has a text stream of its own, the stream's projections, modulation and
feed-forward are reused from the step before the gate. The stream then stands still, its keys and
values with it; its queries still run through the shared softmax, for an output nobody reads.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from tgate_adapters import recipes_mmdit as pictures
from tgate_adapters import recipes_mmdit_video as videos
from tgate_adapters._diffusers import DiffusersAdapter
from tgate_adapters.description import Backbone, takes_guidance
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl


def _stream(*parts: str) -> tuple[str, ...]:
    """Parts of the two-stream blocks; those of one stream have other names."""
    return tuple(f"transformer_blocks.*.{part}" for part in parts)


#: What the text stream of a block runs through alone, as SD3 names it, and most do after it.
PROJECTIONS = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
STREAM = _stream("norm1_context", *PROJECTIONS, "ff_context")

#: Positions of frames, the same for every row.
FRAMES = frozenset(
    f"indices_{name}"
    for name in ("latents", "latents_clean", "latents_history_2x", "latents_history_4x")
)


def _joint(model: str, recipe: Any = None, **about: Any) -> Backbone:
    return Backbone(model, recipe, cross=(), selfs=(), **about)


TABLE = MappingProxyType(
    {
        about.model: about
        for about in (
            _joint("SD3Transformer2DModel", pictures.sd3, text=STREAM),
            _joint(
                "FluxTransformer2DModel",
                pictures.flux,
                text=STREAM,
                embeds=takes_guidance,
                calls="separate",
            ),
            _joint(
                "Flux2Transformer2DModel", pictures.flux_2, calls="separate", embeds=takes_guidance
            ),
            _joint(
                "QwenImageTransformer2DModel",
                pictures.qwen_image,
                text=_stream("txt_mod", *PROJECTIONS, "txt_mlp"),
                calls="separate",
                embeds=takes_guidance,
            ),
            _joint(
                "ChromaTransformer2DModel",
                pictures.chroma,
                text=STREAM,
                calls="separate",
            ),
            _joint(
                "ZImageTransformer2DModel", pictures.z_image, sample="x", timestep="t", lists=True
            ),
            _joint("AuraFlowTransformer2DModel", pictures.aura_flow),
            _joint("CogVideoXTransformer3DModel", videos.cogvideox),
            _joint("CogView3PlusTransformer2DModel", pictures.cogview),
            _joint("CogView4Transformer2DModel", pictures.cogview, calls="separate"),
            _joint(
                "HunyuanVideoTransformer3DModel",
                videos.hunyuan_video,
                calls="separate",
                embeds=takes_guidance,
            ),
            _joint(
                "HunyuanImageTransformer2DModel",
                pictures.hunyuan_image,
                calls="separate",
                embeds=takes_guidance,
            ),
            _joint("MochiTransformer3DModel", videos.mochi),
            _joint("Lumina2Transformer2DModel", pictures.lumina_2, calls="separate"),
            _joint(
                "HiDreamImageTransformer2DModel",
                pictures.hidream,
                timestep="timesteps",
                rows_at={"encoder_hidden_states_llama3": 1},
            ),
            _joint("EasyAnimateTransformer3DModel", videos.easy_animate),
            _joint("BriaTransformer2DModel", pictures.bria),
            _joint("PRXTransformer2DModel", pictures.prx),
            _joint("BriaFiboTransformer2DModel", pictures.bria_fibo),
            _joint("OvisImageTransformer2DModel", pictures.plain, calls="separate"),
            _joint("LongCatImageTransformer2DModel", pictures.plain, calls="separate"),
            _joint("Flux3Transformer2DModel", pictures.flux_3, calls="separate"),
            _joint("NucleusMoEImageTransformer2DModel", pictures.nucleus, calls="separate"),
            _joint("Krea2Transformer2DModel", pictures.krea_2, calls="separate"),
            _joint("GlmImageTransformer2DModel", pictures.glm_image, calls="separate"),
            _joint("ErnieImageTransformer2DModel", pictures.ernie_image),
            _joint("JoyImageEditTransformer3DModel", pictures.joy_image_edit, calls="separate"),
            _joint("HunyuanVideo15Transformer3DModel", videos.hunyuan_video_15, calls="separate"),
            _joint(
                "HunyuanVideoFramepackTransformer3DModel",
                videos.framepack,
                whole=FRAMES,
                embeds=takes_guidance,
                calls="separate",
            ),
            _joint("MotifVideoTransformer3DModel", videos.motif_video, calls="separate"),
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
