"""Text-to-image pipelines that schedulers are tried in, none slower than it must be: `HOMES`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import schedulers

from tests import pipes
from tests.conftest import load_helper
from tests.truth import ClockUNet

pipelines = load_helper("backbones/pipelines.py")
models = load_helper("backbones/models.py")
stable = load_helper("backbones/pipes_sd.py")
kit = pipelines.kit

#: What torch and diffusers themselves warn of while these run.
WARNINGS = (
    *pipelines.WARNINGS,
    "ignore:Accessing config attribute `num_vector_embeds`:FutureWarning",
    # torchsde, of a Brownian path asked for its very last point.
    "ignore:Should have t[ab]:UserWarning",
)


@dataclass(frozen=True)
class Home:
    """A pipeline.

    Args:
        build: makes it.
        call: `call(pipe, steps=4, **extra)` runs it.
        backbone: attribute of its denoiser.
        gates: what closes in it.
    """

    build: Callable[[], Any]
    call: Callable[..., Any]
    backbone: str = "unet"
    gates: tuple[str, ...] = ("guidance", "cross")


class ClockUNetXL(ClockUNet):
    """A `ClockUNet` that SDXL asks how wide its text and time ids are."""

    add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=6 * 8 + kit.TEXT_DIM))


def stable_diffusion(*, img2img: bool = False) -> Home:
    """Stable Diffusion around a backbone of microseconds."""
    first = pipes.scheduler("ddim")
    return Home(lambda: pipes.pipeline(ClockUNet(), first, img2img=img2img), pipes.generate)


def sdxl(kind: str, like: str, **parts: Any) -> Home:
    """SDXL around a backbone of microseconds, called as a row of the table is."""

    def build() -> Any:
        unet = ClockUNetXL()
        unet.register_to_config(addition_time_embed_dim=8)
        return stable.sdxl(getattr(diffusers, kind), unet=unet, **parts)

    return Home(build, pipelines.PIPELINES[like].call)


def row(name: str, *gates: str) -> Home:
    """A pipeline of the table of tiny ones."""
    tiny = pipelines.PIPELINES[name]
    return Home(tiny.build, tiny.call, tiny.backbone, gates or Home.gates)


def sprint() -> Any:
    """Sana-Sprint: distilled, so that guidance is an embedding."""
    return kit.assembled(
        "SanaSprintPipeline",
        models.MODELS["SanaTransformer2DModel:sprint"].build(),
        schedulers.SCMScheduler(prediction_type="trigflow", sigma_data=0.5),
    )


def run_sprint(pipe: Any, steps: int, **extra: Any) -> Any:
    embeds = kit.Draw()(1, kit.TOKENS, pipe.transformer.config.caption_channels)
    return pipe(
        prompt_embeds=embeds,
        prompt_attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
        height=256,
        width=256,
        num_inference_steps=steps,
        use_resolution_binning=False,
        output_type="latent",
        # It is for two steps only.
        **{"intermediate_timesteps": 1.3 if steps == 2 else None, **extra},
    )


class KandinskyPrior(diffusers.KandinskyV22PriorPipeline):
    """Kandinsky's prior without encoders of text and pictures."""

    def _encode_prompt(self, *_: Any) -> tuple[torch.Tensor, ...]:
        config, draw = self.prior.config, kit.Draw()
        text = draw(2, config.num_embeddings, config.embedding_dim)
        return draw(2, config.embedding_dim), text, torch.ones(text.shape[:2], dtype=torch.bool)

    def get_zero_embed(self, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(1, self.prior.config.embedding_dim)


def kandinsky_prior() -> Any:
    """From a text to the embedding of a picture."""
    return kit.quiet(
        KandinskyPrior(
            prior=models.MODELS["PriorTransformer"].build(),
            image_encoder=None,
            text_encoder=None,
            tokenizer=None,
            scheduler=schedulers.UnCLIPScheduler(prediction_type="sample"),
            image_processor=None,
        )
    )


def run_kandinsky_prior(pipe: Any, steps: int) -> Any:
    return pipe("", num_inference_steps=steps, guidance_scale=4.0, output_type="pt")


class VQDiffusion(diffusers.VQDiffusionPipeline):
    """VQ-Diffusion without a text encoder."""

    def _encode_prompt(self, prompt: str, each: int, guided: bool) -> torch.Tensor:
        embeds: torch.Tensor = kit.Draw()(1 + guided, kit.TOKENS, kit.TEXT_DIM)
        return embeds


def vq_diffusion() -> Any:
    """A transformer that turns 4x4 tokens of a vocabulary of 12 into their probabilities."""
    decoder = kit.seeded(
        diffusers.VQModel,
        block_out_channels=(4,),
        norm_num_groups=2,
        num_vq_embeddings=12,
        vq_embed_dim=4,
        latent_channels=4,
    )
    transformer = kit.seeded(
        diffusers.Transformer2DModel,
        num_attention_heads=2,
        attention_head_dim=8,
        num_vector_embeds=12,
        cross_attention_dim=kit.TEXT_DIM,
        sample_size=4,
        activation_fn="geglu-approximate",
        norm_type="ada_norm",
        num_embeds_ada_norm=100,
        num_layers=1,
    )
    return kit.quiet(
        VQDiffusion(
            vqvae=decoder,
            text_encoder=None,
            tokenizer=None,
            transformer=transformer,
            scheduler=schedulers.VQDiffusionScheduler(num_vec_classes=12),
            learned_classifier_free_sampling_embeddings=None,
        )
    )


def run_vq_diffusion(pipe: Any, steps: int) -> Any:
    return pipe("", num_inference_steps=steps, guidance_scale=4.0, output_type="np")


HOMES: dict[str, Home] = {
    "sd": stable_diffusion(),
    "sd-img2img": stable_diffusion(img2img=True),
    "sdxl": sdxl("StableDiffusionXLPipeline", "sdxl"),
    "sdxl-img2img": sdxl("StableDiffusionXLImg2ImgPipeline", "sdxl-img2img", vae=stable.vae()),
    "sana": row("sana"),
    "cogvideox": row("cogvideox", "guidance"),  # its attention is joint
    "sana-sprint": Home(sprint, run_sprint, "transformer", ("cross",)),
    "kandinsky-prior": Home(kandinsky_prior, run_kandinsky_prior, "prior", ("guidance",)),
    "vq-diffusion": Home(vq_diffusion, run_vq_diffusion, "transformer"),
}


@functools.cache
def made(home: str) -> Any:
    """One pipeline a home: what a run leaves in it is in its scheduler."""
    return HOMES[home].build()
