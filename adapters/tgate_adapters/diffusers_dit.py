"""diffusers' transformers with cross-attention to the text, for pictures, video and sound."""

from __future__ import annotations

from types import MappingProxyType

from tgate_adapters import recipes_dit as pictures
from tgate_adapters import recipes_video as videos
from tgate_adapters._diffusers import DiffusersAdapter
from tgate_adapters.description import Backbone, takes_guidance
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl

#: Why guidance stays open where one output is not all.
TWO = "the backbone predicts video and sound, and an estimate would stand in for the video alone"


TABLE = MappingProxyType(
    {
        about.model: about
        for about in (
            Backbone("PixArtTransformer2DModel", pictures.pixart),
            Backbone("HunyuanDiT2DModel", pictures.hunyuan_dit),
            Backbone("SanaTransformer2DModel", pictures.sana, embeds=takes_guidance),
            Backbone("SanaVideoTransformer3DModel", videos.sana_video, embeds=takes_guidance),
            Backbone("WanTransformer3DModel", videos.wan, calls="separate"),
            Backbone(
                "WanVACETransformer3DModel",
                videos.wan_vace,
                # One number a controlling block, though there may be as many rows.
                whole=frozenset({"control_hidden_states_scale"}),
                calls="separate",
            ),
            # Its further cross-attention, to the face's motion, is left alone: the motion moves.
            Backbone("WanAnimateTransformer3DModel", videos.wan_animate, calls="separate"),
            Backbone("ChronoEditTransformer3DModel", videos.wan, calls="separate"),
            Backbone("SkyReelsV2Transformer3DModel", videos.skyreels, calls="separate"),
            Backbone("AnyFlowTransformer3DModel", videos.anyflow),
            # Goes on from frames it has cached, so its calls answer with a cache of their own too.
            Backbone(
                "AnyFlowFARTransformer3DModel",
                videos.anyflow_far,
                rows_at={"kv_cache": 1},
                opaque="AnyFlowFARTransformer3DModel answers with a cache of both branches",
            ),
            Backbone("HeliosTransformer3DModel", videos.helios, calls="separate"),
            Backbone("LTXVideoTransformer3DModel", videos.ltx),
            Backbone(
                "LTX2VideoTransformer3DModel",
                videos.ltx2,
                cross=("attn2", "audio_attn2"),
                selfs=("attn1", "audio_attn1"),
                opaque=TWO,
            ),
            Backbone(
                "LatteTransformer3DModel",
                videos.latte,
                folded=frozenset({"encoder_hidden_states"}),
            ),
            Backbone("AllegroTransformer3DModel", videos.allegro),
            Backbone("CosmosTransformer3DModel", videos.cosmos, calls="separate"),
            # Their text is modulated by the time, so that what is kept grows older than elsewhere.
            Backbone(
                "Kandinsky5Transformer3DModel",
                videos.kandinsky_5,
                calls="separate",
            ),
            Backbone(
                "Kandinsky6Transformer3DModel",
                videos.kandinsky_6,
                opaque=TWO,
                calls="separate",
            ),
            Backbone("StableAudioDiTModel", pictures.stable_audio),
            Backbone("StableAudio3DiTModel", pictures.stable_audio_3),
            Backbone("AceStepTransformer1DModel", pictures.ace_step),
            Backbone("LongCatAudioDiTTransformer", pictures.longcat_audio, calls="separate"),
            Backbone("LuminaNextDiT2DModel", pictures.lumina_next),
            Backbone("DiTTransformer2DModel", pictures.dit),
        )
    }
)


class DiTAdapter(DiffusersAdapter):
    """Transformers in which text comes in by attention of its own."""

    name = "diffusers-dit"
    table = TABLE


@hookimpl
def tgate_register_adapters(register: RegisterAdapter) -> None:
    register("diffusers-dit", DiTAdapter, models=tuple(TABLE))
