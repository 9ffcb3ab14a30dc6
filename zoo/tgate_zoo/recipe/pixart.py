"""emoji-pixart's denoiser: a small PixArt transformer with a T5 text encoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tgate_zoo import scenes
from tgate_zoo.recipe import t5
from tgate_zoo.recipe.denoise import Settings, ddim
from tgate_zoo.recipe.vae import LATENT_CHANNELS
from tgate_zoo.untyped import diffusers

CONFIG: dict[str, Any] = {
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "num_layers": 5,
    "num_attention_heads": 4,
    "attention_head_dim": 28,
    "cross_attention_dim": 112,
    "caption_channels": t5.TEXT_WIDTH,
    # 16 tokens: with 64 the same time gives a quarter of the samples.
    "patch_size": 2,
}

SETTINGS = Settings(batch=64, peak_rate=1e-3, warmup=500)


class Denoiser(nn.Module):
    """The transformer and the text encoder as one module, since they train together."""

    def __init__(self, transformer: nn.Module, text_encoder: nn.Module, padding: int) -> None:
        super().__init__()
        self.transformer = transformer
        self.text_encoder = text_encoder
        self.padding = padding

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """The predicted noise, shape of `noisy`; `timesteps` (n,), `tokens` (n, length)."""
        mask = (tokens != self.padding).long()
        states = self.text_encoder(tokens, attention_mask=mask)[0]
        noise: Tensor = self.transformer(
            noisy,
            encoder_hidden_states=states,
            timestep=timesteps,
            encoder_attention_mask=mask,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0]
        return noise


def build_denoiser(tokenizer: Any, side: int, config: dict[str, Any] = CONFIG) -> Denoiser:
    """A fresh denoiser for latents of `side`."""
    transformer = diffusers().PixArtTransformer2DModel(**config, sample_size=side)
    _start_quietly(transformer)
    return Denoiser(transformer, t5.build_text_encoder(tokenizer), tokenizer.pad_token_id)


@torch.no_grad()
def _start_quietly(transformer: Any) -> None:
    """PixArt's own start: the captions and the output begin at nothing, the time embedding small.

    With the library's default start the first hundred steps only undo it.
    """
    nn.init.normal_(transformer.adaln_single.linear.weight, std=0.02)
    nn.init.zeros_(transformer.adaln_single.linear.bias)
    for block in transformer.transformer_blocks:
        nn.init.zeros_(block.attn2.to_out[0].weight)
        nn.init.zeros_(block.attn2.to_out[0].bias)
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)


def build_tokenizer() -> Any:
    """The tokenizer of the caption grammar."""
    return t5.build_tokenizer(scenes.vocabulary())


def assemble(vae: Any, denoiser: Any, tokenizer: Any) -> Any:
    """A PixArtAlphaPipeline of the parts."""
    return diffusers().PixArtAlphaPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        transformer=denoiser.transformer,
        scheduler=ddim(),
    )
