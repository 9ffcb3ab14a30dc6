"""Backbones of diffusers that no table names: the rule that was never wrong, and no more.

Cross-attention sites are those that the measured rule finds (`_sites`); self-attention is left
alone, since an unknown block may mix the text into it; the guidance gate cuts whatever has the
batch's rows.
"""

from __future__ import annotations

from torch import nn

from tgate_adapters._diffusers import DiffusersAdapter, names_of
from tgate_adapters.description import Backbone
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl

#: What the latents and the time are called, wherever a model of diffusers has both.
SAMPLES = ("sample", "hidden_states")
TIMESTEPS = ("timestep", "timesteps")


class GenericAdapter(DiffusersAdapter):
    """Any denoiser of diffusers that is called like the ones we know."""

    name = "generic"

    def suits(self, backbone: nn.Module) -> str | None:
        if not _is_diffusers(backbone):
            return "it is no model of diffusers"
        names = names_of(backbone)
        if not set(names) & set(SAMPLES) or not set(names) & set(TIMESTEPS):
            return (
                f"its forward takes ({', '.join(names[:4])}, ...), and no latents with a timestep"
            )
        return None

    def about(self, backbone: nn.Module) -> Backbone:
        names = names_of(backbone)
        return Backbone(
            type(backbone).__name__,
            sample=next(n for n in SAMPLES if n in names),
            timestep=next(n for n in TIMESTEPS if n in names),
            selfs=(),
        )


def _is_diffusers(backbone: nn.Module) -> bool:
    """Whether one of its bases is diffusers' `ModelMixin`, told without importing diffusers."""
    bases = type(backbone).__mro__
    return any(b.__name__ == "ModelMixin" and b.__module__.startswith("diffusers.") for b in bases)


@hookimpl
def tgate_register_adapters(register: RegisterAdapter) -> None:
    register("generic", GenericAdapter, models=("*",))
