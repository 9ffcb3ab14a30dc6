"""Where the weights of other people's metrics lie on this machine; nothing is downloaded.

`TGATE_CLIP` (metric `clip_score`): the folder of a transformers `CLIPModel` with its tokenizer and
image processor, or the id of one in the Hugging Face cache. Unset, OpenAI's three are looked for in
that cache.

`TGATE_LPIPS` (`lpips`): the TorchScript file `vgg16.pt` of StyleGAN2-ADA. Unset,
`vgg16_stylegan.pth` is looked for in the folder of torch hub's checkpoints, where torch-fidelity
keeps it.

`TGATE_INCEPTION` (`fid_inception`): the TorchScript file `inception-2015-12-05.pt` of
StyleGAN2-ADA. Unset, that name is looked for in the same folder.

TorchScript, since every Python package that builds these two networks needs torchvision, which
this project does not install. Both files come under licences of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from tgate_sampling.errors import OptionError

CLIPS: Final = (
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-base-patch16",
    "openai/clip-vit-base-patch32",
)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one metric.

    Args:
        metric: what needs them.
        variable: environment variable that names them.
        named: the place that the variable's value means, None where nothing usable is there.
        usual: looks where they usually are.
        what: they are, in words.
    """

    metric: str
    variable: str
    named: Callable[[str], Path | None]
    usual: Callable[[], Path | None]
    what: str

    def find(self) -> Path | None:
        """Where they are; None where they are not.

        Raises:
            OptionError: the variable names something else: who sets it wants the metric.
        """
        value = os.environ.get(self.variable)
        if not value:
            return self.usual()
        found = self.named(value)
        if found is None:
            raise OptionError(
                f"{self.variable} names {value!r}, which is not {self.what}; "
                f"correct it, or unset it to leave {self.metric} out."
            )
        return found

    def get(self) -> Path:
        """Where they are.

        Raises:
            OptionError: they are not.
        """
        found = self.find()
        if found is None:
            raise OptionError(f"{self.metric} was asked for, but {self.cure}.")
        return found

    @property
    def cure(self) -> str:
        """Why the metric is left out and what brings it back."""
        return (
            f"its weights are not on this machine and are never downloaded; get {self.what} and "
            f"set {self.variable} to it"
        )


def _file(value: str) -> Path | None:
    path = Path(value).expanduser()
    return path if path.is_file() else None


def _checkpoint(name: str) -> Callable[[], Path | None]:
    return lambda: _file(str(Path(torch.hub.get_dir(), "checkpoints", name)))


def _clip(value: str) -> Path | None:
    folder = Path(value).expanduser()
    return folder if _is_clip(folder) else _cached(value)


def _usual_clip() -> Path | None:
    return next((found for name in CLIPS if (found := _cached(name))), None)


def _cached(name: str) -> Path | None:
    """The snapshot of a repository in the Hugging Face cache, complete."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:  # not the id of a repository
        return None
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder is not None and _is_clip(folder) else None


def _is_clip(folder: Path) -> bool:
    model = any((folder / n).is_file() for n in ("model.safetensors", "pytorch_model.bin"))
    words = any((folder / n).is_file() for n in ("tokenizer.json", "vocab.json"))
    rest = all((folder / n).is_file() for n in ("config.json", "preprocessor_config.json"))
    return model and words and rest


CLIP: Final = Weights(
    "clip_score",
    "TGATE_CLIP",
    _clip,
    _usual_clip,
    f"a folder with a CLIPModel, its tokenizer and its image processor, such as {CLIPS[0]}",
)
LPIPS: Final = Weights(
    "lpips",
    "TGATE_LPIPS",
    _file,
    _checkpoint("vgg16_stylegan.pth"),
    "the file vgg16.pt that StyleGAN2-ADA publishes (no package here builds LPIPS without "
    "torchvision)",
)
INCEPTION: Final = Weights(
    "fid_inception",
    "TGATE_INCEPTION",
    _file,
    _checkpoint("inception-2015-12-05.pt"),
    "the file inception-2015-12-05.pt that StyleGAN2-ADA publishes (no package here builds "
    "FID's Inception without torchvision)",
)
WEIGHTS: Final = (CLIP, LPIPS, INCEPTION)
