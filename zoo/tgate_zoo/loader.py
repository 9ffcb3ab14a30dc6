"""Finds and loads the models that come with the package."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from tgate_zoo.card import read_facts
from tgate_zoo.small_pixart import small_pixart
from tgate_zoo.untyped import diffusers

MODELS = Path(__file__).parent / "models"


class UnknownModelError(LookupError):
    """The zoo has no model of the asked name."""


def zoo_models(folder: Path = MODELS) -> tuple[str, ...]:
    """Names of the pipelines that `load` takes, sorted."""
    return tuple(sorted(path.parent.name for path in folder.glob("*/model_index.json")))


def model_path(name: str, folder: Path = MODELS) -> Path:
    """The folder of a model, for `from_pretrained`.

    Raises UnknownModelError for a name the zoo does not have.
    """
    names = zoo_models(folder)
    if name not in names:
        near = get_close_matches(name, names, n=3, cutoff=0.4) or list(names)
        known = ", ".join(near) if near else "none: run `python -m tgate_zoo train emoji-sd`"
        raise UnknownModelError(f"The zoo has no model {name!r}; the nearest is {known}.")
    return folder / name


def defaults(name: str, folder: Path = MODELS) -> dict[str, Any]:
    """The steps and the guidance scale a model is made for: {"steps": 25, "guidance": 4.0}.

    Raises UnknownModelError for a name the zoo does not have.
    """
    found: dict[str, Any] = read_facts(model_path(name, folder))["defaults"]
    return found


def load(name: str, dtype: torch.dtype = torch.float32, folder: Path = MODELS) -> Any:
    """The pipeline of a model in the precision `dtype`, without progress bar.

    Its class is the one the folder names. A PixArt pipeline comes with arguments that fit
    pictures of its size, so that `pipeline(prompt)` draws as any other does.

    Raises UnknownModelError for a name the zoo does not have.
    """
    path = model_path(name, folder)
    pipeline = _pipeline_class(path).from_pretrained(path)
    # Converted afterwards, since the argument for it has another name in newer versions.
    for part in pipeline.components.values():
        # Even a cast that changes nothing makes diffusers print a warning.
        if isinstance(part, torch.nn.Module) and part.dtype != dtype:
            part.to(dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _pipeline_class(path: Path) -> Any:
    name = json.loads((path / "model_index.json").read_text())["_class_name"]
    return small_pixart() if name == "PixArtAlphaPipeline" else getattr(diffusers(), name)
