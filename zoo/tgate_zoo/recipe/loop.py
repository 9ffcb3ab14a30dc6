"""The training loop of every stage: seeded, resumable, with a running average of the weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tgate_zoo.recipe.clock import Budget, warmup_cosine
from tgate_zoo.recipe.ema import Average
from tgate_zoo.recipe.files import load_checkpoint, save_checkpoint
from tgate_zoo.untyped import progress_bar

SAVE_EVERY_SECONDS = 120.0
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Step:
    """What one stage trains, and how.

    `loss` draws a batch with the generator it is given; everything random in it must come from
    that generator or from torch's global one, which are both part of the checkpoint.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Callable[[np.random.Generator], Tensor]
    peak_rate: float
    warmup: int
    decay: float


def run(
    stage: Step,
    checkpoint: Path,
    budget: Budget,
    *,
    seed: int,
    resume: bool,
    label: str,
    stop_at: int | None = None,
) -> Average:
    """Train until the budget is used, saving on the way, and return the averaged weights.

    With `resume` a checkpoint that exists is continued, bit for bit as if never stopped when the
    budget is given in steps. `stop_at` ends early, as an interruption would.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    average = Average(stage.module, stage.decay)
    step = 0
    state = load_checkpoint(checkpoint) if resume else None
    if state is not None:
        _check_seed(state, seed, checkpoint)
        step = _restore(state, stage, average, rng, budget)
    stage.module.train()
    smooth, saved = None, time.monotonic()
    with progress_bar(budget.steps, step, label) as bar:
        while (progress := budget.progress(step)) < 1 and step != stop_at:
            rate = stage.peak_rate * warmup_cosine(step, progress, stage.warmup)
            value = _advance(stage, rate, rng)
            average.update(stage.module)
            step += 1
            smooth = value if smooth is None else 0.99 * smooth + 0.01 * value
            bar.set_postfix(
                done=f"{progress:.0%}", loss=f"{smooth:.4f}", rate=f"{rate:.1e}", refresh=False
            )
            bar.update()
            if time.monotonic() - saved > SAVE_EVERY_SECONDS:
                save_checkpoint(checkpoint, _snapshot(stage, average, rng, budget, step, seed))
                saved = time.monotonic()
    save_checkpoint(checkpoint, _snapshot(stage, average, rng, budget, step, seed))
    return average


def _advance(stage: Step, rate: float, rng: np.random.Generator) -> float:
    for group in stage.optimizer.param_groups:
        group["lr"] = rate
    loss = stage.loss(rng)
    stage.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    nn.utils.clip_grad_norm_(stage.module.parameters(), CLIP_NORM)
    stage.optimizer.step()
    return float(loss.detach())


def _snapshot(
    stage: Step,
    average: Average,
    rng: np.random.Generator,
    budget: Budget,
    step: int,
    seed: int,
) -> dict[str, Any]:
    return {
        "seed": seed,
        "module": stage.module.state_dict(),
        "optimizer": stage.optimizer.state_dict(),
        "average": average.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "numpy_rng": rng.bit_generator.state,
        "step": step,
        "seconds": budget.seconds(),
    }


def _check_seed(state: dict[str, Any], seed: int, checkpoint: Path) -> None:
    begun = state.get("seed", seed)
    if begun != seed:
        raise ValueError(
            f"{checkpoint} was begun with seed {begun} and seed {seed} is asked for; give "
            f"--seed {begun} to go on, or --fresh to start anew."
        )


def _restore(
    state: dict[str, Any],
    stage: Step,
    average: Average,
    rng: np.random.Generator,
    budget: Budget,
) -> int:
    stage.module.load_state_dict(state["module"])
    stage.optimizer.load_state_dict(state["optimizer"])
    average.load_state_dict(state["average"])
    torch.set_rng_state(state["torch_rng"])
    rng.bit_generator.state = state["numpy_rng"]
    budget.spent += float(state["seconds"])
    return int(state["step"])
