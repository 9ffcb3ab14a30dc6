"""Gated runs of the tiny pipelines, and what is to be expected of each: rows, gates, events."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.report import Report

pipelines = load_helper("backbones/pipelines.py")
oracles = load_helper("backbones/oracles.py")
kit = load_helper("core/kit.py")

STEPS, GATE = 5, 2

#: Two batch sizes of one model agree to this much at the end of a run, worst in Kandinsky 3 (5e-6).
CLOSE = 1e-4

#: What an event is of, and a part of its text; every other run has no event at all.
EVENTS: dict[str, tuple[str, str]] = {
    "lcm": ("guidance", "nothing to close: this run has one branch"),
    "lcm-xl": ("guidance", "nothing to close: this run has one branch"),
    "flux": ("guidance", "nothing to close: this run has one branch"),
    "hunyuan-video": ("guidance", "nothing to close: this run has one branch"),
    "pag": ("guidance", "perturbed-attention guidance"),
    "ledits": ("aside", "every attention map"),
    "wan-2.2": ("remark", "transformer_2 makes a part of the steps and runs ungated"),
}

#: Text and picture share one attention: there is no cross-attention to close.
JOINT = frozenset(
    {
        "sd3",
        "sd3-skip-layer",
        "flux",
        "flux-true-cfg",
        "chroma",
        "aura-flow",
        "qwen-image",
        "cogview4",
        "lumina2",
        "z-image",
        "modular-z-image",
        "cogvideox",
        "hunyuan-video",
        "hunyuan-video-true-cfg",
        "mochi",
    }
)

#: Its context is one token, so that cross-attention gives the same in every step.
ONE_TOKEN = frozenset({"svd"})

#: Steps that the gated backbone takes part in, where a second expert takes the others.
OWN_STEPS = {"wan-2.2": 3}


def fresh(name: str) -> Any:
    """A pipeline of its own; skips where a package is missing."""
    row = pipelines.PIPELINES[name]
    if row.needs:
        pytest.importorskip(row.needs)
    pipe = row.build()
    for key, parameter in row.denoiser(pipe).named_parameters():
        # Lumina's cross-attention is multiplied by tanh(0) until it has been trained.
        if key.endswith(".gate") and not parameter.any():
            parameter.data.fill_(0.5)
    return pipe


#: One pipeline for all tests that gate it and leave it: nothing stays behind, which is tested.
made = functools.cache(fresh)


def closable(row: Any) -> frozenset[str]:
    """The gates that can close in a guided run of the pipeline."""
    kind = EVENTS[row.name][0] if row.name in EVENTS else ""
    if kind == "aside":
        return frozenset()
    shut = {"guidance": kind == "guidance", "cross": row.name in JOINT}
    return frozenset(gate for gate, is_shut in shut.items() if not is_shut)


def own_steps(row: Any, steps: Collection[int]) -> tuple[int, ...]:
    """Those of the steps that the gated backbone takes part in, in a run of `STEPS`."""
    return tuple(s for s in steps if s < OWN_STEPS.get(row.name, STEPS))


def rows_of(row: Any, steps: int, closed: Collection[int] = (), *, batch: int = 1) -> list[int]:
    """Rows of the forwards of a guided run, with guidance closed in some of its steps."""
    asked, counted = row.rows_a_step(batch), [batch] * row.prelude * steps
    for step in range(steps):
        if step not in closed:
            counted += asked
        elif row.layout == "separate":
            counted += [n for number, n in enumerate(asked) if number != 1]
        else:
            counted += [asked[0] // len(oracles.BRANCHES[row.layout]), *asked[1:]]
    return counted


def expected(
    row: Any, pipe: Any, closed: Collection[int], gates: Collection[str], **how: Any
) -> torch.Tensor:
    """The oracle's latents with these gates closed, as far as they can close."""
    able = closable(row) & set(gates)
    if how.get("guidance") is False:
        able -= {"guidance"}
    latents: torch.Tensor = oracles.expected(
        row,
        pipe,
        filling=closed if "guidance" in able else (),
        replaying=closed if "cross" in able else (),
        **how,
    )
    return latents


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Gated runs of one pipeline.

    Args:
        runs: the latents of each.
        forwards: rows of every forward of the first run.
        report: of the last run.
        outside: kinds of events outside any run.
    """

    runs: list[torch.Tensor]
    forwards: list[int]
    report: Report
    outside: list[str]

    @property
    def latents(self) -> torch.Tensor:
        """Of the first run."""
        return self.runs[0]


def run(
    row: Any, pipe: Any, how: dict[str, Any], *args: Any, times: int = 1, **options: Any
) -> Outcome:
    """Gate the pipeline, call it, and let it go."""
    with tg.gate(pipe, *args, **options) as gating:
        with oracles.forwards(row, pipe) as rows:
            runs = [row.call(pipe, **how)]
        runs += [row.call(pipe, **how) for _ in range(times - 1)]
    return Outcome(runs, rows, gating.report, [e.kind for e in gating.events])


#: What can be asked of the gate at `GATE`: gates and estimator.
SCENES: dict[str, dict[str, Any]] = {
    "none": {"gates": ("guidance",), "estimator": "none"},
    "hold": {"gates": ("guidance",), "estimator": "hold"},
    "cross": {"gates": ("cross",), "estimator": "hold"},
    "both": {"gates": ("guidance", "cross"), "estimator": "hold"},
}


@functools.cache
def outcome(name: str, scene: str) -> Outcome:
    """Two runs of one scene, once a session."""
    options = {"gate_step": GATE, **SCENES[scene]}
    row, how = pipelines.PIPELINES[name], {"steps": STEPS}
    return run(row, made(name), how, "fixed_step", times=2, **options)


@functools.cache
def bare(name: str) -> torch.Tensor:
    """The bare pipeline's latents."""
    latents: torch.Tensor = pipelines.PIPELINES[name].call(made(name), steps=STEPS)
    return latents


def check_events(report: Report, *wanted: tuple[str, str]) -> None:
    """These events and no others, each with its reason."""
    assert [event.kind for event in report.events] == [kind for kind, _ in wanted]
    for event, (_, part) in zip(report.events, wanted, strict=True):
        assert part in event.message
