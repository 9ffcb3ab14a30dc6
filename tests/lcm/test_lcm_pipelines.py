"""diffusers pipelines with LCMScheduler: guidance as an input, without guidance, and with it."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.testing import tiny_unet
from tgate_sampling.testing.tiny import TEXT_DIM

STEPS = 4

#: Widths of the guidance embedding: none, and one.
WIDTHS = (None, 32)


def make(kit: Any, width: int | None, made: str = "StableDiffusionPipeline") -> Any:
    """A pipeline around a tiny UNet, on LCMScheduler."""
    unet = tiny_unet(time_cond_proj_dim=width)
    if made != "LatentConsistencyModelPipeline":
        pipe = kit.make_pipe(unet, made=getattr(diffusers, made))
        pipe.scheduler = diffusers.LCMScheduler(prediction_type="v_prediction")
        return pipe
    donor = kit.make_pipe(unet)
    parts = {**donor.components, "scheduler": diffusers.LCMScheduler()}
    parts.pop("image_encoder")
    pipe = diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(kit: Any, pipe: Any, *, scale: float = 1.0, **more: Any) -> torch.Tensor:
    latents: torch.Tensor = kit.call(pipe, steps=STEPS, guidance_scale=scale, **more)
    return latents


def scales(width: int | None) -> tuple[float, ...]:
    """Guidance scales under which a model has one branch."""
    return (1.0,) if width is None else (1.0, 8.0)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("prompts", [1, 2])
def test_open_gates_change_no_bit(kit: Any, width: int | None, prompts: int) -> None:
    """Neither with nor without guidance, embedded or as two branches."""
    pipe = make(kit, width)
    for scale in (1.0, 8.0):
        bare = call(kit, pipe, scale=scale, prompts=prompts)
        with tg.gate(pipe, "never") as gating:
            assert torch.equal(call(kit, pipe, scale=scale, prompts=prompts), bare)
        assert len(gating.report.steps) == STEPS
        with tg.gate(pipe, "fixed_step", gate_step=STEPS):  # never reached
            assert torch.equal(call(kit, pipe, scale=scale, prompts=prompts), bare)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_cross_gate_works_in_one_branch(kit: Any, width: int | None) -> None:
    """From the gate on no cross site is computed; all rows run; the result moves a little."""
    pipe = make(kit, width)
    for scale in scales(width):
        bare = call(kit, pipe, scale=scale, prompts=2)
        with tg.gate(pipe, "fixed_step", gate_step=1, gates=("cross",)) as gating:
            gated = call(kit, pipe, scale=scale, prompts=2)
        report = gating.report
        assert [len(c.reused.get("cross", ())) for s in report.steps for c in s.calls] == [
            0,
            4,
            4,
            4,
        ]
        assert report.rows == (2 * STEPS, 2 * STEPS)
        assert report.events == ()
        assert 1e-5 < float((gated - bare).norm() / bare.norm()) < 0.5


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("policy", ["fixed_step", "tgate"])
def test_the_report_says_that_guidance_has_nothing_to_close(
    kit: Any, width: int | None, policy: str
) -> None:
    """One event, in the first step; the gate is not said to be closed, and saves nothing."""
    pipe = make(kit, width)
    with tg.gate(pipe, policy, gate_step=1) as gating:
        call(kit, pipe, scale=scales(width)[-1])
    report = gating.report
    assert [(e.kind, e.step) for e in report.events] == [("guidance", 0)]
    assert "the guidance gate has nothing to close: this run has one branch" in str(report)
    assert report.closed["cross"] == (1, 2, 3)
    assert "guidance" not in report.closed
    assert report.macs is not None
    assert set(report.macs.saved) == {"cross"}


def test_lcm_with_two_branches_is_gated_as_any_pipeline(kit: Any) -> None:
    """Guidance above 1 on a model without embedding has an uncond branch, which can go."""
    pipe = make(kit, None)
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        call(kit, pipe, scale=4.0)
    assert gating.report.rows == (6, 8)
    assert gating.report.closed == {"guidance": (2, 3), "cross": (2, 3)}
    assert gating.report.events == ()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_second_call_is_right(kit: Any, width: int | None) -> None:
    """Other prompts, another batch, then the first again: each as on a fresh pipeline."""
    pipe = make(kit, width)
    wanted = []
    for seed, prompts in ((0, 1), (1, 2), (0, 1)):
        fresh = make(kit, width)
        with tg.gate(fresh, "fixed_step", gate_step=2):
            wanted.append(call(kit, fresh, seed=seed, prompts=prompts))
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        for (seed, prompts), latents in zip(((0, 1), (1, 2), (0, 1)), wanted, strict=True):
            assert torch.equal(call(kit, pipe, seed=seed, prompts=prompts), latents)
    assert [len(r.steps) for r in gating.runs] == [STEPS] * 3
    assert gating.cache_bytes == 0


def test_guidance_on_and_off_call_after_call(kit: Any) -> None:
    """One gating, two branches in one call and one in the next."""
    pipe = make(kit, None)
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        for scale in (4.0, 1.0, 4.0):
            call(kit, pipe, scale=scale)
    assert [r.rows for r in gating.runs] == [(6, 8), (4, 4), (6, 8)]
    assert [bool(r.events) for r in gating.runs] == [False, True, False]


def test_the_latent_consistency_pipeline_is_gated(kit: Any) -> None:
    """diffusers' own LCM pipeline: open is bitwise bare, cross closes, two equal latents or not."""
    pipe = make(kit, 32, "LatentConsistencyModelPipeline")
    made = torch.Generator().manual_seed(1)
    text, one = torch.randn(2, 7, TEXT_DIM, generator=made), torch.randn(1, 4, 8, 8, generator=made)

    def run() -> Any:
        return pipe(
            prompt_embeds=text,
            latents=one.repeat(2, 1, 1, 1),  # as the halves of a guided batch would lie
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(2),
            output_type="latent",
        ).images

    bare = run()
    with tg.gate(pipe, "never"):
        assert torch.equal(run(), bare)
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        assert not torch.equal(run(), bare)
    assert gating.report.closed == {"cross": (2, 3)}
    assert gating.report.rows == (8, 8)
    assert torch.equal(run(), bare)
