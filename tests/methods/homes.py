"""Pipelines that methods are tried on, and what each method says of each of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests.conftest import load_helper
from tgate_sampling.method import Applied, Setting

families = load_helper("golden/tiny_families.py")
tiny = load_helper("backbones/pipelines.py").PIPELINES

SETTING = Setting(steps=6, guidance_scale=4.0)
FEW = Setting(steps=4, guidance_scale=4.0)

PROMPT = "a large apple on a blue background"


@dataclass(frozen=True)
class Home:
    """A pipeline.

    Args:
        make: builds it, the same each time.
        call: the latents of one call, by the pipeline, a seed and how to call it.
        setting: of its comparison.
    """

    make: Callable[[], Any]
    call: Callable[..., torch.Tensor]
    setting: Setting = SETTING

    def picture(self, pipe: Any, how: Applied, seed: int = 0, **more: Any) -> torch.Tensor:
        """One picture, as a runner makes it."""
        return self.call(
            pipe,
            seed,
            num_inference_steps=how.steps,
            guidance_scale=how.guidance_scale,
            **how.arguments,
            **more,
        )

    @property
    def bare(self) -> Applied:
        """How to call it with nothing applied."""
        return Applied(self.setting.steps, self.setting.guidance_scale)


def of_family(name: str, setting: Setting = SETTING) -> Home:
    """A random network of the reference's families, the prompt given as embeddings."""
    family = families.FAMILIES[name]

    def call(pipe: Any, seed: int, **settings: Any) -> torch.Tensor:
        tensors = family.inputs(1, torch.Generator().manual_seed(seed))
        made: torch.Tensor = family.run(pipe, 1, **tensors | settings)
        return made

    return Home(lambda: readable(family.make()), call, setting)


def readable(pipe: Any) -> Any:
    """A PixArt pipeline that reads every prompt as the same embedding."""
    if type(pipe).__name__.startswith("PixArt"):
        tensors = families.FAMILIES["pixart_sigma"].inputs(1, torch.Generator().manual_seed(9))
        own = type(pipe).encode_prompt

        def encode(prompt: Any, *args: Any, **settings: Any) -> Any:
            given = settings.get("prompt_embeds")
            if given is not None:
                return own(pipe, prompt, *args, **settings)
            return tuple(
                tensors[name]
                for name in (
                    "prompt_embeds",
                    "prompt_attention_mask",
                    "negative_prompt_embeds",
                    "negative_prompt_attention_mask",
                )
            )

        pipe.__dict__["encode_prompt"] = encode
        pipe.__dict__["tokenizer"] = object()
    return pipe


def prompted(pipe: Any, seed: int, **settings: Any) -> torch.Tensor:
    """The latents of a pipeline that reads."""
    made: torch.Tensor = pipe(
        prompt=PROMPT,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **settings,
    ).images
    return made


@functools.cache
def _zoo(name: str) -> Any:
    from tgate_zoo.loader import load

    return load(name)


def lcm_call(pipe: Any, seed: int, **settings: Any) -> torch.Tensor:
    """The latents of the distilled Stable Diffusion."""
    made: torch.Tensor = tiny["lcm"].call(
        pipe,
        settings.pop("num_inference_steps"),
        generator=torch.Generator().manual_seed(seed),
        **settings,
    )
    return made


HOMES: dict[str, Home] = {
    "emoji-sd": Home(lambda: _zoo("emoji-sd"), prompted),
    "sd": of_family("sd"),
    "sdxl": of_family("sdxl"),
    "pixart_alpha": of_family("pixart_alpha"),
    "pixart_sigma": of_family("pixart_sigma"),
    "lcm": Home(tiny["lcm"].build, lcm_call, FEW),
    "lcm_sdxl": of_family("lcm_sdxl", FEW),
}
