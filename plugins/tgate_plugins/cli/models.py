"""Models by zoo name, folder or hub id, on the right device."""

from __future__ import annotations

import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from tgate_sampling.errors import OptionError, UnknownNameError, nearest
from tgate_zoo.loader import MODELS, load, zoo_models
from tgate_zoo.scenes import PROMPTS
from tgate_zoo.untyped import diffusers, transformers

DTYPES: Final = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

#: Of the study's prompts: two objects the model has seen on this background, two it has not, and
#: a pair of each kind.
ZOO_PROMPTS: Final = tuple(PROMPTS[i] for i in (0, 1, 24, 25, 48, 56))

#: For every other model.
COMMON_PROMPTS: Final = (
    "a photograph of an astronaut riding a horse on mars",
    "a still life with a bowl of lemons, oil on canvas",
    "a red fox in the snow at dawn, portrait",
    "a street in the rain at night, neon signs",
)


def default_prompts(model: str) -> tuple[str, ...]:
    """Prompts that suit a model, for when a person gives none."""
    return ZOO_PROMPTS if model in zoo_models() else COMMON_PROMPTS


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` takes an accelerator where there is one.

    Raises:
        OptionError: there is no such device here.
    """
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else None
        return torch.device(found or ("mps" if torch.backends.mps.is_available() else "cpu"))
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(
            f"--device {name!r} cannot be used here ({_first_line(error)}): try --device cpu."
        ) from error
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; `auto` is float16 on an accelerator and float32 on a CPU.

    Raises:
        UnknownNameError: there is none.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.float16
    if name not in DTYPES:
        raise UnknownNameError(f"--dtype {name!r} is unknown. {nearest(name, [*DTYPES, 'auto'])}")
    return DTYPES[name]


def check_model(name: str) -> None:
    """Refuse what can be neither a zoo model, a folder, nor a hub id; looks at no network.

    Raises:
        UnknownNameError: with the nearest zoo model, or the folder that is missing.
    """
    folder = Path(name)
    if name in zoo_models() or (folder / "model_index.json").is_file():
        return
    if folder.exists():
        raise UnknownNameError(
            f"{name!r} is no diffusers pipeline: it holds no model_index.json. Give the folder "
            "that save_pretrained() wrote."
        )
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UnknownNameError(f"there is no folder {name!r}. {_offer(name)}")
    if "/" not in name:
        raise UnknownNameError(f"no model is called {name!r}. {_offer(name)}")


def load_pipeline(name: str, *, device: torch.device, dtype: torch.dtype) -> Any:
    """The pipeline of a zoo name, a folder or a hub id, without its progress bar.

    Raises:
        UnknownNameError: nothing of that name could be loaded.
    """
    check_model(name)
    _quieten()
    try:
        with _hushed():
            pipe = load(name, dtype) if name in zoo_models() else _from_pretrained(name, dtype)
    except OSError as error:  # what huggingface_hub and diffusers raise, offline or not found
        raise UnknownNameError(
            f"model {name!r} could not be loaded ({_first_line(error)}). {_offer(name)}"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def _from_pretrained(name: str, dtype: torch.dtype) -> Any:
    return diffusers().DiffusionPipeline.from_pretrained(name, torch_dtype=dtype)


def _quieten() -> None:
    """No bar for each part of a model, no word on image processors that nobody asked for."""
    # First transformers: diffusers' pipelines import from it, which is when it speaks.
    transformers().utils.logging.set_verbosity_error()
    transformers().utils.logging.disable_progress_bar()
    diffusers().utils.logging.disable_progress_bar()
    for handler in logging.getLogger("diffusers").handlers:
        if not any(isinstance(f, _Once) for f in handler.filters):
            handler.addFilter(_Once())


@contextmanager
def _hushed() -> Iterator[None]:
    """What loading says by the way is nobody's business; what it raises is said in a sentence."""
    speech = diffusers().utils.logging
    before = speech.get_verbosity()
    speech.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # diffusers 0.42 renamed it to `dtype`; 0.29, our oldest, knows the old name only.
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            # 0.29 warns of a name that it imports itself.
            warnings.filterwarnings("ignore", "`Transformer2DModelOutput` is", FutureWarning)
            yield
    finally:
        speech.set_verbosity(before)


class _Once(logging.Filter):
    """Each message once: a prompt that is too long is so for every method."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        new = message not in self._said
        self._said.add(message)
        return new


def _offer(name: str) -> str:
    known = zoo_models()
    if not known:
        return f"The zoo in {MODELS} is empty: give a folder, or a hub id as in 'owner/name'."
    return f"{nearest(name, known)[:-1]}, or a folder, or a hub id as in 'owner/name'."


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return textwrap.shorten(line, 120, placeholder=" ...").rstrip(".")
