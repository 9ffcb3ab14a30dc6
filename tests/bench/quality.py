"""What gating costs in quality, on emoji-sd: `make quality` writes docs/quality.md and .json.

Two questions. First, at equal cost: is a gated run closer to the converged image than the plain run
with fewer steps? Cost is counted in backbone rows; a method takes the most steps that fit the
budget. Second, at a given gate: which estimator keeps the ungated image best?

The same 64 prompts and latents serve every method, so all comparisons are paired.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.metrics import structural_similarity
from tqdm import tqdm

import tgate_sampling as tg
from tgate_sampling.decision import as_decision
from tgate_sampling.settle import settle_all

ROOT = Path(__file__).parents[2]
BUDGETS = (12, 20, 36)
GUIDANCE = (4.0, 7.5)
SAMPLERS = ("ddim", "dpmpp_2m")
TRUTH_STEPS = 200
GATE, STEPS = 10, 25


@dataclass(frozen=True)
class Method:
    """A row of a table.

    Args:
        name: as printed.
        policy: builds the policy for a run of so many steps.
        options: gate options (estimator, merge, refresh, compose).
        spends: builds the policy for a budget of rows instead, run with 5/8 as many steps.
        watches: it decides by what it measures: run one image at a time, as a user would, with
            the most steps whose measured cost fits.
    """

    name: str
    policy: Callable[[int], tg.Policy]
    options: dict[str, Any] = field(default_factory=dict)
    spends: Callable[[int], tg.Policy] | None = None
    watches: bool = False

    def at(self, budget: int) -> tuple[tg.Policy, int]:
        """The policy and the most steps that fit a budget of rows per image."""
        if self.spends is not None:
            return self.spends(budget), 5 * budget // 8
        if self.watches:  # where to start looking
            return self.policy(budget), 3 * budget // 4
        steps = max(n for n in range(1, budget + 1) if rows(self, n) <= budget)
        return self.policy(steps), steps


def share(fraction: float, **options: Any) -> Callable[[int], tg.Policy]:
    """`fixed_step` at a share of the run."""
    return lambda steps: tg.get_policy("fixed_step", fraction=fraction, **options)


def same(name: str, **options: Any) -> Callable[[int], tg.Policy]:
    """One policy with one setting, whatever the number of steps."""
    return lambda steps: tg.get_policy(name, **options)


def reference(steps: int) -> tg.Policy:
    """T-GATE with its gate at two fifths of the run, as its own 10 of 25."""
    return tg.get_policy("tgate", gate_step=max(1, math.ceil(0.4 * steps)))


GUIDE = ("guidance",)
FEWER = Method("fewer steps, ungated", same("never"))
#: Every method below must beat the first row.
AT_EQUAL_COST = (
    FEWER,
    Method("`tgate`, gate at 0.4", reference),
    Method("gate at 0.4, `none`", share(0.4, gates=GUIDE), {"estimator": "none"}),
    Method("gate at 0.4, `hold`", share(0.4, gates=GUIDE), {"estimator": "hold"}),
    Method("gate at 0.4, `decay`", share(0.4, gates=GUIDE), {"estimator": "decay"}),
    Method("gate at 0.4, `linear`", share(0.4, gates=GUIDE), {"estimator": "linear"}),
    Method("`interleave`, `hold`", same("interleave"), {"estimator": "hold"}),
    Method("`interleave`, `linear` (its own)", same("interleave")),
    Method(
        "`interleave`, `linear`, cross gate too",
        same("interleave", gates=("guidance", "cross")),
    ),
    Method(
        "`budgeted`, `linear`",
        same("never"),
        spends=lambda budget: tg.get_policy("budgeted", rows=budget),
        watches=True,
    ),
    Method("`error_controlled`, `linear` (the default)", same("error_controlled"), watches=True),
)
AT_ONE_GATE = (
    *(
        Method(
            f"`{estimator}`, cross gate {'closed' if 'cross' in gates else 'open'}",
            same("fixed_step", gate_step=GATE, gates=gates),
            {"estimator": estimator},
        )
        for gates in (GUIDE, ("guidance", "cross"))
        for estimator in ("none", "hold", "decay", "linear", "forecast")
    ),
    # What no estimator can mend, and what looking again is worth; both take more rows.
    Method(
        "guidance in full, cross gate closed", same("fixed_step", gate_step=GATE, gates=("cross",))
    ),
    Method(
        "`forecast`, `refresh=5`, cross gate open",
        same("fixed_step", gate_step=GATE, gates=GUIDE),
        {"estimator": "forecast", "refresh": 5},
    ),
)


@dataclass
class Bench:
    """The model, and the inputs that every method shares.

    Args:
        pipe: a StableDiffusionPipeline.
        prompts: (P) texts; each is run with every seed.
        latents: (P * S, C, H, W), seeds inner.
        batch: images a call.
    """

    pipe: Any
    prompts: Sequence[str]
    latents: torch.Tensor
    batch: int

    def images(
        self,
        sampler: str,
        steps: int,
        scale: float,
        policy: tg.Policy,
        *,
        batch: int | None = None,
        only: int | None = None,
        **options: Any,
    ) -> tuple[np.ndarray, float]:
        """All images of one method, (N, H, W, 3) in 0 to 1, and backbone rows per image.

        Args:
            sampler: of `SAMPLERS`.
            steps: of the run.
            scale: guidance scale.
            policy: what gates it.
            batch: images a call, where it shall not be the bench's.
            only: draw that many images.
            **options: of the gating.
        """
        self.pipe.scheduler = scheduler(sampler, self.pipe.scheduler.config)
        with tg.gate(self.pipe, policy, **options) as gating:
            parts = self._batches(steps, scale, batch or self.batch, only or len(self.latents))
            images = np.concatenate(list(parts))
        return images, sum(run.rows[0] for run in gating.runs) / len(images)

    def within(
        self, sampler: str, budget: int, scale: float, method: Method
    ) -> tuple[np.ndarray, float, int]:
        """Images, rows per image and steps of a method's run with the most steps that fit."""
        policy, steps = method.at(budget)
        if not method.watches:
            images, spent = self.images(sampler, steps, scale, policy, **method.options)
            return images, spent, steps
        pilot = {"batch": 1, "only": 8}
        while (
            method.spends is None
            and self.images(sampler, steps, scale, policy, **pilot)[1] > budget
        ):
            steps -= 1
        while True:
            images, spent = self.images(sampler, steps, scale, policy, batch=1, **method.options)
            if spent <= budget:
                return images, spent, steps
            steps -= 1

    def _batches(self, steps: int, scale: float, batch: int, stop: int) -> Iterator[np.ndarray]:
        seeds = len(self.latents) // len(self.prompts)
        texts = [p for p in self.prompts for _ in range(seeds)]
        for start in range(0, stop, batch):
            part = slice(start, min(start + batch, stop))
            yield self.pipe(
                texts[part],
                latents=self.latents[part].clone(),
                num_inference_steps=steps,
                guidance_scale=scale,
                output_type="np",
            ).images


