"""How diffusers' pipelines lay out the branches of guidance in their backbone calls: data.

Read off the sources of diffusers 0.42. A pipeline whose class is not here is asked by comparing the
parts of its batch; here nothing need be compared, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from tgate_sampling.layout import LAYOUTS, Layout

#: The layouts of guided runs, by the beginning of the pipeline's class name; the longest counts.
_BEGINNINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "uncond_first": """Allegro AnimateDiff AnyFlow AudioLDM2 AuraFlow BlipDiffusion Bria
            CogVideoX CogView3Plus ConsisID EasyAnimate ErnieImage HiDreamImage HunyuanDiT I2VGenXL
            IF JoyImageEditPlus Kandinsky Kandinsky3 KandinskyV22 Kolors LDM LTX LatentConsistency
            Latte Mochi PRX PixArt Sana ShapE StableAudio StableDiffusion StableUnCLIP
            StableVideoDiffusion TextToVideo VideoToVideoSD""",
        "cond_first": "AceStep DiT Lumina StableCascade ZImage",
        "separate": """BriaFibo2 Chroma ChronoEdit CogView4 Cosmos Flux GlmImage Helios HunyuanImage
            HunyuanSkyreels HunyuanVideo JoyImageEdit Kandinsky5 Kandinsky6 Krea2 LongCat Lucy
            Lumina2 MotifVideo NucleusMoE Ovis QwenImage SkyReelsV2 Wan""",
        "three": "StableDiffusionInstructPix2Pix StableDiffusionXLInstructPix2Pix",
    }
)

#: InstructPix2Pix: text and picture, picture alone, neither.
THREE: Final[Layout] = ("cond", "image", "uncond")

KNOWN: Final[Mapping[str, Layout]] = MappingProxyType(
    {
        start: THREE if kind == "three" else LAYOUTS[kind]
        for kind, names in _BEGINNINGS.items()
        for start in names.split()
    }
)

#: Why guidance stays open, by a part of the pipeline's class name.
OPAQUE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SAG": "reads the attention maps of both branches",
        "Semantic": "combines one branch for each edit",
        "OmniGen": "combines more than two branches",
        "DreamLite": "combines more than two branches",
        "LTX2": "combines predictions of video and audio",
    }
)

#: Why nothing is gated at all, by a part of the pipeline's class name.
ASIDE: Final[Mapping[str, str]] = MappingProxyType(
    {"LEdits": "builds its masks from every attention map of every step"}
)

#: Their `guidance_scale` is an input of the model; the true one is a local variable.
EMBEDDED: Final = ("Flux", "HunyuanSkyreels", "HunyuanVideo", "QwenImage")


def known_layout(pipe: Any) -> Layout | None:
    """How the branches of a guided run lie, by the pipeline's class and its bases.

    >>> class Lumina2Pipeline: pass
    >>> known_layout(Lumina2Pipeline())
    ('separate',)
    """
    for made in type(pipe).__mro__:
        found = [start for start in KNOWN if made.__name__.startswith(start)]
        if found:
            return KNOWN[max(found, key=len)]
    return None


def opaque(pipe: Any) -> str | None:
    """Why the guidance gate must stay open in this pipeline, or None."""
    return _reason(pipe, OPAQUE)


def aside(pipe: Any) -> str | None:
    """Why no gate may close in this pipeline, or None."""
    return _reason(pipe, ASIDE)


def _reason(pipe: Any, table: Mapping[str, str]) -> str | None:
    name = type(pipe).__name__
    return next((f"{name} {reason}" for part, reason in table.items() if part in name), None)
