"""What `explain` says before a run is what the run's report counts after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.cost import Macs
from tgate_sampling.testing import tiny_unet
from tgate_sampling.testing.tiny import TEXT_DIM

STEPS, TOKENS = 8, 7

pipelines = load_helper("backbones/pipelines.py")

#: What SDXL adds to a UNet: deeper transformers, pooled text and time ids.
SDXL: dict[str, Any] = {
    "transformer_layers_per_block": (2, 1),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 24,
}

ALL = ("guidance", "cross", "self")


def block(**options: Any) -> tg.Policy:
    return tg.get_policy("block", **options)


#: Policy and gate options of a run, by the name of a test.
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"gate {g}": {"policy": "fixed_step", "gate_step": g} for g in (1, 2, 5, STEPS - 1, STEPS)},
    "cross alone": {"policy": "fixed_step", "gate_step": 5, "gates": ("cross",)},
    "self alone": {"policy": "fixed_step", "gate_step": 5, "gates": ("self",)},
    "guidance alone": {"policy": "fixed_step", "gate_step": 5, "gates": ("guidance",)},
    "all gates": {"policy": "fixed_step", "fraction": 0.3, "gates": ALL},
    "forecast": {"policy": "fixed_step", "gate_step": 5, "estimator": "forecast"},
    "linear": {"policy": "fixed_step", "gate_step": 5, "estimator": "linear"},
    "none": {"policy": "fixed_step", "gate_step": 5, "estimator": "none", "merge": "mean"},
    "refresh": {"policy": "fixed_step", "gate_step": 3, "refresh": 3},
    "both kept": {"policy": "fixed_step", "gate_step": 3, "refresh": 3, "merge": "both"},
    "tgate 1": {"policy": "tgate", "gate_step": 5, "sp_interval": 1, "warm_up": 0},
    "tgate 2": {"policy": "tgate", "gate_step": 6, "sp_interval": 3, "fi_interval": 2},
    "interleave": {"policy": "interleave"},
    "interleave with cross": {"policy": "interleave", "every": 3, "gates": ("guidance", "cross")},
    "block": {"policy": "block", "interval": 3},
    "block at a branch": {"policy": "block", "interval": 2, "branch": 1},
    "block that crowds": {"policy": "block", "interval": 4, "center": 0.5},
    "gate on block": {"policy": "fixed_step", "gate_step": 5, "compose": [block(interval=2)]},
    "interleave on block": {"policy": "interleave", "compose": [block(interval=3)]},
    "interval": {"policy": "guidance_interval", "start": 0.2, "stop": 0.7},
    "never": {"policy": "never"},
}


def same(prediction: tg.Prediction, report: tg.Report) -> None:
    """Every number of a prediction is the report's."""
    spent = report.macs
    assert spent is not None
    for name in ("done", "ungated"):
        close(getattr(prediction.macs, name), getattr(spent, name))
    assert set(prediction.macs.saved) == set(spent.saved)
    for gate, saved in spent.saved.items():
        close(prediction.macs.saved[gate], saved)
    assert prediction.rows == report.rows
    assert prediction.closed == report.closed
    assert prediction.steps == report.total == len(report.steps)
    assert prediction.peak_cache_bytes == report.peak_cache_bytes
    assert prediction.unclosed is None


def close(ours: Macs, theirs: Macs) -> None:
    assert (ours.true, ours.layers) == pytest.approx((theirs.true, theirs.layers), rel=1e-12)


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_a_prediction_for_a_pipeline_is_what_its_run_counts(kit: Any, setting: str) -> None:
    """MACs, rows, closed steps and cache bytes, to the last one; with two images at a time."""
    options = SETTINGS[setting]
    pipe = kit.make_pipe()
    prediction = tg.explain(
        pipe, **options, steps=STEPS, batch=2, height=16, width=16, tokens=TOKENS
    )
    with tg.gate(pipe, **options) as gating:
        kit.call(pipe, steps=STEPS, prompts=2)
    same(prediction, gating.report)


