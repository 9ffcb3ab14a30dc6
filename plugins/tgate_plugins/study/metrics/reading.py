"""What a network reads in a picture: features for FID, and the zoo's object and background."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_plugins.study.metrics.pictures import Pictures, Values, checked, pieces, to_tensor
from tgate_plugins.study.metrics.scripted import inception_features
from tgate_sampling.errors import OptionError
from tgate_zoo import scenes
from tgate_zoo.classifier import EmojiClassifier, load_classifier
from tgate_zoo.evaluate import judge
from tgate_zoo.loader import MODELS


def features(
    images: NDArray[Any], kind: Literal["classifier", "inception"] = "classifier"
) -> Values:
    """Features of each picture for `fid`, (N, d).

    Args:
        images: (N, height, width, 3) in [0, 1].
        kind: `classifier`: 96 of the zoo's own classifier, its last convolution averaged over the
            picture: for the zoo's emoji scenes alone. `inception`: 2,048 of the Inception that
            FID was defined on, with its weights (see `left_out`).

    Raises:
        OptionError: these are no such pictures, or the weights are not here.
    """
    found = checked(images)
    if kind == "inception":
        return inception_features(found)
    model = classifier()
    parts = [_pooled(model, to_tensor(_zoo(model, found)[part])) for part in pieces(found)]
    return np.concatenate([p.numpy() for p in parts] or [np.empty((0, 96))]).astype(np.float64)


def accuracy(images: NDArray[Any], captions: Sequence[str]) -> dict[str, Values]:
    """`object` and `background` of each picture, (N): 1 where it shows what its caption asks for.

    NaN where the caption is not of the zoo's grammar, so that nothing can be said.
    """
    found = checked(images)
    model = classifier()
    scenes_ = [_scene(caption) for caption in captions]
    asked = [i for i, scene in enumerate(scenes_) if scene is not None]
    right = {name: np.full(len(found), np.nan) for name in ("object", "background")}
    pictures = _zoo(model, found)[asked]
    drawn = [scene for scene in scenes_ if scene is not None]
    for part in pieces(pictures):
        verdicts = judge(model, drawn[part], to_tensor(pictures[part]))
        places = asked[part]
        right["object"][places] = [v.objects for v in verdicts]
        right["background"][places] = [v.background for v in verdicts]
    return right


@functools.cache
def classifier() -> EmojiClassifier:
    """The zoo's classifier, loaded once."""
    return load_classifier(MODELS / "emoji-classifier")


@torch.inference_mode()
def _pooled(model: EmojiClassifier, pictures: torch.Tensor) -> torch.Tensor:
    return model.features(pictures)


def _zoo(model: EmojiClassifier, images: Pictures) -> Pictures:
    side = model.side
    if images.shape[1:3] != (side, side):
        raise OptionError(
            f"The zoo's classifier reads pictures of {side} x {side} px and got "
            f"{images.shape[1]} x {images.shape[2]}; leave its metrics out of other models'."
        )
    return images


def _scene(caption: str) -> scenes.Scene | None:
    try:
        return scenes.parse_caption(caption)
    except ValueError:
        return None
