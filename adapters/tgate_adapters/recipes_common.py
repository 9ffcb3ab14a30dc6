"""What recipes share: latents, text, packed images, and calls that only values can answer."""

from __future__ import annotations

import functools
from typing import Any

import torch

from tgate_adapters.description import Ask, Recipe

#: Latents of a picture of 1024 pixels, where a pixel of the latents is eight of the picture's.
SIDE = 128


def never_without_weights(recipe: Recipe) -> Recipe:
    """The recipe, but None on the meta device, where this backbone's forward breaks off.

    It asks a tensor for its values (how long is each text, which expert is whose), or autocast for
    a device type that there is none for. Whoever has weights gets the call.
    """

    @functools.wraps(recipe)
    def made(ask: Ask) -> dict[str, Any] | None:
        return None if ask.like.is_meta else recipe(ask)

    return made


def picture(ask: Ask, channels: int, own: Any = None) -> torch.Tensor:
    """Latents of a picture, (rows, channels, H, W)."""
    return ask.new(ask.rows, channels, *ask.size(own))


def video(ask: Ask, channels: int, frames: int, own: Any) -> torch.Tensor:
    """Latents of a video, (rows, channels, frames, H, W)."""
    return ask.new(ask.rows, channels, frames, *ask.size(own))


def text(ask: Ask, width: int) -> torch.Tensor:
    """A text for each row, (rows, tokens, width)."""
    return ask.new(ask.rows, ask.tokens, width)


def masked(ask: Ask, width: int, mask: str = "encoder_attention_mask") -> dict[str, torch.Tensor]:
    """A text under its usual name, and its mask."""
    return {"encoder_hidden_states": text(ask, width), mask: ask.mask(ask.rows, ask.tokens)}


def grid(ask: Ask, own: Any = SIDE) -> tuple[int, int]:
    """Height and width in tokens where two by two latents are packed into one."""
    high, wide = ask.size(own)
    return high // 2, wide // 2


def packed(ask: Ask, own: Any = SIDE) -> dict[str, torch.Tensor]:
    """Latents with a token for every two by two of them, and the text."""
    high, wide = grid(ask, own)
    return {
        "hidden_states": ask.new(ask.rows, high * wide, ask.config.in_channels),
        "encoder_hidden_states": text(ask, ask.config.joint_attention_dim),
        "timestep": ask.steps(),
    }


def placed(ask: Ask, own: Any = SIDE) -> dict[str, torch.Tensor]:
    """The same with the positions of all tokens, one table for all rows, as Flux takes them."""
    high, wide = grid(ask, own)
    axes = len(ask.config.axes_dims_rope)
    ids = {"img_ids": ask.new(high * wide, axes), "txt_ids": ask.new(ask.tokens, axes)}
    return packed(ask, own) | ids


def indices(ask: Ask, *shape: int) -> torch.Tensor:
    """Whole numbers: positions, frames, tokens of a codebook."""
    return ask.like.new_zeros(shape, dtype=torch.int64)


def rotary(ask: Ask, tokens: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of positions, (tokens, width) each."""
    return ask.new(tokens, width), ask.new(tokens, width)
