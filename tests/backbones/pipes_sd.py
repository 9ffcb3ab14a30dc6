"""Tiny pipelines of the Stable Diffusion family: SD, SD-2.1, SDXL, Playground, LCM."""

from __future__ import annotations

from typing import Any

import diffusers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")

TRAINED: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def unet(**config: Any) -> Any:
    """A UNet in the shape of SD-1.5, 8x8 latents."""
    return kit.seeded(
        diffusers.UNet2DConditionModel,
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "layers_per_block": 1,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": kit.TEXT_DIM,
            "attention_head_dim": 2,
        }
        | config,
    )


def unet_xl(**config: Any) -> Any:
    """A UNet in the shape of SDXL: text and time ids added to the time embedding."""
    return unet(
        **{
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 6 * 8 + kit.TEXT_DIM,
        }
        | config
    )


def vae(**config: Any) -> Any:
    """An autoencoder that halves height and width once: 16x16 pixels are 8x8 latents."""
    return kit.seeded(
        diffusers.AutoencoderKL,
        **{
            "block_out_channels": (4, 4),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "norm_num_groups": 2,
            "sample_size": 16,
        }
        | config,
    )


def ddim(**config: Any) -> Any:
    """The scheduler SD-1.x is mostly tested with."""
    return diffusers.DDIMScheduler(
        **TRAINED | {"clip_sample": False, "set_alpha_to_one": False} | config
    )


def sd(kind: Any = None, **parts: Any) -> Any:
    """A Stable Diffusion pipeline without text encoder; without autoencoder unless given."""
    return kit.quiet(
        (kind or diffusers.StableDiffusionPipeline)(
            **{
                "vae": None,
                "text_encoder": None,
                "tokenizer": None,
                "unet": None,
                "scheduler": ddim(),
                "safety_checker": None,
                "feature_extractor": None,
                "requires_safety_checker": False,
            }
            | {"unet": parts.pop("unet", None) or unet()}
            | parts
        )
    )


def sdxl(kind: Any = None, **parts: Any) -> Any:
    """An SDXL pipeline without text encoders; without autoencoder unless given."""
    return kit.quiet(
        (kind or diffusers.StableDiffusionXLPipeline)(
            **{
                "vae": None,
                "text_encoder": None,
                "text_encoder_2": None,
                "tokenizer": None,
                "tokenizer_2": None,
                "scheduler": diffusers.EulerDiscreteScheduler(
                    **TRAINED, timestep_spacing="leading"
                ),
                "add_watermarker": False,
            }
            | {"unet": parts.pop("unet", None) or unet_xl()}
            | parts
        )
    )


def edm(name: str) -> Any:
    """SDXL as Playground v2.5 samples it: EDM's own noise levels and preconditioning."""
    return sdxl(scheduler=getattr(diffusers, name)(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5))


def pooled(draw: Any, batch: int) -> dict[str, Any]:
    """Embeddings of both prompts, per token and pooled."""
    return kit.texts(draw, batch) | {
        "pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
        "negative_pooled_prompt_embeds": draw(batch, kit.TEXT_DIM),
    }


def lcm() -> Any:
    """A distilled UNet: the guidance scale is an embedding, and no step is guided."""
    return sd(
        unet=unet(time_cond_proj_dim=8),
        scheduler=diffusers.LCMScheduler(**TRAINED, original_inference_steps=1000),
    )


def lcm_xl() -> Any:
    """As `lcm`, in the shape of SDXL."""
    return sdxl(
        unet=unet_xl(time_cond_proj_dim=8),
        scheduler=diffusers.LCMScheduler(**TRAINED, original_inference_steps=1000),
    )


def v_prediction() -> Any:
    """As SD-2.1: the backbone predicts v."""
    return sd(unet=unet(use_linear_projection=True), scheduler=ddim(prediction_type="v_prediction"))


ROWS = (
    kit.TinyPipe("sd", sd, kit.caller(kit.texts)),
    kit.TinyPipe("sd-v-prediction", v_prediction, kit.caller(kit.texts)),
    kit.TinyPipe("sdxl", sdxl, kit.caller(pooled)),
    kit.TinyPipe("sdxl-edm", lambda: edm("EDMDPMSolverMultistepScheduler"), kit.caller(pooled)),
    kit.TinyPipe("sdxl-edm-euler", lambda: edm("EDMEulerScheduler"), kit.caller(pooled)),
    kit.TinyPipe("lcm", lcm, kit.caller(kit.texts), layout="single"),
    kit.TinyPipe("lcm-xl", lcm_xl, kit.caller(pooled), layout="single"),
)
