"""emoji-sdxl's denoiser: a small SDXL UNet with two text encoders and size conditioning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tgate_zoo import scenes
from tgate_zoo.recipe.denoise import Settings, ddim
from tgate_zoo.recipe.text import MAX_LENGTH
from tgate_zoo.recipe.vae import LATENT_CHANNELS
from tgate_zoo.untyped import diffusers, transformers

TEXT_WIDTH = 64
TIME_ID_WIDTH = 16
# Original size, crop corner and target size, as the pipeline sends them when nothing is given.
TIME_IDS = (scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 0, 0, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE)
CONFIG: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "layers_per_block": 1,
    "block_out_channels": (40, 80),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": None,
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
    # Both encoders' states side by side.
    "cross_attention_dim": 2 * TEXT_WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIME_ID_WIDTH,
    "projection_class_embeddings_input_dim": TEXT_WIDTH + 6 * TIME_ID_WIDTH,
}
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 128,
    # The pipeline takes the states before the last layer, so one layer of two.
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": TEXT_WIDTH,
    "max_position_embeddings": MAX_LENGTH,
}

SETTINGS = Settings(batch=48, peak_rate=1e-3, warmup=500)


class Denoiser(nn.Module):
    """The UNet and both text encoders as one module, since they train together."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module, text_encoder_2: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.text_encoder_2 = text_encoder_2

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise, shape of `noisy`; `timesteps` (n,), `tokens` (n, length)."""
        first = self.text_encoder(tokens, output_hidden_states=True)
        second = self.text_encoder_2(tokens, output_hidden_states=True)
        states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        sizes = torch.tensor(TIME_IDS, dtype=states.dtype).expand(len(tokens), -1)
        noise: Tensor = self.unet(
            noisy,
            timesteps,
            states,
            added_cond_kwargs={"text_embeds": second.text_embeds, "time_ids": sizes},
            return_dict=False,
        )[0]
        return noise


def build_denoiser(tokenizer: Any, side: int, config: dict[str, Any] = CONFIG) -> Denoiser:
    """A fresh denoiser for latents of `side`."""
    unet = diffusers().UNet2DConditionModel(**config, sample_size=side)
    settings = transformers().CLIPTextConfig(
        **TEXT_CONFIG,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Denoiser(
        unet,
        transformers().CLIPTextModel(settings),
        transformers().CLIPTextModelWithProjection(settings),
    )


def assemble(vae: Any, denoiser: Any, tokenizer: Any) -> Any:
    """A StableDiffusionXLPipeline of the parts; both encoders read with the same tokenizer.

    An empty prompt is encoded like any other, as in training, and not replaced by zeros.
    """
    return diffusers().StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        text_encoder_2=denoiser.text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=denoiser.unet,
        scheduler=ddim(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
