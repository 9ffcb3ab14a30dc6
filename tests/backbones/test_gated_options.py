"""What users ask of single pipelines: strength, sizes, pictures in a row, Heun, two experts."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

GATE, CLOSE = gated.GATE, gated.CLOSE
BOTH = ("guidance", "cross")


def agree(
    row: Any, pipe: Any, total: int, *, evaluations: int = 1, **how: Any
) -> tuple[Any, list[int]]:
    """The gated latents are the oracle's; returns the report and the rows of all forwards.

    Args:
        row: of the table.
        pipe: bare.
        total: steps of the run.
        evaluations: backbone evaluations a step.
        how: settings of the call.
    """
    late = range(GATE * evaluations, total * evaluations)
    truth = gated.expected(row, pipe, late, BOTH, **how)
    run = gated.run(row, pipe, how, "fixed_step", gate_step=GATE)
    assert oracles.distance(run.latents, truth) <= (0 if row.layout == "separate" else CLOSE)
    assert run.report.total == total
    assert run.report.closed.get("guidance", ()) == tuple(range(GATE, total))
    assert run.report.events == ()
    assert run.report.complete
    return run.report, run.forwards


@pytest.mark.parametrize(
    ("name", "strength", "steps", "total"),
    [
        ("img2img", 0.1, 5, 1),
        ("img2img", 0.3, 5, 3),
        ("img2img", 1.0, 3, 6),
        ("sdxl-img2img", 0.6, 5, 6),
        ("inpaint", 0.5, 10, 5),
        ("inpaint-9", 0.5, 12, 6),
    ],
)
def test_a_picture_s_strength_shortens_the_run(
    name: str, strength: float, steps: int, total: int
) -> None:
    """Steps are counted from the run's own first one: the gate step needs no retuning."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    _, rows = agree(row, pipe, total, steps=steps, strength=strength)
    assert rows == gated.rows_of(row, total, range(GATE, total))


@pytest.mark.parametrize(
    ("name", "how", "total"),
    [
        ("sdxl", {"steps": 8, "denoising_end": 0.5}, 4),
        ("sdxl-img2img", {"steps": 4, "denoising_start": 0.5}, 4),
        ("sd", {"steps": 4, "guidance_rescale": 0.7}, 4),
        ("sd", {"steps": 4, "eta": 0.7}, 4),
        ("sd", {"steps": 4, "height": 128, "width": 64}, 4),
        ("pixart-sigma", {"steps": 4, "height": 128, "width": 64}, 4),
        ("sd", {"steps": 4, "num_images_per_prompt": 2}, 4),
        ("flux-true-cfg", {"steps": 4, "num_images_per_prompt": 2}, 4),
        ("wan", {"steps": 4, "num_videos_per_prompt": 2}, 4),
        ("flux-true-cfg", {"steps": 4, "sigmas": [1.0, 0.8, 0.5, 0.1]}, 4),
        ("sd3-skip-layer", {"steps": 6, "skip_layer_guidance_stop": 0.5}, 6),
        ("sd3-skip-layer", {"steps": 6, "skip_layer_guidance_start": 0.3}, 6),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_options_of_a_call(name: str, how: dict[str, Any], total: int) -> None:
    """Each of them leaves the gate where it was told to be."""
    agree(pipelines.PIPELINES[name], gated.made(name), total, **how)


@pytest.mark.parametrize("name", ["sd3", "wan"])
def test_two_evaluations_a_step(name: str) -> None:
    """Heun: a gate closes with its step, and rests on the last evaluation before it."""
    row, pipe = pipelines.PIPELINES[name], gated.fresh(name)
    pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    report, _ = agree(row, pipe, 4, evaluations=2, steps=4)
    assert [step.evaluations for step in report.steps] == [2, 2, 2, 1]


@pytest.mark.parametrize("name", ["pixart-sigma-300", "sd", "wan", "z-image"])
def test_several_pictures_in_a_row(name: str) -> None:
    """Users report the second picture spoilt by the first: here each is the oracle's."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    drawn = [{"generator": torch.Generator().manual_seed(seed), "steps": 4} for seed in (1, 2, 3)]
    with tg.gate(pipe, "fixed_step", gate_step=GATE) as gating:
        pictures = [row.call(pipe, **how) for how in drawn]
    for seed, picture in zip((1, 2, 3), pictures, strict=True):
        how = {"generator": torch.Generator().manual_seed(seed), "steps": 4}
        truth = gated.expected(row, pipe, range(GATE, 4), BOTH, **how)
        assert oracles.distance(picture, truth) <= CLOSE
    assert not torch.equal(pictures[0], pictures[1])
    assert [report.rows for report in gating.runs] == [(6, 8)] * 3


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("name", ["sd", "svd", "flux-true-cfg", "z-image", "modular-z-image"])
def test_runs_of_very_few_steps(name: str, steps: int) -> None:
    """Nothing closes before a complete step of the run, and the last step is the last."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    run = gated.run(row, pipe, {"steps": steps}, "fixed_step", gate_step=1)
    assert run.forwards == gated.rows_of(row, steps, range(1, steps))
    assert run.report.complete
    assert run.report.events == ()


def gate_both(pipe: Any, **options: Any) -> tuple[Any, Any]:
    """A gating for each of Wan 2.2's experts."""
    first = tg.attach(pipe, "fixed_step", **options)
    return first, tg.attach(pipe, "fixed_step", backbone=pipe.transformer_2, **options)


def test_two_experts_are_gated_each_by_its_own() -> None:
    """Wan 2.2: a gating counts the steps its expert takes part in, from the first of them."""
    row, pipe = pipelines.PIPELINES["wan-2.2"], gated.fresh("wan-2.2")
    bare = row.call(pipe, steps=8)
    gatings = gate_both(pipe, gate_step=2, gates=("guidance",))
    with oracles.forwards(row, pipe) as rows:
        row.call(pipe, steps=8)
    for gating in gatings:
        gating.detach()
        assert gating.report.closed == {"guidance": (2, 3)}
        assert gating.report.rows == (6, 8)
        assert gating.report.complete
    assert sum(rows) == 12
    assert torch.equal(row.call(pipe, steps=8), bare)


def test_two_gated_experts_are_not_said_to_be_ungated() -> None:
    """Wan 2.2 with a gating each: nobody is told to attach a second one."""
    row, pipe = pipelines.PIPELINES["wan-2.2"], gated.fresh("wan-2.2")
    gatings = gate_both(pipe, gate_step=2)
    row.call(pipe, steps=4)
    assert [gating.report.events for gating in gatings] == [(), ()]
