"""`generate`: pictures of prompts, gated, with a report of what each gate saved."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tgate_plugins.cli.folders import writable
from tgate_plugins.cli.models import check_model, load_pipeline, pick_device, pick_dtype
from tgate_plugins.cli.samplers import find_sampler, set_sampler
from tgate_plugins.cli.show import show_report
from tgate_plugins.cli.spec import FILLING, Spec, default_spec
from tgate_plugins.cli.values import parse_options
from tgate_sampling.errors import OptionError
from tgate_sampling.report import Report

RECORD = "report.json"


@dataclass(frozen=True)
class Settings:
    """What `generate` was asked to do; see its `--help`."""

    prompts: tuple[str, ...]
    model: str
    policy: str | None
    options: tuple[str, ...]
    estimator: str | None
    refresh: int | None
    merge: str | None
    steps: int
    guidance_scale: float
    seed: int
    num_images: int
    sampler: str | None
    negative_prompt: str | None
    size: tuple[int, int] | None
    out: Path
    device: str
    dtype: str


def generate(settings: Settings, console: Console) -> int:
    """Make the pictures, one prompt after the other, and keep the record up to date.

    Args:
        settings: what was asked.
        console: for reports and paths.

    Returns:
        The exit code.

    Raises:
        TGateError: bad input, before any picture is made.
    """
    spec = make_spec(settings)
    if settings.sampler:
        find_sampler(settings.sampler)
    check_model(settings.model)
    folder = writable(settings.out)
    device = pick_device(settings.device)
    pipe = load_pipeline(settings.model, device=device, dtype=pick_dtype(settings.dtype, device))
    pipe.set_progress_bar_config(disable=None)  # a bar on terminals only
    if settings.sampler:
        set_sampler(pipe, settings.sampler)
    runs: list[dict[str, Any]] = []
    with spec.gate(pipe) as gating:
        for number, prompt in enumerate(settings.prompts, start=1):
            seeds = range(settings.seed, settings.seed + settings.num_images)
            pictures = draw(pipe, settings, prompt, seeds)
            files = [f"{number:02d}-{slug(prompt)}-seed{seed}.png" for seed in seeds]
            for file, picture in zip(files, pictures, strict=True):
                picture.save(folder / file)
                console.print(folder / file, style="bold", soft_wrap=True)
            report = gating.report
            console.print(show_report(report))
            runs.append(run_dict(prompt, seeds, files, report))
            (folder / RECORD).write_text(
                json.dumps(to_dict(settings, spec, runs), indent=2) + "\n", encoding="utf-8"
            )
    console.print(f"record  {folder / RECORD}", markup=False, soft_wrap=True)
    return 0


def make_spec(settings: Settings) -> Spec:
    """The policy that was asked for, or the library's default.

    Raises:
        OptionError: options without a policy, or an option that is refused.
    """
    options = parse_options(settings.options)
    given = {key: getattr(settings, key) for key in FILLING}
    filling = {key: value for key, value in given.items() if value is not None}
    if settings.policy is None:
        if options:
            raise OptionError(
                f"--option {next(iter(options))} belongs to no policy: add --policy, as in "
                "--policy fixed_step -o gate_step=10."
            )
        standard = default_spec()
        return Spec.make(standard.name, {**standard.filling, **filling})
    for key in FILLING:
        if key in options:
            raise OptionError(f"{key} is no option of a policy: write --{key} {options[key]}.")
    return Spec.make(settings.policy, {**options, **filling})


def draw(pipe: Any, settings: Settings, prompt: str, seeds: range) -> list[Any]:
    """Pictures of one prompt; each seed gives the same one alone or with others.

    Raises:
        OptionError: the pipeline refuses what it was called with.
    """
    arguments: dict[str, Any] = {}
    if settings.negative_prompt is not None:
        arguments["negative_prompt"] = settings.negative_prompt
    if settings.size:
        arguments["width"], arguments["height"] = settings.size
    try:
        result = pipe(
            prompt=prompt,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            **arguments,
        )
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(f"{type(pipe).__name__} refused: {error}") from error
    pictures: list[Any] = result.images
    return pictures


def slug(prompt: str) -> str:
    """A prompt as part of a file name.

    >>> slug("A large apple, on a blue background!")
    'a-large-apple-on-a-blue-background'
    """
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].rstrip("-") or "picture"


def run_dict(prompt: str, seeds: range, files: list[str], report: Report) -> dict[str, Any]:
    """One prompt's part of the record."""
    return {"prompt": prompt, "seeds": list(seeds), "files": files, "report": report.to_dict()}


def to_dict(settings: Settings, spec: Spec, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The record, as plain values for JSON."""
    said = {**asdict(settings), "out": str(settings.out)}
    return {
        "version": version("tgate-sampling"),
        "policy": spec.label,
        "settings": said,
        "runs": runs,
    }
