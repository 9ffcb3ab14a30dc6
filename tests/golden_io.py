"""Recorded latents of the reference implementation (tgate 1.0.0), and how to run against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent / "golden"


class Golden:
    """One family of recorded cases: tiny random pipelines, float16-lossless weights, 25 steps."""

    def __init__(self, family: str) -> None:
        self.folder = ROOT / family
        self.config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        self.cases: dict[str, Any] = json.loads((self.folder / "cases.json").read_text())
        self.outputs = load_file(self.folder / "outputs.safetensors")
        self._weights = load_file(self.folder / "weights.safetensors")
        self._inputs = load_file(self.folder / "inputs.safetensors")

    def pipeline(self, scheduler: str) -> Any:
        """A fresh StableDiffusionPipeline with the recorded weights."""
        name, config = self.config["schedulers"][scheduler]
        pipe = diffusers.StableDiffusionPipeline(
            vae=self._model("vae", diffusers.AutoencoderKL),
            text_encoder=None,
            tokenizer=None,
            unet=self._model("denoiser", diffusers.UNet2DConditionModel, prefix="net"),
            scheduler=getattr(diffusers, name)(**config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def call(self, pipe: Any, case: dict[str, Any]) -> torch.Tensor:
        """Run the pipeline as the case was recorded; returns the final latents."""
        settings = {**self.config["call_defaults"], **case["call"]}
        tensors = {
            key.split("/", 1)[1]: value.clone()
            for key, value in self._inputs.items()
            if key.split("/", 1)[0] == case["inputs"]
        }
        generator = torch.Generator().manual_seed(self.config["generator_seed"])
        out = pipe(**tensors, **settings, output_type="latent", generator=generator)
        latents: torch.Tensor = out.images
        return latents

    def _model(self, key: str, made: Any, prefix: str | None = None) -> Any:
        config = self.config[f"{key}_config"]
        model = made(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
        start = f"{prefix or key}."
        found = {k: v for k, v in self._weights.items() if k.startswith(start)}
        state = {k.removeprefix(start): v.float() for k, v in found.items()}
        model.load_state_dict(state)
        return model.eval()


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())
