"""CLIP score (Hessel et al. 2021): how well a picture goes with its caption."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tgate_plugins.cli.metrics import eight_bit
from tgate_plugins.study.metrics.pictures import Values, checked
from tgate_plugins.study.metrics.weights import CLIP

BATCH = 32


class _Clip(NamedTuple):
    model: Any
    tokenizer: Any
    processor: Any


def clip_score(images: NDArray[Any], captions: Sequence[str]) -> Values:
    """100 max(cos(picture, caption), 0) of each picture and its caption, (N), in [0, 100].

    The factor is 100, as torchmetrics has it, and not the paper's 2.5. Captions are cut to the
    words that the model takes.

    Raises:
        OptionError: CLIP's weights are not on this machine.
    """
    found = eight_bit(checked(images))
    clip = _load(CLIP.get())
    scores = np.empty(len(found))
    for start in range(0, len(found), BATCH):
        part = slice(start, start + BATCH)
        scores[part] = _cosines(clip, found[part], list(captions[part]))
    return 100 * scores.clip(0, 1)


@torch.inference_mode()
def _cosines(clip: _Clip, images: NDArray[np.uint8], captions: list[str]) -> Values:
    words = clip.tokenizer(
        captions,
        padding=True,
        truncation=True,
        max_length=clip.model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    pixels = clip.processor(
        images=list(images), input_data_format="channels_last", return_tensors="pt"
    )
    out = clip.model(
        input_ids=words["input_ids"],
        attention_mask=words["attention_mask"],
        pixel_values=pixels["pixel_values"],
    )
    # The model has divided both by their lengths.
    cosines: Values = (out.image_embeds * out.text_embeds).sum(-1).double().numpy()
    return cosines


@functools.lru_cache(maxsize=1)
def _load(folder: Path) -> _Clip:
    import transformers

    # The plain name wants torchvision since transformers 5; before, it was this one.
    processor = getattr(transformers, "CLIPImageProcessorPil", None)
    processor = processor or transformers.CLIPImageProcessor
    model: Any = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
    return _Clip(
        model.eval(),
        transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        processor.from_pretrained(folder, local_files_only=True),
    )