@pytest.fixture(scope="module")
def sdxl() -> Any:
    """A tiny UNet of SDXL's shape."""
    return tiny_unet(**SDXL)


def walk(unet: Any, gating: Any, *, branches: int = 2, size: int = 8) -> None:
    """A custom loop over an SDXL-shaped UNet."""
    text = torch.randn(branches, TOKENS, TEXT_DIM)
    added = {"text_embeds": torch.randn(branches, 24), "time_ids": torch.zeros(branches, 6)}
    x = torch.randn(1, 4, size, size)
    with torch.no_grad():
        for t in gating.steps(list(range(STEPS, 0, -1))):
            unet(
                torch.cat([x] * branches),
                t,
                encoder_hidden_states=text,
                added_cond_kwargs=added,
            )


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_a_prediction_for_an_sdxl_shape_is_what_its_run_counts(sdxl: Any, setting: str) -> None:
    """The same in a loop of one's own, with pooled text and time ids made up."""
    options = SETTINGS[setting]
    prediction = tg.explain(sdxl, **options, steps=STEPS, tokens=TOKENS)
    with tg.gate(sdxl, **options, layout="uncond_first") as gating:
        walk(sdxl, gating)
    same(prediction, gating.report)


@pytest.mark.parametrize("setting", ["gate 5", "all gates", "tgate 2", "interleave", "block"])
def test_a_run_without_guidance_is_predicted_too(sdxl: Any, setting: str) -> None:
    """One branch; and the prediction says what the report will say of the guidance gate."""
    options = SETTINGS[setting]
    prediction = tg.explain(sdxl, **options, steps=STEPS, tokens=TOKENS, guidance=False)
    with tg.gate(sdxl, **options, layout="single") as gating:
        walk(sdxl, gating, branches=1)
    same(prediction, gating.report)
    assert list(prediction.notes) == [e.message for e in gating.report.events]


