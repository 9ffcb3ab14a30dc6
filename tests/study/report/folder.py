"""A made-up study folder, as the runner writes one: seeded, with small pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from PIL import Image

PROMPTS = (
    "a large rocket on a gray background",
    "a small apple on a black background",
    "an apple left of a banana on a gray background",
    "a large owl on a pink background",
    "a small <b>cat</b> on a <script>alert('seen')</script> background",
)
#: Label, part, source, share of the ungated cost, dB over the rival, gates closed.
METHODS: tuple[tuple[str, str, str, float, float, bool], ...] = (
    ("ours policy=interleave", "ours", "", 0.66, 1.4, True),
    ("ours policy=interleave every=3 estimator=forecast", "ours", "", 0.55, 0.9, True),
    ("ours policy=error_controlled tolerance=0.03", "ours", "", 0.62, 0.6, True),
    ("ours policy=fixed_step gate_step=10", "ours", "", 0.70, -5.0, True),
    ("tgate_exact gate_step=10", "ours", "arXiv 2404.02747", 0.68, -7.0, True),
    ("tgate gate_step=10", "related", "tgate 1.0.0", 0.68, -7.1, False),
    ("deepcache interval=2", "related", "DeepCache 0.1.1", 0.64, -1.1, False),
    ("deepcache interval=3", "related", "DeepCache 0.1.1", 0.52, -2.4, False),
    ("adaptive_guidance threshold=0.99", "related", "arXiv 2312.12487", 0.74, 0.1, True),
    ("guidance_interval from=0.2 to=0.8", "related", "arXiv 2404.07724", 0.8, -0.2, True),
    ("pab", "related", "diffusers 0.42", 0.85, -0.1, False),
    ("fastercache", "related", "diffusers 0.42", 0.58, -3.0, False),
    ("first_block_cache threshold=0.1", "related", "diffusers 0.42", 0.77, 0.2, False),
    ("taylorseer order=1", "related", "diffusers 0.42", 0.6, -0.9, False),
    ("tomesd ratio=0.5", "related", "tomesd 0.1.3", 0.9, -6.0, False),
    ("text_window until=10", "figure", "arXiv 2404.02747", 1.0, -4.0, False),
    ("text_window after=10", "figure", "arXiv 2404.02747", 1.0, -9.0, False),
)
FEWER = (22, 20, 18, 16, 14, 12, 9)
OUT = (
    ("magcache", "related", "refused", "magcache is made for transformers, and this is a UNet."),
    ("cache_dit", "related", "failed", "cache-dit: expected 2 outputs, got 1 (block 3)."),
)
STEPS, CONVERGED = 25, 200


def write(
    folder: Path,
    models: Sequence[str] = ("emoji-sd",),
    prompts: Sequence[str] = PROMPTS,
    side: int = 32,
    seeds: Sequence[int] = (0,),
) -> dict[str, Any]:
    """Write a whole study; its summary is given back, to be spoilt and written again."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    found = [_model(folder, name, tuple(prompts), side, tuple(seeds), rng, rows) for name in models]
    summary = {
        "version": "0.1.0",
        "complete": True,
        "hardware": {
            "processor": "AMD EPYC 7B13",
            "threads": 1,
            "device": "cpu",
            "python": "3.11.2",
            "torch": "2.13.0",
            "diffusers": "0.42.1",
            "transformers": "5.24.0",
            "platform": "Linux-6.1-x86_64",
        },
        "spec": {"models": list(models), "steps": STEPS, "seeds": list(seeds)},
        "left_out": {
            "clip_score": "CLIP's weights are not here: put them into the cache to have it.",
            "lpips": "its weights are not here.",
        },
        "models": found,
    }
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), folder / "pictures.parquet")
    (folder / "curves.json").write_text(json.dumps({name: curves(rng) for name in models}))
    save(folder, summary)
    return summary


