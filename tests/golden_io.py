"""Recorded latents of the reference implementation (tgate 1.0.0), and how to run against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parent / "golden"

#: The families that were recorded.
FAMILIES = ("sd", "sdxl", "pixart_alpha")

#: Parts a pipeline is made without: text goes in as embeddings, and latents come out.
ABSENT: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {
        "text_encoder": None,
        "tokenizer": None,
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    },
    "StableDiffusionXLPipeline": {
        "text_encoder": None,
        "text_encoder_2": None,
        "tokenizer": None,
        "tokenizer_2": None,
        "add_watermarker": False,
    },
    "PixArtAlphaPipeline": {"text_encoder": None, "tokenizer": None},
}


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
        """A fresh pipeline of the family, with the recorded weights."""
        name, config = self.config["schedulers"][scheduler]
        kind = self.config["pipeline"]
        denoiser = self._model("denoiser", prefix="net")
        pipe = getattr(diffusers, kind)(
            vae=self._model("vae"),
            scheduler=getattr(diffusers, name)(**config),
            **{self.config["denoiser_attr"]: denoiser},
            **ABSENT[kind],
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
        out = pipe(**tensors, **_with_tuples(settings), output_type="latent", generator=generator)
        latents: torch.Tensor = out.images
        return latents

    def _model(self, key: str, prefix: str | None = None) -> Any:
        made = getattr(diffusers, self.config[f"{key}_class"])
        model = made(**_with_tuples(self.config[f"{key}_config"]))
        start = f"{prefix or key}."
        found = {k: v for k, v in self._weights.items() if k.startswith(start)}
        model.load_state_dict({k.removeprefix(start): v.float() for k, v in found.items()})
        return model.eval()


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON made lists of, as it was."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return float((a - b).norm() / b.norm())