def test_other_sizes_cost_what_they_cost(kit: Any, sdxl: Any) -> None:
    """Pixels for a pipeline, latents for a backbone; a side left out is the model's own."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=3) as gating:
        kit.call(pipe, steps=6, size=24)
    given = {"gate_step": 3, "steps": 6, "tokens": TOKENS}
    same(tg.explain(pipe, "fixed_step", height=24, width=24, **given), gating.report)
    with tg.gate(sdxl, "fixed_step", gate_step=3, layout="uncond_first") as gating:
        walk(sdxl, gating, size=12)
    given["steps"] = STEPS
    same(tg.explain(sdxl, "fixed_step", height=12, width=12, **given), gating.report)
    oblong = tg.explain(sdxl, "fixed_step", height=16, **given)
    assert "of 4x16x8" in oblong.call


@dataclass(frozen=True)
class Family:
    """How a tiny pipeline of `tests/backbones` and its prediction are asked for the same call.

    Args:
        side: of the latents.
        policy: policy and gate options that close what this backbone has.
        call: keywords of the pipeline's call beyond the table's.
    """

    side: int
    policy: dict[str, Any]
    call: dict[str, Any] = field(default_factory=dict)


def closing(*gates: str) -> dict[str, Any]:
    return {"policy": "fixed_step", "gate_step": 3, "gates": gates}


FAMILIES = {
    "pixart-alpha": Family(8, closing(*ALL)),
    "pixart-sigma": Family(8, {"policy": "tgate", "gate_step": 4, "sp_interval": 3, "warm_up": 1}),
    "sana": Family(8, closing("guidance", "cross")),
    "sd3": Family(8, closing("guidance")),
    "flux": Family(8, closing("guidance")),
    "qwen-image": Family(8, closing("guidance", "text")),
    "z-image": Family(8, {"policy": "interleave"}),
    # A call for each branch; as many frames as the recipe has.
    "wan": Family(4, closing(*ALL), {"num_frames": 81}),
    "ltx": Family(2, closing("guidance", "cross"), {"num_frames": 161}),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings(*pipelines.WARNINGS)
def test_a_prediction_for_a_transformer_is_what_its_pipeline_s_run_counts(name: str) -> None:
    """Packed latents, lists, one call a branch, guidance as an input: to the last MAC and byte."""
    family, row = FAMILIES[name], pipelines.PIPELINES[name]
    pipe = row.build()
    size = {"height": family.side, "width": family.side, "tokens": TOKENS}
    asked = {"steps": STEPS, "batch": 2}
    prediction = tg.explain(row.denoiser(pipe), **family.policy, **asked, **size)
    with tg.gate(pipe, **family.policy) as gating:
        row.call(pipe, **asked, **family.call)
    same(prediction, gating.report)
    assert bool(gating.report.closed) is (name != "flux")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("HeunDiscreteScheduler", {}),
        ("KDPM2DiscreteScheduler", {}),
        ("PNDMScheduler", {"skip_prk_steps": True}),
        ("PNDMScheduler", {"skip_prk_steps": False}),
        ("LCMScheduler", {}),
        ("EulerDiscreteScheduler", {}),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ],
)
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
def test_a_scheduler_s_own_evaluations_are_counted(
    kit: Any, name: str, config: dict[str, Any]
) -> None:
    """Second orders evaluate twice, PNDM once more than it has steps."""
    pipe = kit.make_pipe()
    pipe.scheduler = getattr(diffusers, name)(**config)
    prediction = tg.explain(
        pipe, "fixed_step", gate_step=4, steps=STEPS, height=16, width=16, tokens=TOKENS
    )
    if config.get("use_dynamic_shifting"):  # asks for more than a number of steps: one each
        assert prediction.rows[1] == 2 * STEPS
        return
    with tg.gate(pipe, "fixed_step", gate_step=4) as gating:
        kit.call(pipe, steps=STEPS)
    same(prediction, gating.report)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_caches_are_predicted_in_their_dtype(kit: Any, dtype: torch.dtype) -> None:
    """A half-precision model keeps half the bytes."""
    pipe = kit.make_pipe()
    options = {"gate_step": 4, "steps": 8, "height": 16, "width": 16, "tokens": TOKENS}
    single = tg.explain(pipe, "fixed_step", **options)
    asked = tg.explain(pipe, "fixed_step", dtype=dtype, **options)
    pipe.unet.to(dtype)
    found = tg.explain(pipe, "fixed_step", **options)
    assert found == asked
    size = torch.empty((), dtype=dtype).element_size()
    assert found.peak_cache_bytes * 4 == single.peak_cache_bytes * size
    assert found.macs == single.macs


def test_bytes_by_gate_add_up_to_the_peak(kit: Any) -> None:
    """Looks are guidance's, features are the block gate's, each site is its kind's."""
    pipe = kit.make_pipe()
    options = {"steps": STEPS, "height": 16, "width": 16, "tokens": TOKENS}
    prediction = tg.explain(pipe, "fixed_step", gate_step=4, gates=(*ALL, "block"), **options)
    held = {g.gate: g.cache_bytes for g in prediction.gates}
    assert set(held) == {"guidance", "cross", "self", "block"}
    assert sum(held.values()) == prediction.peak_cache_bytes
    assert held["guidance"] == 4 * 4 * 8 * 8  # one look: cond - uncond of one image, float32
    alone = tg.explain(pipe, "fixed_step", gate_step=4, gates=("block",), **options)
    assert alone.peak_cache_bytes == held["block"]


def test_a_function_of_the_step_is_asked_beforehand(kit: Any) -> None:
    """It needs no plan: what it says of each step is what it will say."""

    def late(step: tg.StepContext) -> bool:
        return step.progress >= 0.5

    pipe = kit.make_pipe()
    prediction = tg.explain(pipe, late, steps=STEPS, height=16, width=16, tokens=TOKENS)
    with tg.gate(pipe, late) as gating:
        kit.call(pipe, steps=STEPS)
    same(prediction, gating.report)
    assert prediction.policy == "late"


