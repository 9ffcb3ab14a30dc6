"""A backbone of known guidance, live twins of policies, UNets with deep and with SDXL's blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import nn

from tests import pipes
from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.testing.tiny import TEXT_DIM, tiny_unet

#: The training schedule that all toys share; its levels are what schedulers and drivers report.
ALPHAS: torch.Tensor = pipes.scheduler("ddim").alphas_cumprod
LOG_SIGMAS: torch.Tensor = ((1 - ALPHAS) / ALPHAS).log() / 2

#: delta(cond, log sigma) of an `Oracle`: (B, 4, 8, 8) and (B, 1, 1, 1) to (B, 4, 8, 8).
Delta = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Oracle(diffusers.ModelMixin, ConfigMixin):
    """cond = 0.3 sample + 0.1 mean(text); uncond = cond - `delta`(cond, log sigma).

    A row is uncond where its text begins with 0.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, in_channels: int = 4, sample_size: int = 8, time_cond_proj_dim: int | None = None
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.delta: Delta = lambda cond, level: torch.zeros_like(cond)
        self.rows: list[int] = []

    def forward(
        self, sample: torch.Tensor, timestep: Any, encoder_hidden_states: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor]:
        self.rows.append(len(sample))
        text, wide = encoder_hidden_states, (-1, 1, 1, 1)
        cond = 0.3 * sample + 0.1 * text[:, 1:].mean((1, 2)).view(wide)
        unguided = (text[:, 0, 0] == 0).view(wide)
        level = log_sigma(torch.as_tensor(timestep)).view(wide)
        return (cond - unguided * self.delta(cond, level),)


def log_sigma(timestep: torch.Tensor) -> torch.Tensor:
    """Interpolated in the timestep, as `UNetDenoiser` inverts it."""
    low = timestep.floor().long().clamp(0, len(LOG_SIGMAS) - 2)
    return torch.lerp(LOG_SIGMAS[low], LOG_SIGMAS[low + 1], timestep - low)


def texts(prompts: int = 1, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(cond, uncond) embeddings for an `Oracle`, alike but for the mark."""
    made = torch.Generator().manual_seed(seed)
    cond = torch.randn(prompts, 7, TEXT_DIM, generator=made)
    cond[:, 0] = 1
    uncond = cond.clone()
    uncond[:, 0] = 0
    return cond, uncond


class OracleAdapter(Adapter):
    """No attention: only guidance can be gated."""

    name = "oracle"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return ()


class OraclePlugin:
    @hookimpl
    def tgate_register_adapters(self, register: RegisterAdapter) -> None:
        register("oracle", OracleAdapter, models=("Oracle",))


@contextmanager
def oracle_backbone() -> Iterator[None]:
    """`Oracle` can be gated inside."""
    plugin = OraclePlugin()
    manager().register(plugin, "oracle")
    try:
        yield
    finally:
        manager().unregister(plugin)
        manager().adapters.forget("oracle")


def live(policy: Policy) -> Policy:
    """The same policy without a plan: asked at each step, stores at each open one."""
    made: Any = type("Live", (type(policy),), {"plan": lambda self, total: None})
    twin: Policy = made(
        **{f.name: getattr(policy, f.name) for f in dataclasses.fields(policy) if f.init}  # type: ignore[arg-type]
    )
    return twin


def scheduler(name: str) -> Any:
    """A scheduler for random backbones, with whole timesteps.

    With epsilon a random backbone's error is multiplied by 14 and hides everything.
    """
    return pipes.scheduler(name, prediction_type="v_prediction", timestep_spacing="leading")


def generate(
    pipe: Any,
    *,
    steps: int = 8,
    embeds: tuple[torch.Tensor, torch.Tensor] | None = None,
    guidance_scale: float = 4.0,
    seed: int = 5,
    **settings: Any,
) -> torch.Tensor:
    """Final latents of a pipeline without autoencoder.

    Args:
        pipe: from `pipes.pipeline`.
        steps: sampling steps.
        embeds: (cond, uncond), each (B, 7, D); random for one prompt if None.
        guidance_scale: 1 runs without guidance.
        seed: of latents, noise, and embeddings that are not given.
        settings: passed on.
    """
    made = torch.Generator().manual_seed(seed)
    if embeds is None:
        cond, uncond = (torch.randn(1, 7, TEXT_DIM, generator=made) for _ in range(2))
    else:
        cond, uncond = embeds
    latents = torch.randn(len(cond), 4, 8, 8, generator=made)
    given = {"image": latents} if "strength" in settings else {"latents": latents}
    found: torch.Tensor = pipe(
        prompt_embeds=cond,
        negative_prompt_embeds=uncond,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed + 1),
        output_type="latent",
        **given,
        **settings,
    ).images
    return found


def deep_unet(**config: Any) -> Any:
    """`tiny_unet` with attention in its deep blocks too, so that a skipped block hides sites."""
    return tiny_unet(
        **{
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 2,
        }
        | config
    )


def sdxl_unet() -> Any:
    """SDXL's shape: three levels, none of attention at the top, text and time ids added."""
    return tiny_unet(
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 12,
        use_linear_projection=True,
    )


def sdxl_loop(
    unet: Any, timesteps: torch.Tensor, gating: Any = None, *, scale: float = 4.0
) -> torch.Tensor:
    """A loop of one's own with guidance over `sdxl_unet`, 8x8 latents; DDIM without a scheduler."""
    made = torch.Generator().manual_seed(3)
    x = torch.randn(1, 4, 8, 8, generator=made)
    text = torch.randn(2, 7, TEXT_DIM, generator=made)
    added = {
        "text_embeds": torch.randn(2, 12, generator=made),
        "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]]).repeat(2, 1),
    }
    with torch.no_grad():
        for t in timesteps if gating is None else gating.steps(timesteps):
            out = unet(
                torch.cat([x, x]), t, encoder_hidden_states=text, added_cond_kwargs=added
            ).sample
            uncond, cond = out.chunk(2)
            x = x - 0.1 * (uncond + scale * (cond - uncond))
    return x
