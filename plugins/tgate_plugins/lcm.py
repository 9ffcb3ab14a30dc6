"""Latent consistency models (arXiv 2310.04378) for k-diffusion style sampling.

`sample_lcm` is the paper's multistep sampling and `LCMDenoiser` its consistency function; together
they take the steps that diffusers' `LCMScheduler` takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import torch
from torch import nn

from tgate_sampling.denoiser import UNetDenoiser
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterSampler, hookimpl

#: Standard deviation of the data, in the boundary scalings.
SIGMA_DATA: Final = 0.5
#: Timesteps are multiplied by this in the boundary scalings.
TIMESTEP_SCALING: Final = 10.0


@torch.no_grad()
def sample_lcm(
    model: Callable[..., torch.Tensor],
    x: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    noise_sampler: Callable[[Any, Any], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Multistep consistency sampling (LCM): denoise, then add the noise of the next level again.

    Args:
        model: a consistency denoiser, `model(x, sigma, **extra_args)`; see `LCMDenoiser`.
        x: (B, C, H, W) noise at level sigmas[0], variance-exploding.
        sigmas: (n + 1,) falling noise levels; a last one of 0 takes no noise.
        extra_args: keyword arguments of the model.
        callback: called after each denoising with x, i, sigma, sigma_hat and denoised.
        disable: taken as by every k-diffusion sampler; a handful of steps shows no progress bar.
        noise_sampler: `noise_sampler(sigma, sigma_next)` gives unit noise; torch's generator by
            default.

    Returns:
        (B, C, H, W) samples at level sigmas[-1].
    """
    extra_args = {} if extra_args is None else extra_args
    noise_sampler = _unit_noise(x) if noise_sampler is None else noise_sampler
    s_in = x.new_ones([x.shape[0]])
    levels = sigmas.tolist()  # read once: a comparison in the loop would wait for the device
    for i in range(len(levels) - 1):
        denoised = model(x, sigmas[i] * s_in, **extra_args)
        if callback is not None:
            callback(
                {"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised}
            )
        x = denoised
        if levels[i + 1] > 0:
            x = denoised + sigmas[i + 1] * noise_sampler(sigmas[i], sigmas[i + 1])
    return x


def _unit_noise(x: torch.Tensor) -> Callable[[Any, Any], torch.Tensor]:
    return lambda sigma, sigma_next: torch.randn_like(x)


class LCMDenoiser(UNetDenoiser):
    """A UNet as a consistency denoiser: c_skip(t) x + c_out(t) x0(x, t) is the clean image.

    The network is asked at the distilled timestep nearest to sigma in log sigma, k i - 1 for
    i = 1 ... `original_steps`. A UNet that was distilled with guidance as an input (it has a
    `time_cond_proj_dim`) is handed the scale's embedding and runs one branch; any other is guided
    as by `UNetDenoiser`. Start from noise * sqrt(sigmas[0]^2 + 1), which is where `LCMScheduler`
    starts.

    Args:
        unet: called as `unet(sample, timestep, encoder_hidden_states=...)`.
        alphas_cumprod: (T,) of the training schedule; `scheduler.alphas_cumprod`.
        cond, uncond: as for `UNetDenoiser`.
        guidance_scale: the scale; 1 for a model that was distilled without guidance.
        prediction_type: "epsilon", "v_prediction" or "sample".
        original_steps: timesteps of the distillation, 50 as LCMs are published.

    Raises:
        OptionError: uncond is given to a UNet that takes guidance as an input, or the distillation
            has more steps than the training.
    """

    distilled: torch.Tensor

    def __init__(
        self,
        unet: nn.Module,
        alphas_cumprod: torch.Tensor,
        *,
        cond: torch.Tensor | Mapping[str, Any],
        uncond: torch.Tensor | Mapping[str, Any] | None = None,
        guidance_scale: float = 1.0,
        prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
        original_steps: int = 50,
    ) -> None:
        width = getattr(getattr(unet, "config", None), "time_cond_proj_dim", None)
        if width is not None:
            if uncond is not None:
                raise OptionError(
                    "this UNet takes the guidance scale as an input and has one branch: leave "
                    "uncond out."
                )
            cond, guidance_scale = _with_scale(cond, guidance_scale, width), 1.0
        super().__init__(
            unet,
            alphas_cumprod,
            cond=cond,
            uncond=uncond,
            guidance_scale=guidance_scale,
            prediction_type=prediction_type,
        )
        if not 1 <= original_steps <= len(self.sigmas):
            raise OptionError(
                f"original_steps={original_steps} must lie between 1 and the training's "
                f"{len(self.sigmas)} steps."
            )
        stride = len(self.sigmas) // original_steps
        distilled = torch.arange(1, original_steps + 1) * stride - 1
        self.register_buffer("distilled", distilled.to(self.sigmas.device), persistent=False)

    def get_sigmas(self, n: int) -> torch.Tensor:
        """The (n + 1,) noise levels of an n-step run, the last one 0, as `LCMScheduler` picks them.

        Raises:
            OptionError: there are not so many distilled timesteps.
        """
        if not 1 <= n <= len(self.distilled):
            raise OptionError(
                f"n={n} steps must lie between 1 and the {len(self.distilled)} distilled timesteps."
            )
        places = [len(self.distilled) * i // n for i in range(n)]
        levels = self.sigmas[self.distilled.flip(0)[places]]
        return torch.cat([levels, levels.new_zeros(1)])

    def sigma_to_t(self, sigma: torch.Tensor) -> torch.Tensor:
        """The distilled timestep nearest to each noise level in log sigma, (B,) -> (B,)."""
        levels = self.log_sigmas[self.distilled]
        nearest = (sigma.log()[:, None] - levels).abs().argmin(1)  # (B,)
        return self.distilled[nearest]

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The consistency function.

        Args:
            x: (B, C, H, W) noisy latents, variance-exploding.
            sigma: (B,) noise levels.
        """
        scale = sigma.view(-1, *[1] * (x.ndim - 1))  # (B, 1, 1, 1)
        timestep = self.sigma_to_t(sigma).view_as(scale)
        c_skip, c_out = boundary_scalings(timestep)
        return c_out * super().forward(x, sigma) + c_skip * (x / (scale**2 + 1).sqrt())


def boundary_scalings(timestep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """c_skip = s^2 / (t'^2 + s^2) and c_out = t' / sqrt(t'^2 + s^2), with t' = 10 t and s = 0.5.

    At t = 0 the consistency function is the identity.

    >>> [round(float(c), 3) for c in boundary_scalings(torch.tensor(0.1))]
    [0.2, 0.894]
    """
    scaled = timestep * TIMESTEP_SCALING
    return SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2), scaled / (scaled**2 + SIGMA_DATA**2) ** 0.5


def guidance_embedding(scale: float, width: int) -> torch.Tensor:
    """The (1, width) sinusoidal embedding of a guidance scale that LCMs were distilled with.

    What diffusers embeds is w = scale - 1: sin and cos of 1000 w / 10000^(i / (h - 1)) for
    i = 0 ... h - 1, with h = width // 2; an odd width ends with a zero.
    """
    half = width // 2
    frequency = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))  # (half,)
    angle = 1000 * (scale - 1) * frequency
    embedding = torch.cat([angle.sin(), angle.cos()])
    return nn.functional.pad(embedding, (0, width % 2))[None]


def _with_scale(
    cond: torch.Tensor | Mapping[str, Any], scale: float, width: int
) -> Mapping[str, Any]:
    """The keyword arguments of a cond branch, the scale's embedding among them."""
    keywords = {"encoder_hidden_states": cond} if isinstance(cond, torch.Tensor) else dict(cond)
    text = keywords["encoder_hidden_states"]
    embedded = guidance_embedding(scale, width).to(text).expand(len(text), -1)
    return {"timestep_cond": embedded, **keywords}


@hookimpl
def tgate_register_samplers(register: RegisterSampler) -> None:
    register("lcm", lambda: sample_lcm)
