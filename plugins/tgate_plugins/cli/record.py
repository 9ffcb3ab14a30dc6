"""What a comparison leaves behind: its record, its picture, and what a reader should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

from PIL import Image

from tgate_plugins.cli.bench import Shot
from tgate_plugins.cli.grid import Column, draw_grid, to_picture
from tgate_plugins.cli.metrics import finite
from tgate_plugins.cli.screen import ratio
from tgate_plugins.cli.summary import Group, Row, Scored
from tgate_plugins.cli.tables import verdict
from tgate_plugins.cli.trial import Trial

#: Names of the two files.
PICTURE, RECORD = "compare.png", "compare.json"

#: Below so many MACs a backbone call, wall time is mostly Python's.
TINY_CALL: Final = 1e9


def notes(trial: Trial, rows: Sequence[Row]) -> list[str]:
    """What a reader should know beside the numbers."""
    lines = [verdict(rows)]
    if (trial.bench.unit.macs or TINY_CALL) < TINY_CALL:
        lines.append("The model is tiny, so that seconds are mostly Python's: read the MACs.")
    for shot in trial.shots:
        lines += [f"{shot.method}: {event}" for event in shot.events]
    if trial.interrupted:
        lines.append("Interrupted: what was finished until then is here.")
    return list(dict.fromkeys(lines))


def to_dict(
    trial: Trial, groups: Sequence[Group], rows: dict[str, Row], scored: Sequence[Scored]
) -> dict[str, Any]:
    """The whole comparison, as plain values for JSON."""
    settings = {**asdict(trial.settings), "out": str(trial.settings.out)}
    settings["policies"] = [method.label for method in trial.gated]
    return {
        "version": version("tgate-sampling"),
        "complete": not trial.interrupted,
        "settings": {**settings, "prompts": list(trial.prompts)},
        "reference": trial.reference.label,
        "picture": PICTURE,
        "methods": [
            {**rows[m.label].to_dict(), "group": group.title}
            for group in groups
            for m in group.members
        ],
        "images": [s.to_dict() for s in scored if s.shot.image is not None],
        "failures": [
            {"method": s.method, "prompt": s.prompt, "seed": s.seed, "error": s.error}
            for s in trial.failures
        ],
    }


def draw(trial: Trial, groups: Sequence[Group], rows: dict[str, Row]) -> Image.Image:
    """The picture: prompts down, methods across."""
    methods = [(m, group) for group in groups for m in group.members]
    columns = [Column(m.label, details(rows[m.label]), group.title) for m, group in methods]
    shots = {(s.method, s.prompt, s.seed): s for s in trial.shots}
    labels, tiles = [], []
    for prompt, seed in trial.images:
        labels.append(prompt if trial.settings.seeds == 1 else f"{prompt} (seed {seed})")
        tiles.append([_tile(shots.get((m.label, prompt, seed))) for m, _ in methods])
    return draw_grid(columns, labels, tiles)


def details(row: Row) -> tuple[str, ...]:
    """What the picture says of a method, under its name."""
    if row.cost is None:
        return ("failed" if row.failed else "not run",)
    known = row.psnr is not None and finite(row.psnr.mean) is not None
    near = f", {row.psnr.mean:.1f} dB" if row.psnr and known else ""
    return (f"{ratio(row.speedup)} MACs{near}",)


def _tile(shot: Shot | None) -> Image.Image | str | None:
    if shot is None:
        return None
    return shot.error if shot.image is None else to_picture(shot.image)
