"""A study's model, loaded: the pipeline with its sampler, warmed up, and what is known of it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from tgate_plugins.cli.bench import WARM_UP_STEPS
from tgate_plugins.cli.models import check_model, load_pipeline, pick_device, pick_dtype
from tgate_plugins.cli.samplers import find_sampler, set_sampler
from tgate_plugins.study.spec import Subject
from tgate_sampling.cost import Footprint
from tgate_sampling.errors import OptionError
from tgate_sampling.method import Setting
from tgate_zoo.loader import zoo_models
from tgate_zoo.untyped import diffusers

#: A sampler beside those of `compare`: a latent-consistency model has a scheduler of its own.
LCM: Final = "lcm"


@dataclass
class Loaded:
    """A pipeline that is ready.

    Args:
        pipe: of diffusers, without progress bar.
        subject: which model it is.
        footprints: what a backbone call of some shape costs; counted once, not once a picture.
    """

    pipe: Any
    subject: Subject
    footprints: dict[str, Footprint | None] = field(default_factory=dict)

    @property
    def setting(self) -> Setting:
        """What all methods share."""
        return Setting(self.subject.steps, self.subject.guidance_scale)


def is_zoo(subject: Subject) -> bool:
    """Whether the model is one of ours, so that our classifier can read its pictures."""
    return subject.path in zoo_models()


def check(subject: Subject) -> None:
    """Refuse what can be seen to be wrong without loading anything.

    Raises:
        OptionError: with the nearest name.
    """
    check_model(subject.path)
    if subject.sampler not in (None, LCM):
        find_sampler(str(subject.sampler))
    pick_dtype(subject.dtype, pick_device(subject.device))


def device_of(name: str, worker: int) -> torch.device:
    """A worker's device: several workers take turns at several cards."""
    device = pick_device(name)
    if device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1:
        return torch.device("cuda", worker % torch.cuda.device_count())
    return device


def load(subject: Subject, worker: int = 0) -> Loaded:
    """The model with its sampler, after a short run: nobody pays for first calls.

    Raises:
        OptionError: it cannot be loaded, or its sampler does not go with it.
        Exception: what the model raises where it cannot draw.
    """
    if subject.threads:
        torch.set_num_threads(subject.threads)
    device = device_of(subject.device, worker)
    dtype = pick_dtype(subject.dtype, device)
    if subject.unet or subject.variant:
        pipe = _from_parts(subject, device, dtype)
    else:
        pipe = load_pipeline(subject.path, device=device, dtype=dtype)
    if subject.sampler == LCM:
        pipe.scheduler = diffusers().LCMScheduler.from_config(pipe.scheduler.config)
    elif subject.sampler:
        set_sampler(pipe, subject.sampler)
    loaded = Loaded(pipe, subject)
    call(loaded, subject.prompts[0], 0, min(subject.steps, WARM_UP_STEPS), subject.guidance_scale)
    return loaded


def _from_parts(subject: Subject, device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline with another UNet, or of weight files of a variant."""
    library = diffusers()
    options: dict[str, Any] = {"torch_dtype": dtype}
    if subject.variant:
        options["variant"] = subject.variant
    try:
        with warnings.catch_warnings():
            # diffusers 0.42 renamed it to `dtype`; 0.29, our oldest, knows the old name only.
            warnings.filterwarnings("ignore", "`torch_dtype` is deprecated", FutureWarning)
            if subject.unet:
                kind = library.UNet2DConditionModel
                options["unet"] = kind.from_pretrained(subject.unet, **options)
            pipe = library.DiffusionPipeline.from_pretrained(subject.path, **options)
    except OSError as error:
        raise OptionError(
            f"model {subject.name!r} could not be loaded "
            f"({(str(error).strip().splitlines() or ['not found'])[0]}): check path, unet and "
            "variant, and that its weights are here."
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def call(
    loaded: Loaded, prompt: str, seed: int, steps: int, guidance_scale: float, **further: Any
) -> Any:
    """The pipeline's result for one prompt and seed."""
    return loaded.pipe(
        prompt=prompt,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        **{**loaded.subject.arguments, **further},
    )
