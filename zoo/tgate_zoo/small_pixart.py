"""PixArtAlphaPipeline with arguments that fit pictures smaller than any PixArt knows."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any

from tgate_zoo.untyped import diffusers


@cache
def small_pixart() -> Any:
    """A PixArtAlphaPipeline that leaves sizes and captions as they are unless told otherwise.

    The library's own call rounds every size to one of PixArt's from 256 pixels on, cleans
    captions with packages that may be missing, and pads them to 120 tokens. The class keeps the
    library's name, so that what it saves, and whoever looks at the name, sees the ordinary one.
    """
    base = diffusers().PixArtAlphaPipeline

    @wraps(base.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        fitting = {
            "use_resolution_binning": False,
            "clean_caption": False,
            "max_sequence_length": self.tokenizer.model_max_length,
        }
        return base.__call__(self, *args, **{**fitting, **kwargs})

    return type(base.__name__, (base,), {"__call__": call, "__doc__": base.__doc__})
