"""A diffusers-style UNet as a k-diffusion denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from tgate_sampling.errors import OptionError, nearest
from tgate_sampling.layout import LAYOUTS

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class UNetDenoiser(nn.Module):
    """Wraps a UNet of discrete timesteps so that k-diffusion samplers can call it, with guidance.

    With c_in = 1 / sqrt(sigma^2 + 1) and t log-linearly interpolated (never rounded: rounding moves
    the result by 6e-4), the denoised prediction is x - sigma eps, or
    x / (sigma^2 + 1) - v sigma / sqrt(sigma^2 + 1), or the output itself (Karras et al. 2022, and
    `k_diffusion.external`). Start from noise * sigmas[0].

    Args:
        unet: called as `unet(sample, timestep, encoder_hidden_states=...)`.
        alphas_cumprod: (T,) of the training schedule; `scheduler.alphas_cumprod`.
        prediction_type: "epsilon", "v_prediction" or "sample".
        cond, uncond: (B, tokens, dim) text embeddings, or a mapping of the UNet's keyword
            arguments. Without uncond there is no guidance.
        guidance_scale: s in uncond + s (cond - uncond); 1 evaluates cond alone.

    Raises:
        OptionError: the prediction type is unknown, or guidance is asked for without uncond.
    """

    sigmas: torch.Tensor
    log_sigmas: torch.Tensor

    def __init__(
        self,
        unet: nn.Module,
        alphas_cumprod: torch.Tensor,
        *,
        cond: torch.Tensor | Mapping[str, Any],
        uncond: torch.Tensor | Mapping[str, Any] | None = None,
        guidance_scale: float = 1.0,
        prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
    ) -> None:
        super().__init__()
        if prediction_type not in PREDICTIONS:
            raise OptionError(
                f"prediction_type={prediction_type!r} is unknown. "
                f"{nearest(prediction_type, PREDICTIONS)}"
            )
        if guidance_scale != 1.0 and uncond is None:
            raise OptionError(
                f"guidance_scale={guidance_scale} needs uncond: pass the empty prompt's embedding."
            )
        self.inner_model = unet
        self.prediction_type = prediction_type
        self.cond, self.uncond, self.guidance_scale = cond, uncond, guidance_scale
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()
        self.register_buffer("sigmas", sigmas, persistent=False)
        self.register_buffer("log_sigmas", sigmas.log(), persistent=False)

    @property
    def guided(self) -> bool:
        """Whether a call holds two branches."""
        return self.uncond is not None and self.guidance_scale != 1.0

    @property
    def tgate_layout(self) -> tuple[str, ...]:
        """How the branches lie in each call; read by `wrap_sampler`."""
        return LAYOUTS["uncond_first" if self.guided else "single"]

    def sigma_to_t(self, sigma: torch.Tensor) -> torch.Tensor:
        """Timestep of each noise level, (B,) -> (B,), interpolated in log sigma."""
        log_sigma = sigma.log()
        high = torch.searchsorted(self.log_sigmas, log_sigma).clamp(1, len(self.log_sigmas) - 1)
        low_log, high_log = self.log_sigmas[high - 1], self.log_sigmas[high]
        weight = ((log_sigma - low_log) / (high_log - low_log)).clamp(0, 1)
        return high - 1 + weight

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """The denoised prediction.

        Args:
            x: (B, C, H, W) noisy latents, variance-exploding.
            sigma: (B,) noise levels.
        """
        scale = sigma.view(-1, *[1] * (x.ndim - 1))  # (B, 1, 1, 1)
        sample = x / (scale**2 + 1).sqrt()
        timestep = self.sigma_to_t(sigma)
        if not self.guided:
            return self._denoised(x, scale, self._call(sample, timestep, _keywords(self.cond)))
        assert self.uncond is not None
        keywords = _concatenate(_keywords(self.uncond), _keywords(self.cond))
        both = self._call(torch.cat([sample] * 2), torch.cat([timestep] * 2), keywords)
        uncond, cond = both.chunk(2)
        return self._denoised(x, scale, uncond + self.guidance_scale * (cond - uncond))

    def _call(
        self, sample: torch.Tensor, timestep: torch.Tensor, keywords: Mapping[str, Any]
    ) -> torch.Tensor:
        result = self.inner_model(sample, timestep, **keywords)
        output: torch.Tensor = result if isinstance(result, torch.Tensor) else result[0]
        return output

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if self.prediction_type == "epsilon":
            return x - sigma * output
        if self.prediction_type == "v_prediction":
            return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
        return output


def _keywords(value: torch.Tensor | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"encoder_hidden_states": value} if isinstance(value, torch.Tensor) else value


def _concatenate(first: Any, second: Any) -> Any:
    """Rows of `first`, then rows of `second`, through mappings."""
    if isinstance(first, torch.Tensor):
        return torch.cat([first, second])
    if isinstance(first, Mapping):
        return {k: _concatenate(v, second[k]) for k, v in first.items()}
    return second