def save(folder: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` alone."""
    (folder / "summary.json").write_text(json.dumps(summary))


def spread(values: np.ndarray) -> dict[str, Any]:
    """A summary with a rough interval."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return {
        "mean": mean,
        "low": mean - half,
        "high": mean + half,
        "p5": float(np.percentile(values, 5)),
        "worst": float(values.min()),
        "n": len(values),
    }


def curves(rng: np.random.Generator) -> dict[str, Any]:
    """Changes that die away, faster in some sites than in others."""
    sites = [f"down_blocks.{i}.attentions.{j}" for i in (0, 1) for j in (0, 1)]
    sites += ["mid_block.attentions.0"] + [
        f"up_blocks.{i}.attentions.{j}" for i in (0, 1) for j in (0, 1)
    ]
    tail = ".transformer_blocks.0.attn2"
    steps = np.arange(STEPS)
    made = {
        f"{site}{tail}": [None, *(0.6 * np.exp(-steps / rng.uniform(2.5, 7)) + 0.004)[1:].tolist()]
        for site in sites
    }
    return {"steps": STEPS, "sites": made}


def _model(
    folder: Path,
    name: str,
    prompts: tuple[str, ...],
    side: int,
    seeds: tuple[int, ...],
    rng: np.random.Generator,
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    scenes = {(p, s): _scene(side, rng) for p in range(len(prompts)) for s in seeds}
    level = {label: 18 + 14 * cost for label, _, cost, _ in _runs()}
    methods = []
    for label, part, cost, closes in _runs():
        fewer = [f for f in FEWER if f / STEPS <= cost + 1e-9]
        rival = None if part == "baseline" else f"steps {max(fewer)}"
        over = next((m[4] for m in METHODS if m[0] == label), 0.0)
        psnr = level.get(rival or "", level[label]) + over + rng.normal(0, 1, len(scenes))
        exact = {"ungated": "ungated.psnr", "converged": "converged.psnr"}.get(label)
        measures = {
            "converged.psnr": psnr,
            "ungated.psnr": psnr - 1.5,
            "converged.ssim": 1 - 4 / psnr,
            "ungated.ssim": 1 - 4.2 / psnr,
            "ungated.brightness": rng.normal(0.01 - 0.03 * (over < -3), 0.01, len(scenes)),
            "ungated.chroma": rng.normal(-0.02, 0.02, len(scenes)),
            "ungated.sharpness": rng.normal(-0.05, 0.03, len(scenes)),
            "object": (rng.random(len(scenes)) < 0.9).astype(float),
            "background": np.ones(len(scenes)),
        }
        if exact:
            measures[exact] = np.full(len(scenes), np.inf)
        summed = {
            k: {
                "mean": None,
                "low": None,
                "high": None,
                "p5": None,
                "worst": None,
                "n": len(v),
                "identical": len(v),
            }
            if np.isinf(v).all()
            else spread(v)
            for k, v in measures.items()
        }
        gain = over + rng.normal(0, 0.5, len(scenes))
        images = {}
        for i, ((p, s), scene) in enumerate(scenes.items()):
            file = f"images/{name}/{_slug(label)}/{p}-{s}.png"
            noise = (
                0
                if label == "ungated"
                else 40 * max(0.1, 1 - cost)
                if part == "baseline"
                else 12 - 2 * over
            )
            _draw(folder / file, scene, abs(float(noise)), rng)
            images[f"{p}-{s}"] = file
            values = {k: float(v[i]) for k, v in measures.items()}
            rows.append(_row(name, label, p, prompts[p], s, file, cost, values))
        methods.append(
            {
                "label": label,
                "name": label.split(" ")[0],
                "part": part,
                "source": next((m[2] for m in METHODS if m[0] == label), ""),
                "status": "ran",
                "why": None,
                "steps": _steps(label),
                "guidance_scale": 4.0,
                "pictures": len(scenes),
                "failed": 0,
                "macs": 3.2e9 * cost,
                "macs_speedup": 1 / cost,
                "seconds": 0.52 * cost + 0.03,
                "seconds_speedup": 0.55 / (0.52 * cost + 0.03),
                "rows": 50 * cost,
                "rival": rival,
                "measures": summed,
                "over_rival": {"converged.psnr": spread(gain), "ungated.psnr": spread(gain - 0.3)}
                if rival
                else None,
                "fid": {
                    "classifier": None,
                    "images": len(scenes),
                    "why": "5 pictures; it needs 2,000.",
                },
                "closed": _closed(label, closes),
                "events": ["step 0: layout read from the pipeline"] if closes else [],
                "images": images,
            }
        )
    return {
        "name": name,
        "pipeline": "StableDiffusionPipeline",
        "scheduler": "DDIMScheduler",
        "steps": STEPS,
        "guidance_scale": 4.0,
        "converged_steps": CONVERGED,
        "prompts": list(prompts),
        "seeds": list(seeds),
        "methods": methods + [out(*spec) for spec in OUT],
    }


def out(label: str, part: str, status: str, why: str) -> dict[str, Any]:
    """A method that made no picture."""
    return {
        "label": label,
        "name": label,
        "part": part,
        "source": "",
        "status": status,
        "why": why,
        "pictures": 0,
        "failed": 0,
        "macs": None,
        "macs_speedup": None,
        "seconds": None,
        "seconds_speedup": None,
        "rows": None,
        "rival": None,
        "steps": None,
        "guidance_scale": None,
        "measures": {},
        "over_rival": None,
        "fid": {"classifier": None, "images": 0, "why": None},
        "closed": {},
        "events": [],
        "images": {},
    }


def _runs() -> Iterator[tuple[str, str, float, bool]]:
    yield "ungated", "baseline", 1.0, False
    yield "converged", "baseline", CONVERGED / STEPS, False
    yield from ((f"steps {n}", "baseline", n / STEPS, False) for n in FEWER)
    yield from ((label, part, cost, closes) for label, part, _, cost, _, closes in METHODS)


def _steps(label: str) -> int:
    if label.startswith("steps "):
        return int(label.split()[1])
    return CONVERGED if label == "converged" else STEPS


def _closed(label: str, closes: bool) -> dict[str, list[int]]:
    if not closes:
        return {}
    if "interleave" in label:
        return {"guidance": list(range(4, STEPS, 2)), "cross": list(range(10, STEPS))}
    return {"guidance": list(range(10, STEPS)), "cross": list(range(10, STEPS))}


def _scene(side: int, rng: np.random.Generator) -> np.ndarray:
    ground, thing = rng.integers(90, 230, 3), rng.integers(20, 255, 3)
    y, x = np.mgrid[:side, :side] / side
    disc = (x - rng.uniform(0.35, 0.65)) ** 2 + (y - 0.5) ** 2 < rng.uniform(0.04, 0.1)
    return np.where(disc[..., None], thing * (1 - 0.4 * y[..., None]), ground).astype(float)


def _draw(path: Path, scene: np.ndarray, noise: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = scene + rng.normal(0, noise, scene.shape) if noise else scene
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


def _row(
    model: str,
    label: str,
    number: int,
    prompt: str,
    seed: int,
    file: str,
    cost: float,
    values: dict[str, float],
) -> dict[str, Any]:
    return {
        "model": model,
        "method": label,
        "prompt_number": number,
        "prompt": prompt,
        "seed": seed,
        "steps": _steps(label),
        "guidance_scale": 4.0,
        "file": file,
        "seconds": 0.52 * cost,
        "beside": 0.55,
        "rows": 50.0 * cost,
        "macs": 3.2e9 * cost,
        "error": None,
        **values,
    }


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label)
