"""What the methods must know of a pipeline before they touch it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from torch import nn

from tgate_plugins import pipeline_layouts
from tgate_plugins.diffusers_pipeline import COMPONENTS, PipelineDriver
from tgate_sampling.backbones import unwrap
from tgate_sampling.errors import OptionError
from tgate_sampling.layout import SEPARATE
from tgate_sampling.method import Setting


def backbone_of(pipe: Any) -> nn.Module:
    """The module that the pipeline calls at each evaluation.

    Raises:
        OptionError: there is none.
    """
    for name in COMPONENTS:
        module = unwrap(getattr(pipe, name, None))
        if isinstance(module, nn.Module):
            return module
    raise OptionError(
        f"{type(pipe).__name__} has none of {', '.join(COMPONENTS)}: pass a diffusers pipeline."
    )


def is_unet(pipe: Any) -> bool:
    """Whether the backbone goes down and up again, as Stable Diffusion's does."""
    backbone = backbone_of(pipe)
    return hasattr(backbone, "down_blocks") and hasattr(backbone, "up_blocks")


def one_branch(pipe: Any, setting: Setting) -> str | None:
    """Why this run has no unconditional branch, as a clause; None where it has one."""
    config = getattr(backbone_of(pipe), "config", None)
    distilled = getattr(config, "time_cond_proj_dim", None) is not None
    distilled |= bool(getattr(config, "guidance_embeds", None))
    if distilled or type(pipe).__name__.startswith(pipeline_layouts.EMBEDDED):
        return "its model is distilled and takes the guidance scale as an input"
    if setting.guidance_scale <= 1:
        return f"guidance_scale={setting.guidance_scale:g} runs without guidance"
    return None


def no_guidance(pipe: Any, setting: Setting) -> str | None:
    """The refusal of a method that acts on classifier-free guidance, where there is none."""
    reason = one_branch(pipe, setting)
    if reason is None:
        return None
    return f"{type(pipe).__name__} has no unconditional branch to leave out: {reason}."


def separate_calls(pipe: Any) -> bool:
    """Whether the pipeline calls its backbone once a branch."""
    return pipeline_layouts.known_layout(pipe) == SEPARATE


def not_installed(module: str, install: str) -> str | None:
    """The refusal where a package is missing; nothing is imported."""
    if importlib.util.find_spec(module) is not None:
        return None
    return f"the package is not installed: {install}"


def needs_unet(pipe: Any, what: str) -> str | None:
    """The refusal of a method that knows UNets only."""
    if is_unet(pipe):
        return None
    kind = type(backbone_of(pipe)).__name__
    return f"{what} needs a UNet of down and up blocks, and {kind} is none."


def evaluations(pipe: Any, steps: int) -> Sequence[int]:
    """How many evaluations each step makes with the pipeline's scheduler."""
    return PipelineDriver(pipe).evaluations(steps)
