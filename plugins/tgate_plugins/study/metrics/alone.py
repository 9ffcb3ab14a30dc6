"""What pictures are on their own: does each show what its caption asks for?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from tgate_plugins.study.metrics.clip import clip_score
from tgate_plugins.study.metrics.pictures import Values, checked
from tgate_plugins.study.metrics.reading import accuracy
from tgate_plugins.study.metrics.weights import CLIP
from tgate_sampling.errors import OptionError


def alone(images: NDArray[Any], captions: Sequence[str], model_is_zoo: bool) -> dict[str, Values]:
    """Every metric of a picture and its caption that can be measured here; one value each, (N).

    `object` and `background`: 1 right, 0 wrong, NaN not of the zoo's grammar; of zoo models
    alone. `clip_score`: with CLIP's weights.

    Raises:
        OptionError: these are no pictures with a caption each.
    """
    found = checked(images)
    if len(captions) != len(found):
        raise OptionError(
            f"Metrics take a caption a picture and got {len(captions)} for {len(found)}; repeat a "
            "prompt for each of its seeds."
        )
    measured = accuracy(found, captions) if model_is_zoo else {}
    if CLIP.find() is not None:
        measured["clip_score"] = clip_score(found, captions)
    return measured
