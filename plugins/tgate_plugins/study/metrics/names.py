"""The metrics by name: which way is better, and which are left out here and why."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from tgate_plugins.study.metrics.multiscale import TOO_SMALL, scales
from tgate_plugins.study.metrics.weights import WEIGHTS

#: More is better, less is, or zero is (a shift: its worst is the farthest from zero).
Better: TypeAlias = Literal["more", "less", "zero"]

#: Of every metric that has one value a picture.
BETTER: Final[Mapping[str, Better]] = MappingProxyType(
    {
        "psnr": "more",
        "ssim": "more",
        "ms_ssim": "more",
        "lpips": "less",
        "brightness": "zero",
        "chroma": "zero",
        "sharpness": "zero",
        "object": "more",
        "background": "more",
        "clip_score": "more",
    }
)

_NOT_ZOO: Final = (
    "the classifier reads the emoji scenes of the zoo alone; use a zoo model, or a metric that "
    "needs no classifier"
)


def left_out(model_is_zoo: bool = True, size: tuple[int, int] | None = None) -> dict[str, str]:
    """Why a metric is not measured here and what brings it back, by name of the metric.

    Args:
        model_is_zoo: the pictures are the zoo's, so that its classifier can read them.
        size: (height, width) of the pictures, where it is known.

    Raises:
        OptionError: TGATE_CLIP, TGATE_LPIPS or TGATE_INCEPTION names something that is not there.
    """
    why = {w.metric: w.cure for w in WEIGHTS if w.find() is None}
    if find_spec("torchmetrics") is None:
        why["ms_ssim"] = "torchmetrics is not installed; run `pip install 'tgate-sampling[study]'`"
    elif size is not None and scales(*size) < 2:
        why["ms_ssim"] = TOO_SMALL.format(*size)
    if not model_is_zoo:
        why |= dict.fromkeys(("object", "background", "fid_classifier"), _NOT_ZOO)
    return dict(sorted(why.items()))
