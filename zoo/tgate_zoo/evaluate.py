"""Measures what a model draws: is the asked object there, on the asked background?"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tgate_zoo import scenes
from tgate_zoo.card import read_facts, write_card
from tgate_zoo.classifier import CONFIG, EmojiClassifier, halves, read_backgrounds, read_objects

CAPTIONS = 256
STEPS = 25
GUIDANCE = 4.0
SEED = 0
BATCH = 32
# A model of few steps is asked for less.
BARS = {"background": 0.97, "single": 0.85}
BARS_OF = {"emoji-lcm": {"background": 0.97, "single": 0.75}}


@dataclass(frozen=True)
class Verdict:
    """What the classifier says of one picture: objects (all of them) and background right?"""

    scene: scenes.Scene
    objects: bool
    background: bool


def held_out_scenes(count: int = CAPTIONS, seed: int = SEED) -> list[scenes.Scene]:
    """Scenes never trained on: every held-out single (at most half), the rest pairs."""
    rng = random.Random(seed)
    singles = scenes.single_scenes(True)
    singles = rng.sample(singles, min(len(singles), count // 2))
    return singles + rng.sample(scenes.pair_scenes(True), count - len(singles))


def seen_scenes(count: int = CAPTIONS, seed: int = SEED) -> list[scenes.Scene]:
    """Scenes of the training side, half singles and half pairs, to compare with."""
    rng = random.Random(seed)
    singles = rng.sample(scenes.single_scenes(False), count // 2)
    return singles + rng.sample(scenes.pair_scenes(False), count - len(singles))


def generate(
    pipeline: Any,
    captions: Sequence[str],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = SEED,
    batch: int = BATCH,
    on_batch: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """Pictures of shape (n, 3, side, side) in [0, 1].

    Every caption has its own generator, seeded by its place, so a picture does not depend on the
    batch it was made in.
    """
    pictures = []
    for start in range(0, len(captions), batch):
        part = list(captions[start : start + batch])
        generators = [
            torch.Generator().manual_seed(seed * 100_003 + start + i) for i in range(len(part))
        ]
        pictures.append(
            pipeline(
                part,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=generators,
                output_type="pt",
            ).images.float()
        )
        on_batch(len(part))
    return torch.cat(pictures)


def judge(
    classifier: EmojiClassifier, drawn: Sequence[scenes.Scene], pictures: Tensor
) -> list[Verdict]:
    """One verdict for each scene; a pair is right when both of its objects are, in order."""
    backgrounds = read_backgrounds(classifier, pictures)
    whole = read_objects(classifier, pictures)
    left, right = (read_objects(classifier, part) for part in halves(pictures))
    seen = [
        (whole[i],) if scene.second is None else (left[i], right[i])
        for i, scene in enumerate(drawn)
    ]
    return [
        Verdict(scene, found == scene.objects, ground == scene.background)
        for scene, found, ground in zip(drawn, seen, backgrounds, strict=True)
    ]


def right_flags(verdicts: Sequence[Verdict]) -> dict[str, list[bool]]:
    """Right or wrong by kind: background of all scenes, objects of each kind of scene.

    Kinds without a scene are left out.
    """
    single = [v for v in verdicts if v.scene.second is None]
    kinds = {
        "background": [v.background for v in verdicts],
        "single": [v.objects for v in single],
        "small": [v.objects for v in single if v.scene.size == "small"],
        "large": [v.objects for v in single if v.scene.size == "large"],
        "pair": [v.objects for v in verdicts if v.scene.second is not None],
    }
    return {kind: flags for kind, flags in kinds.items() if flags}


def summarize(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Share of right answers by kind."""
    return {kind: sum(flags) / len(flags) for kind, flags in right_flags(verdicts).items()}


def count_kinds(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Number of answers by kind."""
    return {kind: len(flags) for kind, flags in right_flags(verdicts).items()}


def bars_of(name: str) -> dict[str, float]:
    """The shares that a model of the zoo has to reach, by kind."""
    return BARS_OF.get(name, BARS)


def meets_bars(name: str, shares: dict[str, float]) -> bool:
    """True when every bar of the model is met."""
    return all(shares[kind] >= bar for kind, bar in bars_of(name).items())


def record(
    folder: Path,
    classifier: Path,
    side: str,
    settings: dict[str, Any],
    verdicts: Sequence[Verdict],
) -> None:
    """Write what was measured into the card of the model in `folder`.

    `side` is "held_out" or "seen"; `settings` are the arguments of the command.
    """
    options = "".join(f" --{name} {value:g}" for name, value in settings.items())
    extra = " --seen" if side == "seen" else ""
    run = {
        **settings,
        "command": f"python -m tgate_zoo evaluate {folder.name}{options}{extra}",
        "right": summarize(verdicts),
        "counts": count_kinds(verdicts),
    }
    facts = read_facts(folder)
    facts["bars"] = bars_of(folder.name)
    facts["classifier"] = json.loads((classifier / CONFIG).read_text())["measured"]
    facts["measured"] = {**facts.get("measured", {}), side: run}
    write_card(folder, facts)
