"""Reads the object and the background of a picture, to measure what a model draws."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tgate_zoo import scenes

WEIGHTS = "model.safetensors"
CONFIG = "config.json"

_README = """# emoji-classifier

Reads the object and the background of an emoji scene of `tgate_zoo.scenes`. It measures what
`emoji-sd` draws (`python -m tgate_zoo evaluate emoji-sd`) and is a ruler, not a model to build on:
trained on real renders of every object on every background, those held out from `emoji-sd`
included. `config.json` names the classes and the share of unseen renders it reads right.

`tgate_zoo.classifier.load_classifier` loads it. `python -m tgate_zoo train emoji-sd --stage
classifier --out DIR` makes it.

License: Apache-2.0. The emoji glyphs are Noto Emoji by Google; the font is under the SIL Open Font
License 1.1 and its pictures under the Apache License 2.0. Only rendered pictures were trained on.
"""


class EmojiClassifier(nn.Module):
    """A small convolutional network with a head for the object and one for the background.

    Takes pictures of shape (n, 3, side, side) with values in [0, 1] and gives logits of shape
    (n, objects) and (n, backgrounds). The object logits mean something for one object only; cut
    a pair with `halves` first.
    """

    def __init__(self, objects: int, backgrounds: int, side: int) -> None:
        super().__init__()
        self.side = side
        widths = (24, 48, 80, 96)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((3, *widths[:-1]), widths, strict=True)):
            layers += [
                nn.Conv2d(before, after, 3, stride=1 if i == 0 else 2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))
        features = widths[-1] * (side // 8) ** 2
        self.objects = nn.Linear(features, objects)
        self.backgrounds = nn.Linear(features, backgrounds)

    def features(self, pictures: Tensor) -> Tensor:
        """What the last convolution sees, averaged over the picture; shape (n, 96).

        For distances between sets of pictures, such as the Frechet distance.
        """
        # Without flattening and dropout, the last two layers.
        maps: Tensor = self.body[:-2](pictures * 2 - 1)
        return maps.mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Object logits and background logits."""
        features = self.body(pictures * 2 - 1)
        return self.objects(features), self.backgrounds(features)


def build_classifier(side: int = scenes.IMAGE_SIZE) -> EmojiClassifier:
    """A fresh classifier for the scenes' objects and backgrounds."""
    return EmojiClassifier(len(scenes.OBJECT_NAMES), len(scenes.BACKGROUND_NAMES), side)


def halves(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The left and the right object of pairs, (n, 3, side, side), each enlarged to that shape."""
    side = pictures.shape[-1]
    quarter, half = side // 4, side // 2
    rows = pictures[:, :, quarter : quarter + half]
    left, right = (
        functional.interpolate(part, size=(side, side), mode="bilinear")
        for part in (rows[..., :half], rows[..., half:])
    )
    return left, right


def save_classifier(
    model: EmojiClassifier, folder: Path, right: dict[str, float], tested: int
) -> None:
    """Write the weights, the names of the classes, and how well it read `tested` real renders."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / WEIGHTS)
    # safetensors writes files that nobody else may read.
    (folder / WEIGHTS).chmod(0o644)
    config = {
        "side": model.side,
        "objects": list(scenes.OBJECT_NAMES),
        "backgrounds": list(scenes.BACKGROUND_NAMES),
        "measured": {"scenes": tested, "right": right},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    (folder / "README.md").write_text(_README)


def load_classifier(folder: Path) -> EmojiClassifier:
    """The classifier of a folder, ready to measure.

    Raises FileNotFoundError when there is none and ValueError when its classes are not the
    scenes' present ones.
    """
    from safetensors.torch import load_file

    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"The classifier was looked for in {folder} and is not there; run "
            "`python -m tgate_zoo train emoji-sd --stage classifier` first."
        )
    config = json.loads((folder / CONFIG).read_text())
    names = (tuple(config["objects"]), tuple(config["backgrounds"]))
    if names != (scenes.OBJECT_NAMES, scenes.BACKGROUND_NAMES):
        raise ValueError(
            f"The classifier in {folder} knows other objects or backgrounds than the scenes; run "
            "`python -m tgate_zoo train emoji-sd --stage classifier` again."
        )
    model = build_classifier(int(config["side"]))
    model.load_state_dict(load_file(folder / WEIGHTS))
    return model.eval()


@torch.no_grad()
def read_objects(model: EmojiClassifier, pictures: Tensor) -> list[str]:
    """The object of each picture; `pictures` (n, 3, side, side) in [0, 1]."""
    return [scenes.OBJECT_NAMES[i] for i in model(pictures)[0].argmax(dim=1).tolist()]


@torch.no_grad()
def read_backgrounds(model: EmojiClassifier, pictures: Tensor) -> list[str]:
    """The background of each picture; `pictures` (n, 3, side, side) in [0, 1]."""
    return [scenes.BACKGROUND_NAMES[i] for i in model(pictures)[1].argmax(dim=1).tolist()]
