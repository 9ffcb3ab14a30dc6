"""The study of the zoo, from docs/study.json.

`python -m _generate.study out/study` (in docs/) takes a study's folder over: the numbers that the
page shows go into docs/study.json, a few of its pictures into docs/study.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _generate.markdown import table

DOCS = Path(__file__).parents[1]
FACTS, PICTURE = DOCS / "study.json", DOCS / "study.png"

#: What the page shows of every method; the report has the rest.
SHOWN = ("converged.psnr", "converged.ssim", "ungated.psnr", "object", "background")
#: Columns of the picture: the beginning of a method's label.
DRAWN = (
    "ungated",
    "ours policy=error_controlled",
    "ours policy=interleave",
    "deepcache",
    "tgate gate_step",
    "cfg_cutoff",
)
METHOD_KEYS = ("label", "part", "source", "status", "why", "steps", "pictures", "macs_speedup")


def study_setting(facts: Mapping[str, Any] | None = None) -> str:
    """What was run, on what."""
    found = facts or read()
    hardware, models = found["hardware"], found["models"]
    pictures = sum(len(m["prompts"]) * len(m["seeds"]) for m in models)
    each = " and ".join(
        dict.fromkeys(f"{len(m['prompts'])} prompts x {len(m['seeds'])} seeds" for m in models)
    )
    done = "" if found["complete"] else " The study was stopped before its end."
    return (
        f"{len(models)} models, {each} each ({pictures} pictures a method), on {hardware['cores']} "
        f"cores ({hardware['processor']}, {hardware['threads']} thread a worker, "
        f"{hardware['workers']} workers), torch {hardware['torch']}, diffusers "
        f"{hardware['diffusers']}.{done}\n"
    )


def study_left_out(facts: Mapping[str, Any] | None = None) -> str:
    """The metrics that could not be measured, one line each."""
    return "".join(f"- `{name}`: {why}.\n" for name, why in (facts or read())["left_out"].items())


def study_tables(facts: Mapping[str, Any] | None = None) -> str:
    """One table a model: methods by what they save, each beside its fewer-steps row."""
    return "\n".join(_model(model) for model in (facts or read())["models"])


def _model(model: Mapping[str, Any]) -> str:
    steps, scale, far = model["steps"], model["guidance_scale"], model["converged_steps"]
    truth = "converged" if far else "ungated"
    what = (
        f"converged is the ungated run of {far} steps" if far else "more steps draw another picture"
    )
    head = (
        f"### {model['name']}\n\n{model['pipeline']} with {model['scheduler']}, {steps} steps, "
        f"guidance {scale:g}; {what}.\n\n"
    )
    ran = [method for method in ordered(model["methods"]) if method["status"] == "ran"]
    rows = [_row(method, f"{truth}.psnr") for method in ran]
    absent = [m for m in model["methods"] if m["status"] != "ran"]
    tail = "".join(f"- `{m['label']}` {m['status']}: {m['why']}\n" for m in absent)
    columns = ("method", "MACs", "time", f"dB to {truth}", "5 %", "over fewer steps", "object")
    return head + table(columns, rows) + (f"\nNot run:\n\n{tail}" if tail else "")


def ordered(methods: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """By what they save, the dearest first; a fewer-steps row right under those that it rivals.

    What explains and saves nothing comes last.
    """
    saved = {m["label"]: m["macs_speedup"] or float("inf") for m in methods}

    def place(method: Mapping[str, Any]) -> tuple[bool, float, bool]:
        label = method["label"]
        rival = label if label.startswith("fewer_steps") else method["rival"]
        return (method["part"] == "figure", saved.get(rival, saved[label]), rival == label)

    return sorted(methods, key=place)


def _row(method: Mapping[str, Any], measure: str) -> list[str]:
    measures = method["measures"]
    near, right = measures.get(measure), measures.get("object")
    gain = (method["over_rival"] or {}).get(measure)
    return [
        f"`{method['label']}`",
        _times(method["macs_speedup"]),
        _times(method["seconds_speedup"]),
        _between(near),
        _decibel(near and near["p5"]),
        verdict(gain),
        "-" if right is None or right["mean"] is None else f"{right['mean']:.0%}",
    ]


def verdict(gain: Mapping[str, Any] | None) -> str:
    """A paired difference in dB: bold where its interval lies above zero, said where it holds zero.

    >>> verdict({"mean": 1.25, "low": 0.5, "high": 2.0})
    '**+1.2** (+0.5 to +2.0)'
    >>> verdict({"mean": 0.25, "low": -0.5, "high": 1.0})
    'no difference: +0.2 (-0.5 to +1.0)'
    """
    if gain is None or gain["mean"] is None:
        return "-"
    mean, low, high = gain["mean"], gain["low"], gain["high"]
    said = f"({low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"**{mean:+.1f}** {said}"
    return f"{mean:+.1f} {said}" if high < 0 else f"no difference: {mean:+.1f} {said}"


def _between(found: Mapping[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return f"{found['mean']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _decibel(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def read() -> dict[str, Any]:
    """docs/study.json."""
    found: dict[str, Any] = json.loads(FACTS.read_text())
    return found


def condensed(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows, out of a study's summary.json."""
    return {
        **{key: summary[key] for key in ("version", "complete", "hardware", "left_out")},
        "models": [
            {
                **{k: v for k, v in model.items() if k != "methods"},
                "methods": [_condensed(method) for method in model["methods"]],
            }
            for model in summary["models"]
        ],
    }


def _condensed(method: Mapping[str, Any]) -> dict[str, Any]:
    over, measures = method["over_rival"], method["measures"]
    return {
        **{key: method[key] for key in METHOD_KEYS},
        "seconds_speedup": method["seconds_speedup"],
        "measures": {key: measures[key] for key in SHOWN if key in measures},
        "rival": method["rival"],
        "over_rival": over and {key: over[key] for key in SHOWN if key in over},
    }


def draw(folder: Path, summary: Mapping[str, Any]) -> None:
    """The first prompts of every model under a few methods."""
    from PIL import Image

    from tgate_plugins.cli.grid import Column, Tile, draw_grid

    labels, tiles = [], []
    for model in summary["models"]:
        rows = [
            next((m for m in model["methods"] if m["label"].startswith(d)), None) for d in DRAWN
        ]
        for number, prompt in enumerate(model["prompts"][:2]):
            key = f"{number}-{model['seeds'][0]}"
            files = [row["images"].get(key) if row else None for row in rows]
            labels.append(f"{model['name']}: {prompt}")
            line: list[Tile] = [Image.open(folder / f) if f else "does not run" for f in files]
            tiles.append(line)
    draw_grid([Column(name) for name in DRAWN], labels, tiles).save(PICTURE, optimize=True)


def main(words: Sequence[str]) -> None:
    """Take over the study in the folder that is named."""
    (folder,) = map(Path, words)
    summary = json.loads((folder / "summary.json").read_text())
    FACTS.write_text(json.dumps(condensed(summary), indent=1) + "\n")
    draw(folder, summary)


if __name__ == "__main__":
    main(sys.argv[1:])
