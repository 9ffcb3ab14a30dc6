"""emoji-sd's denoiser: a small Stable Diffusion UNet with a CLIP text encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tgate_zoo import scenes
from tgate_zoo.recipe import text
from tgate_zoo.recipe.denoise import Settings, ddim
from tgate_zoo.recipe.vae import LATENT_CHANNELS
from tgate_zoo.untyped import diffusers

CONFIG: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "layers_per_block": 1,
    "block_out_channels": (64, 128),
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
    "cross_attention_dim": text.TEXT_WIDTH,
    # The number of heads: diffusers reads this field so in a UNet of this kind.
    "attention_head_dim": 4,
    "norm_num_groups": 16,
}
SETTINGS = Settings(batch=48, peak_rate=8e-4, warmup=300)


class Denoiser(nn.Module):
    """The UNet and the text encoder as one module, since they train together."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise, shape of `noisy`; `timesteps` (n,), `tokens` (n, length)."""
        states = self.text_encoder(tokens)[0]
        noise: Tensor = self.unet(noisy, timesteps, states, return_dict=False)[0]
        return noise


def build_denoiser(tokenizer: Any, side: int, config: dict[str, Any] = CONFIG) -> Denoiser:
    """A fresh denoiser for latents of `side`."""
    unet = diffusers().UNet2DConditionModel(**config, sample_size=side)
    return Denoiser(unet, text.build_text_encoder(tokenizer))


def build_tokenizer() -> Any:
    """The tokenizer of the caption grammar."""
    return text.build_tokenizer(scenes.vocabulary())


def assemble(vae: Any, denoiser: Any, tokenizer: Any) -> Any:
    """A StableDiffusionPipeline of the parts, without a safety checker."""
    return diffusers().StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=ddim(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
