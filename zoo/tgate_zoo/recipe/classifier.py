"""Training of the classifier on real renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tgate_zoo import scenes
from tgate_zoo.classifier import EmojiClassifier, build_classifier, halves
from tgate_zoo.evaluate import judge, summarize
from tgate_zoo.recipe.clock import Budget
from tgate_zoo.recipe.loop import Step, run

PEAK_RATE = 2e-3
BATCH = 96
NOISE = 0.04


def to_pictures(images: NDArray[np.uint8]) -> Tensor:
    """uint8 pictures (n, side, side, 3) to floats (n, 3, side, side) in [0, 1]."""
    floats = torch.from_numpy(np.array(images)).float()
    return (floats / 255).permute(0, 3, 1, 2).contiguous()


def smear(pictures: Tensor) -> Tensor:
    """Blur a random half of the pictures a little and add noise, as a decoder might."""
    blurred = functional.avg_pool2d(
        functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1
    )
    weight = 0.7 * torch.rand(len(pictures), 1, 1, 1) * (torch.rand(len(pictures), 1, 1, 1) < 0.5)
    mixed = pictures + weight * (blurred - pictures)
    return (mixed + NOISE * torch.rand(len(pictures), 1, 1, 1) * torch.randn_like(pictures)).clamp(
        0, 1
    )


def classifier_loss(model: EmojiClassifier, drawn: list[scenes.Scene], pictures: Tensor) -> Tensor:
    """Cross-entropy of both heads; a pair counts by one of its halves for the object."""
    grounds = torch.tensor([scenes.BACKGROUND_NAMES.index(s.background) for s in drawn])
    pair = torch.tensor([s.second is not None for s in drawn])
    use_right = torch.rand(len(drawn)) < 0.5
    left, right = halves(pictures)
    close = torch.where(use_right[:, None, None, None], right, left)
    sides = use_right.long().tolist()
    names = [s.objects[side if s.second else 0] for s, side in zip(drawn, sides, strict=True)]
    targets = torch.tensor([scenes.OBJECT_NAMES.index(name) for name in names])
    objects, _ = model(smear(torch.where(pair[:, None, None, None], close, pictures)))
    _, backgrounds = model(smear(pictures))
    return functional.cross_entropy(objects, targets) + functional.cross_entropy(
        backgrounds, grounds
    )


def train_classifier(
    images: NDArray[np.uint8],
    drawn: list[scenes.Scene],
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int = 0,
    resume: bool = True,
) -> EmojiClassifier:
    """Train on pictures (count, side, side, 3) and the scenes they show."""
    torch.manual_seed(seed)
    model = build_classifier(images.shape[1])

    def loss(rng: np.random.Generator) -> Tensor:
        rows = rng.integers(0, len(images), BATCH)
        return classifier_loss(model, [drawn[i] for i in rows], to_pictures(images[rows]))

    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.05)
    stage = Step(model, optimizer, loss, peak_rate=PEAK_RATE, warmup=100, decay=0.0)
    # Without averaging: the running statistics of the batch norms belong to the last weights.
    run(stage, checkpoint, budget, seed=seed, resume=resume, label="classifier")
    return model.eval()


def real_accuracy(
    model: EmojiClassifier, images: NDArray[np.uint8], drawn: list[scenes.Scene]
) -> dict[str, float]:
    """Shares of right answers on real renders, named as for generated pictures."""
    return summarize(judge(model, drawn, to_pictures(images)))