ADAPTIVE: dict[str, dict[str, Any]] = {
    "convergence": {"policy": "convergence", "threshold": 10.0, "patience": 1},
    "convergence that never comes": {"policy": "convergence", "threshold": 1e-9},
    "cosine_delta": {"policy": "cosine_delta", "min_cosine": 0.0, "max_delta": 9.0},
    "error_controlled": {"policy": "error_controlled", "tolerance": 0.5},
    "budgeted": {"policy": "budgeted", "rows": 13},
    "adaptive_guidance": {"policy": "adaptive_guidance", "threshold": 0.0},
    "by noise": {"policy": "fixed_step", "sigma": 2.0},
}


@pytest.mark.parametrize("setting", sorted(ADAPTIVE))
@pytest.mark.parametrize("steps", [6, 9])
def test_a_run_that_decides_by_itself_lies_in_the_range(kit: Any, setting: str, steps: int) -> None:
    """Between never closing and closing right after the first step; few steps are allowed for."""
    options, pipe = ADAPTIVE[setting], kit.make_pipe()
    prediction = tg.explain(pipe, **options, steps=steps, height=16, width=16, tokens=TOKENS)
    with tg.gate(pipe, **options) as gating:
        kit.call(pipe, steps=steps)
    least, spent = prediction.unclosed, gating.report.macs
    assert least is not None
    assert spent is not None
    assert prediction.macs.done.true <= spent.done.true <= least.macs.done.true
    assert prediction.rows[0] <= gating.report.rows[0] <= least.rows[0]
    held = (prediction.peak_cache_bytes, least.peak_cache_bytes)
    assert gating.report.peak_cache_bytes <= max(held)
    close(prediction.macs.ungated, spent.ungated)


def test_the_lower_end_is_a_run_that_never_closed(kit: Any) -> None:
    """What measuring keeps in memory is counted there, and nothing is saved."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "convergence", threshold=1e-9) as gating:
        kit.call(pipe, steps=STEPS)
    least = tg.explain(
        pipe, "convergence", steps=STEPS, height=16, width=16, tokens=TOKENS
    ).unclosed
    assert least is not None
    same(least, gating.report)
    assert least.macs.saved == {}
    assert least.peak_cache_bytes > 0


def test_a_stack_s_plan_is_kept_and_its_looks_are_warned_of(kit: Any) -> None:
    """A look re-opens the block gate, so that many looks cost more than never closing guidance."""
    pipe = kit.make_pipe()
    options = {"tolerance": 0.5, "compose": [block(interval=3)]}
    prediction = tg.explain(
        pipe, "error_controlled", **options, steps=9, height=16, width=16, tokens=TOKENS
    )
    with tg.gate(pipe, "error_controlled", **options) as gating:
        kit.call(pipe, steps=9)
    assert prediction.unclosed is not None
    assert prediction.unclosed.closed == {"block": (1, 2, 4, 5, 7, 8)}
    assert gating.report.macs is not None
    assert gating.report.macs.done.true > prediction.unclosed.macs.done.true
    assert any("re-opens the other gates" in note for note in prediction.notes)


def test_explaining_leaves_the_pipeline_as_it_was(kit: Any) -> None:
    """No class, hook, attribute or scheduler is touched, and a gating may be attached."""
    pipe = kit.make_pipe()
    before, timesteps = kit.snapshot(pipe.unet), pipe.scheduler.timesteps
    with tg.gate(pipe, "fixed_step", gate_step=4):
        gated = kit.snapshot(pipe.unet)
        tg.explain(pipe, "tgate", tokens=TOKENS)
        assert kit.snapshot(pipe.unet) == gated
    assert kit.snapshot(pipe.unet) == before
    assert pipe.scheduler.timesteps is timesteps