def scheduler(name: str, config: Any) -> Any:
    """DDIM, or DPM-Solver++ of order 2, on the model's own noise schedule."""
    import diffusers

    if name == "ddim":
        return diffusers.DDIMScheduler.from_config(config)
    return diffusers.DPMSolverMultistepScheduler.from_config(config)


def rows(method: Method, steps: int) -> int:
    """Backbone rows per image of a planned method with guidance."""
    policy = method.policy(steps)
    plan = policy.plan(steps)
    assert plan is not None, f"{method.name} has no plan to count"
    merge, refresh = method.options.get("merge", policy.merge), method.options.get("refresh")
    settled = settle_all([as_decision(a, "bench") for a in plan], merge=merge, refresh=refresh)
    return sum(1 if "guidance" in d.closed else 2 for d in settled)


def psnr(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each image in dB; equal images count as 100."""
    error = ((images - truth) ** 2).reshape(len(images), -1).mean(1)
    return -10 * np.log10(np.maximum(error, 1e-10))


def ssim(images: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each image."""
    pairs = zip(images, truth, strict=True)
    return np.array([structural_similarity(a, b, channel_axis=2, data_range=1.0) for a, b in pairs])


def shifts(images: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean change in brightness, chroma and sharpness, relative to the ungated images."""

    def measures(x: np.ndarray) -> np.ndarray:
        grey = x.mean(3)
        chroma = np.sqrt(((x - grey[..., None]) ** 2).sum(3))
        slope = np.abs(np.diff(grey, axis=1)).mean() + np.abs(np.diff(grey, axis=2)).mean()
        return np.array([grey.mean(), chroma.mean(), slope])

    change = measures(images) / measures(truth) - 1
    return dict(zip(("brightness", "chroma", "sharpness"), change.tolist(), strict=True))


def interval(values: np.ndarray, seed: int = 0, resamples: int = 2000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the mean."""
    generator = np.random.default_rng(seed)
    means = generator.choice(values, (resamples, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def summary(values: np.ndarray) -> dict[str, float]:
    """Mean with interval, and 5th percentile."""
    low, high = interval(values)
    mean, worst = float(values.mean()), float(np.percentile(values, 5))
    return {"mean": mean, "low": low, "high": high, "p5": worst}


def at_equal_cost(
    bench: Bench, progress: Any, methods: Sequence[Method] = AT_EQUAL_COST
) -> list[dict[str, Any]]:
    """Methods at every budget, against the converged image."""
    found = []
    for scale in GUIDANCE:
        truth, _ = bench.images("ddim", TRUTH_STEPS, scale, FEWER.policy(TRUTH_STEPS))
        for sampler in SAMPLERS:
            for budget in BUDGETS:
                for method in methods:
                    images, spent, steps = bench.within(sampler, budget, scale, method)
                    assert spent <= budget, f"{method.name} spent {spent} of {budget} rows"
                    found.append(
                        {
                            "sampler": sampler,
                            "guidance": scale,
                            "budget": budget,
                            "method": method.name,
                            "steps": steps,
                            "rows": spent,
                            "psnr": summary(psnr(images, truth)),
                        }
                    )
                    progress.update()
    return found


def at_one_gate(bench: Bench, progress: Any) -> list[dict[str, Any]]:
    """Every estimator at gate 10 of 25, against the ungated image."""
    found = []
    for scale in GUIDANCE:
        truth, _ = bench.images("ddim", STEPS, scale, FEWER.policy(STEPS))
        for method in AT_ONE_GATE:
            policy = method.policy(STEPS)
            images, spent = bench.images("ddim", STEPS, scale, policy, **method.options)
            found.append(
                {
                    "guidance": scale,
                    "method": method.name,
                    "rows": spent,
                    "psnr": summary(psnr(images, truth)),
                    "ssim": summary(ssim(images, truth)),
                    "shift": shifts(images, truth),
                }
            )
            progress.update()
    return found


def cost_tables(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table for each sampler and guidance scale, bold where a row beats the first."""
    parts = []
    for sampler in SAMPLERS:
        for scale in GUIDANCE:
            head = "".join(f" {b} rows |" for b in BUDGETS)
            parts.append(f"\n### {sampler}, guidance {scale:g}\n\n| method |{head}")
            parts.append("|---|" + "---|" * len(BUDGETS))
            for method in AT_EQUAL_COST:
                cells = [
                    _cell(
                        _find(results, sampler, scale, b, method),
                        _find(results, sampler, scale, b, FEWER),
                    )
                    for b in BUDGETS
                ]
                parts.append(f"| {method.name} | {' | '.join(cells)} |")
    return "\n".join(parts)


def _find(
    results: Sequence[dict[str, Any]], sampler: str, scale: float, budget: int, method: Method
) -> dict[str, Any]:
    key = (sampler, scale, budget, method.name)
    names = ("sampler", "guidance", "budget", "method")
    return next(r for r in results if tuple(r[n] for n in names) == key)


def _cell(result: dict[str, Any], plain: dict[str, Any]) -> str:
    """`mean (5th percentile), steps`; bold where a number beats fewer steps."""

    def mark(name: str) -> str:
        value = f"{result['psnr'][name]:.1f}"
        # Equal runs differ in the last bits between batch sizes: that is no win.
        wins = result["psnr"][name] > plain["psnr"][name] + 0.05
        return f"**{value}**" if wins else value

    return f"{mark('mean')} ({mark('p5')}), {result['steps']} steps"


def gate_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: estimators at one gate."""
    parts = [
        "| guidance | method | PSNR (95 % interval), 5th percentile | SSIM | brightness | chroma | "
        "sharpness |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        p, s, shift = r["psnr"], r["ssim"], r["shift"]
        parts.append(
            f"| {r['guidance']:g} | {r['method']} | {p['mean']:.1f} ({p['low']:.1f} to "
            f"{p['high']:.1f}), {p['p5']:.1f} | {s['mean']:.3f} ({s['low']:.3f} to {s['high']:.3f})"
            f" | {shift['brightness']:+.1%} | {shift['chroma']:+.1%} | {shift['sharpness']:+.1%} |"
        )
    return "\n".join(parts)


PAGE = """# Quality, measured

Made by `make quality` on {machine}; {images} images a cell ({prompts} fixed prompts x {seeds}
seeds of `emoji-sd`). Numbers are PSNR in dB. This is one small model of small pictures: it shows
which ideas hold up at all, not what your model will do. Run `tgate-sampling compare` on yours.

## At equal cost: the row every method must beat

Against the converged image (DDIM, {truth} steps). The budget is backbone rows per image; a method
takes the most steps that fit, and never more rows than the budget. Each cell is the mean, the 5th
percentile in brackets, and the steps; bold is better than fewer steps.
{cost}

Where a cell is not bold, a method is no better than the plainest thing there is, or loses to it.

- `interleave`, one policy with one setting, beats fewer steps in all twelve cells, in the mean
  and in the 5th percentile; so it does with the cross gate closed between looks. It guides the
  first third in full, spreads what it leaves out evenly to the last step, and regresses it.
- One hard gate loses nearly everywhere, by up to 18 dB, with any estimator: guidance moves until
  late in the run. It wins only where the plain run itself is far from converged (guidance 7.5,
  few rows), where anything that damps guidance helps. T-GATE's own schedule is the `tgate` row.
- `error_controlled`, the default, is `interleave` with a check. The check costs it the lead where
  steps are few: there it looks so often that a step less must do, and at 12 rows under DDIM it
  ends up to 1 dB behind in the mean (with 10 of 12 rows). Elsewhere it wins.
- `budgeted` is far ahead under DPM-Solver++ and loses under DDIM at 36 rows: it looks less early
  on.

## At one gate: which estimator keeps the ungated image

DDIM, {steps} steps, gate at {gate}, against the ungated image of the same seed; equal rows in all
lines but the last two of each guidance scale. `none` is guidance off, as in T-GATE. Shifts are
relative to the ungated images: the complaints of T-GATE's users (lost detail, darker colours).

Keeping guidance alive is worth 3.4 dB at guidance 4 and 2.6 dB at 7.5 (`forecast`). With the
cross gate closed as well it is worth 2.5 and 1.9 dB, and no estimator could give more: with
guidance computed in full and that gate closed the image is no nearer ("guidance in full"). With
it open, what is missing is looks: guidance of fifteen steps is guessed from one at step {last}.
Three looks more (`refresh=5`, 38 rows for 35) are worth another 12 dB at guidance 4 and 9 dB at
7.5.

{gates}
"""


def renewed(before: Sequence[dict[str, Any]], again: Sequence[dict[str, Any]]) -> list[Any]:
    """What was measured before, with what was measured again in its place.

    What was measured under a name that no method has any more is dropped.
    """
    keys = ("sampler", "guidance", "budget", "method")
    found = {tuple(r[k] for k in keys): r for r in (*before, *again)}
    names = {method.name for method in AT_EQUAL_COST}
    return [r for key, r in found.items() if key[-1] in names]


def page(results: dict[str, Any]) -> str:
    """docs/quality.md."""
    return PAGE.format(
        truth=TRUTH_STEPS,
        steps=STEPS,
        last=GATE - 1,
        gate=GATE,
        cost=cost_tables(results["at_equal_cost"]),
        gates=gate_table(results["at_one_gate"]),
        **{k: results[k] for k in ("machine", "images", "prompts", "seeds")},
    )


def machine() -> str:
    """What the numbers were made on; they are counts and errors, not times."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread, "
        f"torch {torch.__version__}, float32"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both studies and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="emoji-sd", help="a model of the zoo")
    parser.add_argument("--prompts", type=int, default=64, help="how many of the fixed prompts")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--page", action="store_true", help="rewrite the page from quality.json")
    parser.add_argument(
        "--only",
        metavar="WORD",
        help="measure the methods at equal cost that have it in their name",
    )
    options = parser.parse_args(arguments)
    if options.page:
        results = json.loads((options.out / "quality.json").read_text())
        (options.out / "quality.md").write_text(page(results))
        return

    from tgate_zoo.loader import load
    from tgate_zoo.scenes import PROMPTS

    pipe = load(options.model)
    prompts = PROMPTS[: options.prompts]
    unet = pipe.unet.config
    shape = (len(prompts) * options.seeds, unet.in_channels, unet.sample_size, unet.sample_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(20261123))
    bench = Bench(pipe, prompts, latents, options.batch)
    if options.only is not None:
        methods = [method for method in AT_EQUAL_COST if options.only in method.name]
        results = json.loads((options.out / "quality.json").read_text())
        if (results["prompts"], results["seeds"]) != (len(prompts), options.seeds):
            parser.error("--only goes with the prompts and seeds of the quality.json that is there")
        cells = len(GUIDANCE) * len(SAMPLERS) * len(BUDGETS) * len(methods)
        with tqdm(total=cells, unit="cell") as progress:
            again = at_equal_cost(bench, progress, methods)
        results["at_equal_cost"] = renewed(results["at_equal_cost"], again)
        write(results, options.out)
        return
    cells = len(GUIDANCE) * (len(SAMPLERS) * len(BUDGETS) * len(AT_EQUAL_COST) + len(AT_ONE_GATE))
    with tqdm(total=cells, unit="cell") as progress:
        results = {
            "machine": machine(),
            "model": options.model,
            "images": len(latents),
            "prompts": len(prompts),
            "seeds": options.seeds,
            "at_equal_cost": at_equal_cost(bench, progress),
            "at_one_gate": at_one_gate(bench, progress),
        }
    write(results, options.out)


def write(results: dict[str, Any], out: Path) -> None:
    """The numbers, and the page made of them."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "quality.md").write_text(page(results))


if __name__ == "__main__":
    main()
