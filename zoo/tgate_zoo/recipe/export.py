"""Writes a pipeline of trained parts as an ordinary diffusers folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tgate_zoo.card import write_card
from tgate_zoo.recipe.files import swap_folder
from tgate_zoo.recipe.text import Merge, build_vocabulary

SIZE_LIMIT = 12_000_000


def trained_parts(pipeline: Any) -> dict[str, Any]:
    """The parts of a pipeline that have weights, by name."""
    return {name: part for name, part in pipeline.components.items() if hasattr(part, "parameters")}


def describe_parts(pipeline: Any) -> list[dict[str, Any]]:
    """Name, shape in words and number of parameters of each trained part."""
    found = trained_parts(pipeline)
    # The order of a card: autoencoder, denoiser, text.
    order = ("vae", "unet", "transformer", "text_encoder", "text_encoder_2")
    return [
        {
            "name": name,
            "shape": _SHAPES[type(found[name]).__name__](found[name].config),
            "parameters": sum(p.numel() for p in found[name].parameters()),
        }
        for name in order
        if name in found
    ]


def _vae(config: Any) -> str:
    channels = tuple(config.block_out_channels)
    return (
        f"AutoencoderKL, {config.latent_channels} latent channels at a quarter of the side, "
        f"channels {channels}"
    )


def _unet(config: Any) -> str:
    crossing = ["CrossAttn" in block for block in config.down_block_types]
    where = "at every level" if all(crossing) else "at the lower level"
    shape = (
        f"UNet2DConditionModel, latents of {config.sample_size} x {config.sample_size}, "
        f"channels {tuple(config.block_out_channels)}, cross-attention {where}"
    )
    if config.mid_block_type is None:
        shape += ", no middle block"
    if config.addition_embed_type == "text_time":
        shape += ", pooled text and sizes added to the time"
    if config.time_cond_proj_dim is not None:
        shape += ", the guidance scale added to the time"
    return shape


def _transformer(config: Any) -> str:
    width = config.num_attention_heads * config.attention_head_dim
    return (
        f"PixArtTransformer2DModel, latents of {config.sample_size} x {config.sample_size} in "
        f"patches of {config.patch_size}, {config.num_layers} blocks of {width}"
    )


def _clip(name: str) -> Callable[[Any], str]:
    return lambda config: (
        f"{name}, {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{config.vocab_size} tokens, {config.max_position_embeddings} positions"
    )


def _t5(config: Any) -> str:
    return (
        f"T5EncoderModel, {config.num_layers} layers of {config.d_model}, "
        f"{config.vocab_size} tokens"
    )


_SHAPES: dict[str, Callable[[Any], str]] = {
    "AutoencoderKL": _vae,
    "UNet2DConditionModel": _unet,
    "PixArtTransformer2DModel": _transformer,
    "CLIPTextModel": _clip("CLIPTextModel"),
    "CLIPTextModelWithProjection": _clip("CLIPTextModelWithProjection"),
    "T5EncoderModel": _t5,
}


def export_pipeline(pipeline: Any, merges: list[Merge], folder: Path, facts: dict[str, Any]) -> int:
    """Write the pipeline in half precision with its card to `folder`, replacing it in one step.

    Returns the size of the weights and configurations in bytes; raises ValueError when it is over
    the limit.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    parts = describe_parts(pipeline)
    for part in trained_parts(pipeline).values():
        part.half()
    pipeline.save_pretrained(new, safe_serialization=True)
    _make_readable_by_all_versions(new, merges)
    edit_json(new / "vae" / "config.json", _forget_origin)
    size = folder_size(new)
    if size > SIZE_LIMIT:
        raise ValueError(
            f"The pipeline takes {size:,} bytes and may take {SIZE_LIMIT:,}; "
            f"make the denoiser of {folder.name} smaller in its file of recipe/."
        )
    write_card(new, {**facts, "parts": parts, "bytes": size})
    for path in new.rglob("*.safetensors"):
        # safetensors writes files that nobody else may read.
        path.chmod(0o644)
    swap_folder(new, folder)
    return size


def _make_readable_by_all_versions(folder: Path, merges: list[Merge]) -> None:
    for encoder in folder.glob("text_encoder*"):
        edit_json(encoder / "config.json", _load_in_full_precision)
        kind = json.loads((encoder / "config.json").read_text())["architectures"]
        if kind == ["CLIPTextModel"]:
            name_for_every_version(encoder / "model.safetensors")
    for tokenizer in folder.glob("tokenizer*"):
        settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
        if settings["tokenizer_class"].startswith("CLIP"):
            write_slow_tokenizer(tokenizer, merges)
        else:
            edit_json(folder / "model_index.json", _name_fast_tokenizer)


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


def _name_fast_tokenizer(index: dict[str, Any]) -> dict[str, Any]:
    # Before transformers 5 the other T5 tokenizer reads no tokenizer.json; 5 has this name as well.
    return {**index, "tokenizer": ["transformers", "T5TokenizerFast"]}


def write_slow_tokenizer(folder: Path, merges: list[Merge]) -> None:
    """Write vocab.json and merges.txt, which transformers before version 5 reads."""
    (folder / "vocab.json").write_text(json.dumps(build_vocabulary(merges), ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def folder_size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
