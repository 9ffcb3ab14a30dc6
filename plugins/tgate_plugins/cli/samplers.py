"""Samplers by the names that people use, as diffusers schedulers of the model at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from tgate_sampling.errors import OptionError, UnknownNameError, nearest


@dataclass(frozen=True)
class Sampler:
    """A diffusers scheduler and what makes it this sampler.

    Args:
        scheduler: its class's name.
        config: entries that overrule the model's own.
    """

    scheduler: str
    config: Mapping[str, Any] = field(default_factory=dict)


_KARRAS: Final = {"use_karras_sigmas": True}
_SDE: Final = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {
        "ddim": Sampler("DDIMScheduler"),
        "ddpm": Sampler("DDPMScheduler"),
        "deis": Sampler("DEISMultistepScheduler"),
        "dpmpp-2m": Sampler("DPMSolverMultistepScheduler"),
        "dpmpp-2m-karras": Sampler("DPMSolverMultistepScheduler", _KARRAS),
        "dpmpp-2m-sde": Sampler("DPMSolverMultistepScheduler", _SDE),
        "dpmpp-2m-sde-karras": Sampler("DPMSolverMultistepScheduler", _SDE | _KARRAS),
        "dpmpp-2s": Sampler("DPMSolverSinglestepScheduler"),
        "euler": Sampler("EulerDiscreteScheduler"),
        "euler-karras": Sampler("EulerDiscreteScheduler", _KARRAS),
        "euler-a": Sampler("EulerAncestralDiscreteScheduler"),
        "heun": Sampler("HeunDiscreteScheduler"),
        "kdpm2": Sampler("KDPM2DiscreteScheduler"),
        "kdpm2-a": Sampler("KDPM2AncestralDiscreteScheduler"),
        "lms": Sampler("LMSDiscreteScheduler"),
        # Without the Runge-Kutta start, as Stable Diffusion is shipped.
        "pndm": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
        "unipc": Sampler("UniPCMultistepScheduler"),
    }
)


def find_sampler(name: str) -> Sampler:
    """The sampler of that name.

    Raises:
        UnknownNameError: there is none; the nearest is named.
    """
    if name not in SAMPLERS:
        raise UnknownNameError(f"no sampler is called {name!r}. {nearest(name, SAMPLERS)}")
    return SAMPLERS[name]


def set_sampler(pipe: Any, name: str) -> None:
    """Give a pipeline another sampler, with the noise schedule it was trained on.

    Raises:
        UnknownNameError: there is no such sampler.
        OptionError: the model's own scheduler is of another family (flow matching).
    """
    import diffusers

    sampler = find_sampler(name)
    made = getattr(diffusers, sampler.scheduler)
    now = pipe.scheduler
    if made not in {type(now), *now.compatibles}:
        raise OptionError(
            f"--sampler {name} ({sampler.scheduler}) cannot stand in for this model's "
            f"{type(now).__name__}: leave --sampler out."
        )
    pipe.scheduler = made.from_config(now.config, **sampler.config)
