"""A loop of one's own with two gates: guidance looked at less often, and deep blocks reused.

Our block gate does what DeepCache does. The package's own helper, where it is installed, goes with
a guidance gate too: it is found on the backbone, and runs in full whenever the rows change.
"""

from types import SimpleNamespace
from typing import Any

import torch

import tgate_sampling as tg


def load_parts() -> Any:
    """A UNet with text for both branches: of the project's small model, or else a random one."""
    try:
        from tgate_zoo.loader import load

        pipe = load("emoji-sd")
    except (ImportError, LookupError):
        from diffusers import DDIMScheduler

        from tgate_sampling.testing import tiny_unet

        text = torch.randn(2, 7, 16)
        return SimpleNamespace(unet=tiny_unet(), scheduler=DDIMScheduler(), text=text)
    cond, uncond = pipe.encode_prompt("a large apple on a blue background", "cpu", 1, True)
    return SimpleNamespace(unet=pipe.unet, scheduler=pipe.scheduler, text=torch.cat([uncond, cond]))


@torch.no_grad()
def sample(parts: Any, gating: tg.Gating | None = None, scale: float = 4.0) -> torch.Tensor:
    parts.scheduler.set_timesteps(20)
    times, made = parts.scheduler.timesteps, torch.Generator().manual_seed(0)
    x = torch.randn(1, parts.unet.config.in_channels, 8, 8, generator=made)
    for t in times if gating is None else gating.steps(times):  # the only line that changes
        noise = parts.unet(torch.cat([x, x]), t, encoder_hidden_states=parts.text).sample
        uncond, cond = noise.chunk(2)
        x = parts.scheduler.step(uncond + scale * (cond - uncond), t, x).prev_sample
    return x


parts = load_parts()
full = sample(parts)
for other in ("block", "deepcache"):
    if other == "deepcache":
        try:
            from DeepCache import DeepCacheSDHelper
        except ImportError:
            break
        helper = DeepCacheSDHelper(parts)  # all it asks of a pipeline is `unet` and `scheduler`
        helper.set_params(cache_interval=3)
        helper.enable()
    with tg.gate(parts.unet, "interleave", layout="uncond_first", compose=[other]) as gating:
        gated = sample(parts, gating)
    print(f"interleave with {other}:", gating.report, sep="\n")
    print(f"relative error {float((gated - full).norm() / full.norm()):.3f}\n")
