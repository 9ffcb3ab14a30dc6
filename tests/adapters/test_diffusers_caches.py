"""diffusers' own caches are refused by name."""

from __future__ import annotations

import pytest

import tgate_sampling as tg
from tgate_sampling.testing import tiny_unet

# The first version with caches of its own.
diffusers = pytest.importorskip("diffusers", minversion="0.33")
hooks = pytest.importorskip("diffusers.hooks")


def test_a_backbone_with_pyramid_attention_broadcast_is_refused_by_name() -> None:
    """The sentence names the cache, the class and the cure; nothing has been touched."""
    unet = tiny_unet()
    config = hooks.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2, current_timestep_callback=lambda: 500
    )
    hooks.apply_pyramid_attention_broadcast(unet, config)
    before = {name: type(module) for name, module in unet.named_modules()}
    with pytest.raises(tg.TGateError, match=r"PyramidAttentionBroadcast .* disable it first"):
        tg.gate(unet, "interleave")
    assert {name: type(module) for name, module in unet.named_modules()} == before


def test_other_diffusers_hooks_are_no_cache() -> None:
    """Layerwise casting and the like leave gating alone."""
    unet = tiny_unet()
    hooks.HookRegistry.check_if_exists_or_initialize(unet).register_hook(
        hooks.ModelHook(), "layerwise_casting"
    )
    tg.attach(unet, "interleave").detach()
