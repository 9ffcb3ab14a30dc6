"""Tiny seeded pipelines of families that nobody recorded, for the reference to run beside us.

Random networks are no denoisers: with noise prediction the initial noise is multiplied until it
hides every decision, so these predict velocity, and attention is amplified until each choice shows.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

ROOT = Path(__file__).parent

#: The training schedules of SD, PixArt and SVD.
SD: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "prediction_type": "v_prediction",
}
PIXART = {**SD, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
SVD = {**SD, "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}

#: How much the outputs of cross- and self-attention are amplified.
CROSS_GAIN, SELF_GAIN = 8.0, 8.0


@dataclass(frozen=True)
class Family:
    """One kind of pipeline.

    Args:
        denoiser: makes its network, unseeded.
        pipeline: puts the rest around it.
        inputs: seeded tensors of a call, for so many images.
        call: the settings that make the call cheap and its result a latent.
    """

    denoiser: Callable[[], nn.Module]
    pipeline: Callable[[nn.Module], Any]
    inputs: Callable[[int, torch.Generator], dict[str, torch.Tensor]]
    call: dict[str, Any]

    def make(self) -> Any:
        """A fresh pipeline; the same weights each time."""
        pipe = self.pipeline(copy.deepcopy(_network(self.denoiser)))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def run(self, call: Callable[..., Any], batch: int, **settings: Any) -> torch.Tensor:
        """The latents of `call`, a pipeline or a gated way to call one."""
        tensors = self.inputs(batch, torch.Generator().manual_seed(123))
        generator = torch.Generator().manual_seed(2024)
        given = {**tensors, **self.call, **settings}
        out = call(**given, generator=generator, output_type="latent")
        latents: torch.Tensor = out.frames if hasattr(out, "frames") else out.images
        return latents


@functools.cache
def _network(make: Callable[[], nn.Module]) -> nn.Module:
    """The seeded network, amplified; copied by those who use it."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = make()
    with torch.no_grad():
        for name, module in network.named_modules():
            if type(module).__name__ == "Attention":
                module.to_out[0].weight.mul_(CROSS_GAIN if name.endswith("attn2") else SELF_GAIN)
    return network.eval()


def _recorded(family: str, **changes: Any) -> nn.Module:
    """A network of a recorded family's configuration, with some of it changed."""
    config = json.loads((ROOT / family / "config.json").read_text())
    made = getattr(diffusers, config["denoiser_class"])
    network: nn.Module = made.from_config({**config["denoiser_config"], **changes})
    return network


def _video_network() -> nn.Module:
    return diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8,
        num_frames=3,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=32,
        num_attention_heads=(2, 4),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
    )


def _sd(unet: nn.Module) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=_image_vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(unet: nn.Module, scheduler: Any = None) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=_image_vae(),
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=unet,
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**SD),
        add_watermarker=False,
    )


def _lcm_sdxl(unet: nn.Module) -> Any:
    return _sdxl(unet, diffusers.LCMScheduler(**SD))


def _pixart(kind: str, transformer: nn.Module) -> Any:
    return getattr(diffusers, kind)(
        tokenizer=None,
        text_encoder=None,
        vae=_image_vae(),
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(**PIXART),
    )


@functools.cache
def _image_vae() -> Any:
    """Uncalled; PixArt reads its configuration, and so do SD and SDXL before diffusers 0.33."""
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
    ).eval()


def _svd(unet: nn.Module) -> Any:
    encoder, vae, processor = _image_parts()
    return diffusers.StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=encoder,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**SVD, use_karras_sigmas=True),
        feature_extractor=processor,
    )


@functools.cache
def _image_parts() -> tuple[Any, Any, Any]:
    """What looks at SVD's first image; nobody gates it, so all pipelines share it."""
    import transformers

    config = transformers.CLIPVisionConfig(
        hidden_size=32,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        image_size=32,
        patch_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(12)
        encoder = transformers.CLIPVisionModelWithProjection(config).eval()
        vae = diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2
        ).eval()
    return encoder, vae, transformers.CLIPImageProcessor(crop_size=32, size=32)


def _text(batch: int, made: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "prompt_embeds": torch.randn(batch, 7, 32, generator=made),
        "negative_prompt_embeds": torch.randn(batch, 7, 32, generator=made),
        "latents": torch.randn(batch, 4, 8, 8, generator=made),
    }


def _pooled_text(batch: int, made: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        **_text(batch, made),
        "pooled_prompt_embeds": torch.randn(batch, 32, generator=made),
        "negative_pooled_prompt_embeds": torch.randn(batch, 32, generator=made),
    }


def _masked_text(batch: int, made: torch.Generator) -> dict[str, torch.Tensor]:
    """Another length for each prompt, and short negative prompts."""
    places = torch.arange(7)
    return {
        **_text(batch, made),
        "prompt_attention_mask": (places < 6 - torch.arange(batch)[:, None]).long(),
        "negative_prompt_attention_mask": (places < 3).long().expand(batch, -1),
    }


def _image(batch: int, made: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "image": torch.rand(batch, 3, 32, 32, generator=made),
        "latents": torch.randn(batch, 3, 4, 8, 8, generator=made),
    }


GUIDED = {"height": 64, "width": 64, "guidance_scale": 7.5}
BINNED = {**GUIDED, "use_resolution_binning": False, "negative_prompt": None}

FAMILIES: dict[str, Family] = {
    "sd": Family(functools.partial(_recorded, "sd"), _sd, _text, GUIDED),
    "sdxl": Family(functools.partial(_recorded, "sdxl"), _sdxl, _pooled_text, GUIDED),
    "lcm_sdxl": Family(
        functools.partial(_recorded, "sdxl", time_cond_proj_dim=16),
        _lcm_sdxl,
        _pooled_text,
        GUIDED,
    ),
    "pixart_alpha": Family(
        functools.partial(_recorded, "pixart_alpha"),
        functools.partial(_pixart, "PixArtAlphaPipeline"),
        _masked_text,
        BINNED,
    ),
    "pixart_sigma": Family(
        functools.partial(_recorded, "pixart_alpha", use_additional_conditions=False),
        functools.partial(_pixart, "PixArtSigmaPipeline"),
        _masked_text,
        BINNED,
    ),
    "svd": Family(_video_network, _svd, _image, {"height": 16, "width": 16}),
}
