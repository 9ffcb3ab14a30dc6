"""DeepCache beneath our gates: the real package's helper, made to refresh when the rows change.

The helper (DeepCache 0.1.1, arXiv 2312.00858) keeps deep features of the last full call. Alone with
a guidance gate it hands features of two branches to a batch of one and crashes; here it runs in
full whenever the rows change or attention must be stored.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from tgate_sampling.hookspecs import RegisterLayer, hookimpl
from tgate_sampling.layer import Layer


class DeepCacheLayer(Layer):
    """A `DeepCacheSDHelper` that is enabled on this backbone."""

    name = "deepcache"

    def __init__(self, helper: Any) -> None:
        self._helper = helper

    @classmethod
    def detect(cls, backbone: nn.Module) -> DeepCacheLayer | None:
        # The helper leaves a closure as the instance's `forward`; it holds the helper as `self`.
        forward = backbone.__dict__.get("forward")
        for cell in getattr(forward, "__closure__", None) or ():
            if type(cell.cell_contents).__name__ == "DeepCacheSDHelper":
                return cls(cell.cell_contents)
        return None

    @classmethod
    def missing(cls) -> str:
        return (
            "compose=['deepcache'] found no enabled DeepCacheSDHelper on this backbone: call "
            "helper.set_params(cache_interval=3) and helper.enable() first "
            "(pip install 'tgate-sampling[deepcache]')."
        )

    def refresh(self) -> None:
        self._helper.cached_output.clear()
        self._helper.start_timestep = None

    def skipped(self, backbone: nn.Module) -> frozenset[str]:
        helper = self._helper
        names = {
            _module_name(backbone, *key)
            for key in helper.function_dict
            if key != "unet_forward" and helper.is_skip_step(key[2], key[3], key[0])
        }
        return frozenset(n for n in names if not any(n.startswith(f"{m}.") for m in names))


def _module_name(backbone: Any, side: str, kind: str, block: int, layer: int) -> str:
    """The module behind one of the helper's keys, which count up-blocks and layers backwards."""
    if side == "mid":
        return "mid_block"
    if side == "down":
        root, modules = f"down_blocks.{block}", backbone.down_blocks[block]
    else:
        place = len(backbone.up_blocks) - 1 - block
        root, modules = f"up_blocks.{place}", backbone.up_blocks[place]
        if kind in ("attentions", "resnet"):
            layer = len(modules.resnets) - 1 - layer
    if kind == "block":
        return root
    if kind in ("downsampler", "upsampler"):
        return f"{root}.{kind}s.0"
    return f"{root}.{'resnets' if kind == 'resnet' else 'attentions'}.{layer}"


@hookimpl
def tgate_register_layers(register: RegisterLayer) -> None:
    register("deepcache", DeepCacheLayer)
