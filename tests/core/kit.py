"""Small pipelines, fake backbones and snapshots for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tgate_sampling import _manager
from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl
from tgate_sampling.testing import tiny_unet
from tgate_sampling.testing.tiny import TEXT_DIM

STEPS = 6
GATE = 3

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    # With epsilon a random net's error is multiplied by 14 and hides everything.
    "prediction_type": "v_prediction",
}

HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def make_pipe(unet: Any = None, *, made: Any = None, **config: Any) -> Any:
    """A Stable Diffusion pipeline around `tiny_unet`, 16x16 pixels for 8x8 latents."""
    unet = tiny_unet() if unet is None else unet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=2,
            sample_size=16,
        ).eval()
    pipe = (made or diffusers.StableDiffusionPipeline)(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**(SCHEDULER | config)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(
    pipe: Any,
    *,
    prompts: int = 1,
    seed: int = 0,
    size: int = 16,
    steps: int = STEPS,
    guidance_scale: float = 7.5,
    negative: bool = True,
    **more: Any,
) -> torch.Tensor:
    """Run a pipeline of `make_pipe`; returns the final latents.

    Args:
        pipe: from `make_pipe`.
        prompts: how many prompts.
        seed: of embeddings and noise.
        size: pixels; twice the latents' side.
        steps: sampling steps.
        guidance_scale: 1 runs without guidance.
        negative: give a random negative prompt; else the empty prompt is all zeros.
        more: passed on.
    """
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(prompts, 7, TEXT_DIM, generator=generator)
    empty = torch.randn(prompts, 7, TEXT_DIM, generator=generator)
    latents: torch.Tensor = pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=empty if negative else torch.zeros_like(empty),
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        generator=generator,
        output_type="latent",
        **more,
    ).images
    return latents


def snapshot(backbone: nn.Module) -> dict[str, Any]:
    """All that gating could leave behind: classes, attributes, hooks, forwards, state-dict keys."""
    modules = dict(backbone.named_modules())
    return {
        "classes": {name: type(m) for name, m in modules.items()},
        "attributes": {name: sorted(m.__dict__) for name, m in modules.items()},
        "hooks": {(name, h): dict(getattr(m, h)) for name, m in modules.items() for h in HOOKS},
        "forwards": {name: m.__dict__.get("forward") for name, m in modules.items()},
        "keys": list(backbone.state_dict()),
    }


class Attention(nn.Module):
    """A site with a known answer: gain * the mean of what it reads."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.calls = 0

    def forward(self, sample: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        self.calls += 1
        source = sample if text is None else text
        mean = source.flatten(1).mean(1).view(-1, 1, 1, 1)  # (R, 1, 1, 1)
        return self.gain * mean * torch.ones_like(sample)


class Affine(nn.Module):
    """A backbone one can do in one's head: t * sample + cross(text) + self(sample)."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = Attention(2.0)
        self.own = Attention(0.5)
        self.rows: list[int] = []

    def forward(
        self, sample: torch.Tensor, timestep: float, encoder_hidden_states: torch.Tensor
    ) -> torch.Tensor:
        self.rows.append(sample.shape[0])
        read: torch.Tensor = self.cross(sample, encoder_hidden_states)
        return timestep * sample + read + self.own(sample)


class AffineAdapter(Adapter):
    """One cross and one self site; nothing to count."""

    name = "affine"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        assert isinstance(backbone, Affine)
        return [Site("cross", "cross", backbone.cross), Site("own", "self", backbone.own)]


class AffinePlugin:
    """Registers `AffineAdapter`, as an outsider would."""

    @hookimpl
    def tgate_register_adapters(self, register: RegisterAdapter) -> None:
        register("affine", AffineAdapter, models=("Affine",))


@contextmanager
def plugged(plugin: object, name: str) -> Iterator[None]:
    """The process's manager with one more plugin, for the length of a block."""
    manager = _manager.manager()
    manager.register(plugin, name)
    try:
        yield
    finally:
        manager.unregister(plugin)
        for registry in manager.registries:
            registry.forget(name)


def drive(
    gating: Any,
    unet: nn.Module,
    samples: Sequence[torch.Tensor],
    text: torch.Tensor,
    times: Sequence[float] | None = None,
) -> list[torch.Tensor]:
    """One backbone call a step, on given samples; returns the outputs."""
    times = [float(len(samples) - i) for i in range(len(samples))] if times is None else times
    outputs = []
    with torch.no_grad():
        for i, t in enumerate(gating.steps(times)):
            out = unet(samples[i], t, encoder_hidden_states=text)
            outputs.append(out if isinstance(out, torch.Tensor) else out.sample)
    return outputs


def walk(
    unet: nn.Module,
    times: Sequence[Any] | torch.Tensor,
    *,
    rows: int = 2,
    gating: Any = None,
    scale: float = 4.0,
    seed: int = 0,
    size: int = 8,
) -> torch.Tensor:
    """A custom loop with guidance over `tiny_unet`; returns the last (rows / 2, 4, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows // 2, 4, size, size, generator=generator)
    text = torch.randn(rows, 7, TEXT_DIM, generator=generator)
    with torch.no_grad():
        for t in times if gating is None else gating.steps(times):
            out = unet(torch.cat([x, x]), t, encoder_hidden_states=text).sample
            uncond, cond = out.chunk(2)
            x = x - 0.1 * (uncond + scale * (cond - uncond))
    return x


class Watch(TorchDispatchMode):
    """Calls `seen(operator, args, result)` for every operator."""

    def __init__(self, seen: Callable[[Any, Any, Any], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._seen(func, args, result)
        return result
