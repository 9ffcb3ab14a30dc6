"""Tiny pipelines around other UNets: video, audio's transformer apart, Kandinsky 3."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers

from tests.conftest import load_helper

kit = load_helper("backbones/pipes_kit.py")
sd = load_helper("backbones/pipes_sd.py")

FRAMES = 3


def svd() -> Any:
    """StableVideoDiffusion: the prompt is an image, encoded by a tiny CLIP."""
    return kit.quiet(
        diffusers.StableVideoDiffusionPipeline(
            vae=kit.seeded(
                diffusers.AutoencoderKLTemporalDecoder,
                block_out_channels=(32, 32),
                down_block_types=("DownEncoderBlock2D",) * 2,
            ),
            image_encoder=kit.seeded(
                transformers.CLIPVisionModelWithProjection,
                config=transformers.CLIPVisionConfig(
                    hidden_size=16,
                    projection_dim=kit.TEXT_DIM,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=16,
                    image_size=32,
                    patch_size=8,
                ),
            ),
            unet=kit.seeded(
                diffusers.UNetSpatioTemporalConditionModel,
                sample_size=8,
                num_frames=FRAMES,
                block_out_channels=(32, 64),
                layers_per_block=1,
                down_block_types=(
                    "CrossAttnDownBlockSpatioTemporal",
                    "DownBlockSpatioTemporal",
                ),
                up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
                cross_attention_dim=kit.TEXT_DIM,
                num_attention_heads=(2, 4),
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=3 * 8,
            ),
            scheduler=diffusers.EulerDiscreteScheduler(
                **sd.TRAINED,
                interpolation_type="linear",
                prediction_type="v_prediction",
                sigma_max=700.0,
                sigma_min=0.002,
                timestep_spacing="leading",
                timestep_type="continuous",
                use_karras_sigmas=True,
            ),
            feature_extractor=transformers.CLIPImageProcessor(crop_size=32, size=32),
        )
    )


def animatediff() -> Any:
    """SD-1.5 with a motion adapter between its blocks."""
    adapter = kit.seeded(
        diffusers.MotionAdapter,
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_num_attention_heads=2,
        motion_norm_num_groups=4,
    )
    return kit.quiet(
        diffusers.AnimateDiffPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=sd.unet(),
            motion_adapter=adapter,
            scheduler=diffusers.DDIMScheduler(
                beta_schedule="linear", steps_offset=1, clip_sample=False
            ),
        )
    )


def text_to_video() -> Any:
    """ModelScope's UNet3D: cross-attention in space, double self-attention in time."""
    return kit.quiet(
        diffusers.TextToVideoSDPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            unet=kit.seeded(
                diffusers.UNet3DConditionModel,
                sample_size=8,
                block_out_channels=(8, 16),
                norm_num_groups=4,
                layers_per_block=1,
                down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
                up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
                cross_attention_dim=kit.TEXT_DIM,
                attention_head_dim=4,
            ),
            scheduler=sd.ddim(),
        )
    )


def kandinsky3() -> Any:
    return kit.quiet(
        diffusers.Kandinsky3Pipeline(
            tokenizer=None,
            text_encoder=None,
            movq=None,
            unet=kit.seeded(
                diffusers.Kandinsky3UNet,
                time_embedding_dim=16,
                groups=4,
                attention_head_dim=4,
                layers_per_block=2,
                block_out_channels=(8, 8, 16, 16),
                cross_attention_dim=kit.TEXT_DIM,
                encoder_hid_dim=kit.TEXT_DIM,
            ),
            scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        )
    )


def frames(draw: Any, batch: int) -> dict[str, Any]:
    """The image that StableVideoDiffusion sets in motion, 32x32 pixels in [0, 1]."""
    return {"image": draw(batch, 3, 32, 32).sigmoid()}


def kandinsky_inputs(draw: Any, batch: int) -> dict[str, Any]:
    """Kandinsky's masks have names of their own."""
    return kit.texts(draw, batch) | {
        name.replace("prompt_", ""): mask for name, mask in kit.masks(batch).items()
    }


def stable_audio() -> Any:
    """StableAudio: prompt and seconds are projected, so the projection model is a real one."""
    return kit.quiet(
        diffusers.StableAudioPipeline(
            vae=kit.seeded(
                diffusers.AutoencoderOobleck,
                encoder_hidden_size=4,
                decoder_channels=4,
                decoder_input_channels=4,
                downsampling_ratios=[2, 2],
                channel_multiples=[1, 1],
                sampling_rate=16,
            ),
            text_encoder=None,
            tokenizer=None,
            projection_model=kit.seeded(
                diffusers.StableAudioProjectionModel,
                text_encoder_dim=kit.TEXT_DIM,
                conditioning_dim=kit.TEXT_DIM,
                min_value=0,
                max_value=8,
            ),
            transformer=kit.seeded(
                diffusers.StableAudioDiTModel,
                sample_size=16,
                in_channels=4,
                out_channels=4,
                num_layers=2,
                attention_head_dim=8,
                num_attention_heads=4,
                num_key_value_attention_heads=2,
                cross_attention_dim=kit.TEXT_DIM,
                cross_attention_input_dim=kit.TEXT_DIM,
                time_proj_dim=8,
                global_states_input_dim=2 * kit.TEXT_DIM,
            ),
            scheduler=diffusers.EDMDPMSolverMultistepScheduler(
                sigma_min=0.3,
                sigma_max=500.0,
                sigma_data=1.0,
                sigma_schedule="exponential",
                prediction_type="v_prediction",
                solver_order=2,
            ),
        )
    )


def audio_inputs(draw: Any, batch: int) -> dict[str, Any]:
    return kit.texts(draw, batch) | {
        "attention_mask": torch.ones(batch, kit.TOKENS, dtype=torch.long),
        "negative_attention_mask": torch.ones(batch, kit.TOKENS, dtype=torch.long),
    }


ROWS = (
    kit.TinyPipe(
        "svd",
        svd,
        kit.caller(frames, scale="max_guidance_scale", num_frames=FRAMES, height=16, width=16),
    ),
    kit.TinyPipe("animatediff", animatediff, kit.caller(kit.texts, num_frames=FRAMES)),
    kit.TinyPipe("text-to-video", text_to_video, kit.caller(kit.texts, num_frames=FRAMES)),
    kit.TinyPipe("kandinsky3", kandinsky3, kit.caller(kandinsky_inputs, height=64, width=64)),
    kit.TinyPipe(
        "stable-audio", stable_audio, kit.caller(audio_inputs, audio_end_in_s=4.0), "transformer"
    ),
)
