"""How transformers with cross-attention are called; for counting without weights."""

from __future__ import annotations

from typing import Any

from tgate_adapters.description import Ask


def pixart(ask: Ask) -> dict[str, Any]:
    """PixArt-alpha (with micro-conditions where it was trained on them) and Sigma."""
    config = ask.config
    added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if config.sample_size == 128 and config.use_additional_conditions is not False:
        added = {"resolution": ask.new(ask.rows, 2), "aspect_ratio": ask.new(ask.rows, 1)}
    return {
        "hidden_states": ask.new(ask.rows, config.in_channels, *ask.size()),
        "encoder_hidden_states": ask.new(ask.rows, ask.tokens, config.caption_channels),
        "encoder_attention_mask": ask.mask(ask.rows, ask.tokens),
        "timestep": ask.steps(),
        "added_cond_kwargs": added,
    }
