"""Puts the trained parts together as an ordinary Stable Diffusion pipeline folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tgate_zoo.card import write_card
from tgate_zoo.recipe.files import swap_folder
from tgate_zoo.recipe.text import Merge, build_vocabulary
from tgate_zoo.recipe.unet import SCHEDULER, Denoiser
from tgate_zoo.untyped import diffusers

SIZE_LIMIT = 12_000_000


def assemble(vae: Any, denoiser: Denoiser, tokenizer: Any) -> Any:
    """A StableDiffusionPipeline of the parts, without a safety checker."""
    return diffusers().StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=diffusers().DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def describe_parts(pipeline: Any) -> list[dict[str, Any]]:
    """Name, shape in words and number of parameters of each trained part."""
    unet, vae, text = pipeline.unet.config, pipeline.vae.config, pipeline.text_encoder.config
    shapes = {
        "vae": f"AutoencoderKL, {vae.latent_channels} latent channels at a quarter of the side, "
        f"channels {tuple(vae.block_out_channels)}",
        "unet": f"UNet2DConditionModel, latents of {unet.sample_size} x {unet.sample_size}, "
        f"channels {tuple(unet.block_out_channels)}, cross-attention at every level",
        "text_encoder": f"CLIPTextModel, {text.num_hidden_layers} layers of {text.hidden_size}, "
        f"{text.vocab_size} tokens, {text.max_position_embeddings} positions",
    }
    return [
        {
            "name": name,
            "shape": shape,
            "parameters": sum(p.numel() for p in getattr(pipeline, name).parameters()),
        }
        for name, shape in shapes.items()
    ]


def export_pipeline(pipeline: Any, merges: list[Merge], folder: Path, facts: dict[str, Any]) -> int:
    """Write the pipeline in half precision with its card to `folder`, replacing it in one step.

    Returns the size of the weights and configurations in bytes; raises ValueError when it is over
    the limit.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder):
        part.half()
    pipeline.save_pretrained(new, safe_serialization=True)
    name_for_every_version(new / "text_encoder" / "model.safetensors")
    edit_json(new / "text_encoder" / "config.json", _load_in_full_precision)
    edit_json(new / "vae" / "config.json", _forget_origin)
    write_slow_tokenizer(new / "tokenizer", merges)
    size = folder_size(new)
    if size > SIZE_LIMIT:
        raise ValueError(
            f"The pipeline takes {size:,} bytes and may take {SIZE_LIMIT:,}; "
            "make the UNet smaller in recipe/unet.py."
        )
    write_card(new, {**facts, "parts": describe_parts(pipeline), "bytes": size})
    for path in new.rglob("*.safetensors"):
        # safetensors writes files that nobody else may read.
        path.chmod(0o644)
    swap_folder(new, folder)
    return size


def name_for_every_version(weights: Path) -> None:
    """Give a CLIP text encoder's weights the prefix that transformers before version 5 reads.

    Version 5 saves them without it and reads both; version 4 would start from random values.
    """
    from safetensors.torch import load_file, save_file

    found = load_file(weights)
    prefix = "text_model."
    named = {k if k.startswith(prefix) else f"{prefix}{k}": v for k, v in found.items()}
    save_file(named, weights, metadata={"format": "pt"})


def edit_json(path: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the object in a JSON file by what `edit` makes of it."""
    path.write_text(json.dumps(edit(json.loads(path.read_text())), indent=2) + "\n")


def _load_in_full_precision(config: dict[str, Any]) -> dict[str, Any]:
    # When no precision is asked for, transformers loads a model as saved and diffusers loads it
    # in float32; a pipeline of two precisions does not run.
    return {**config, "dtype": "float32"}


def _forget_origin(config: dict[str, Any]) -> dict[str, Any]:
    # The work folder's path says nothing to anybody else.
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def write_slow_tokenizer(folder: Path, merges: list[Merge]) -> None:
    """Write vocab.json and merges.txt, which transformers before version 5 reads."""
    (folder / "vocab.json").write_text(json.dumps(build_vocabulary(merges), ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def folder_size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
