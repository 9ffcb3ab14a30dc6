"""diffusers' transformers with cross-attention to the text, for pictures, video and sound."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from tgate_adapters import recipes_dit as recipes
from tgate_adapters._diffusers import DiffusersAdapter
from tgate_adapters.description import Backbone
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl


def _takes_guidance(config: Any) -> bool:
    """Sana-Sprint's transformer has the guidance scale as an input."""
    return bool(getattr(config, "guidance_embeds", False))


TABLE = MappingProxyType(
    {
        about.model: about
        for about in (
            Backbone("PixArtTransformer2DModel", recipes.pixart),
            Backbone("HunyuanDiT2DModel"),
            Backbone("SanaTransformer2DModel", embeds=_takes_guidance),
            Backbone("SanaVideoTransformer3DModel", embeds=_takes_guidance),
            Backbone("WanTransformer3DModel", calls="separate"),
            Backbone("WanVACETransformer3DModel", calls="separate"),
            Backbone("ChronoEditTransformer3DModel", calls="separate"),
            Backbone("SkyReelsV2Transformer3DModel", calls="separate"),
            Backbone("LTXVideoTransformer3DModel"),
            Backbone("LatteTransformer3DModel", folded=frozenset({"encoder_hidden_states"})),
            Backbone("AllegroTransformer3DModel"),
            Backbone("CosmosTransformer3DModel", calls="separate"),
            Backbone("StableAudioDiTModel"),
            Backbone("LuminaNextDiT2DModel"),
            # Its text is modulated by the time, so that what is kept grows older than elsewhere.
            Backbone("Kandinsky5Transformer3DModel", calls="separate"),
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
