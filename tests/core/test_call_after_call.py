"""One attach, image after image: the trouble that made people give up the reference.

There a second image without guidance raised `ValueError: not enough values to unpack (expected 2,
got 1)`, and two prompts were silently averaged into each other.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper

newer = load_helper("newer.py")

GATE = 3

SESSION: list[dict[str, Any]] = [
    {},
    {"guidance_scale": 1.0},
    {"seed": 1},
    {"num_images_per_prompt": 3},
    {"guidance_scale": 1.0, "prompts": 2},
    {"prompts": 2},
    {"size": 24},
    {"guidance_scale": 1.0, "num_images_per_prompt": 3},
    {"prompts": 3, "negative": False},
    {"steps": 9},
    {"prompts": 2, "num_images_per_prompt": 2, "size": 24},
    {"guidance_scale": 0.0},
    {"guidance_rescale": 0.7},
    {"steps": 2},
    {},
]

POLICIES: dict[str, dict[str, Any]] = {
    "hold": {"policy": "fixed_step", "gate_step": GATE},
    "none": {"policy": "fixed_step", "gate_step": GATE, "estimator": "none", "merge": "mean"},
    "refresh": {"policy": "fixed_step", "gate_step": GATE, "refresh": 2},
    "both": {"policy": "fixed_step", "gate_step": GATE, "refresh": 2, "merge": "both"},
    "tgate": {"policy": "tgate", "gate_step": GATE, "sp_interval": 2, "warm_up": 0},
    "adaptive": {"policy": "convergence", "threshold": 0.5, "patience": 1},
    "default": {},
}


def fresh(kit: Any, options: dict[str, Any], **call: Any) -> torch.Tensor:
    """The gated result of a pipeline that has never run before."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, **options):
        latents: torch.Tensor = kit.call(pipe, **call)
    return latents


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_regression_not_enough_values_to_unpack(kit: Any, policy: str) -> None:
    """Guidance on and off, batches, sizes and negative prompts in any order: each image is a fresh
    pipeline's, bit for bit."""
    options = POLICIES[policy]
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **options)
    images = [kit.call(pipe, **call) for call in SESSION]
    gating.detach()
    expected = [fresh(kit, options, **call) for call in SESSION]
    wrong = [c for c, a, b in zip(SESSION, images, expected, strict=True) if not torch.equal(a, b)]
    assert wrong == []
    assert [r.complete for r in gating.runs] == [True] * len(SESSION)
    assert gating.events == []


def test_images_of_one_call_do_not_mix(kit: Any) -> None:
    """Changing prompt 1 leaves image 0 as it was, with guidance on and off."""
    for guidance_scale in (7.5, 1.0):
        pipe = kit.make_pipe()
        generator = torch.Generator().manual_seed(5)
        embeds = torch.randn(2, 7, 16, generator=generator)
        call = {
            "negative_prompt_embeds": torch.zeros_like(embeds),
            "latents": torch.randn(2, 4, 8, 8, generator=generator),
            "guidance_scale": guidance_scale,
            "num_inference_steps": kit.STEPS,
            "output_type": "latent",
        }
        with tg.gate(pipe, "fixed_step", gate_step=GATE):
            one = pipe(prompt_embeds=embeds, **call).images
            embeds[1] += 1
            other = pipe(prompt_embeds=embeds, **call).images
        assert torch.equal(one[0], other[0])
        assert not torch.equal(one[1], other[1])


def cutoff(at: int) -> dict[str, Any]:
    """As diffusers' own SDCFGCutoffCallback, for any batch: guidance ends after step `at`."""

    def callback(pipe: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
        if step == at:
            pipe._guidance_scale = 0.0
            state["prompt_embeds"] = state["prompt_embeds"].chunk(2)[-1]
        return state

    return {
        "callback_on_step_end": callback,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"],
    }


def test_a_callback_is_called_as_ever(kit: Any) -> None:
    """callback_on_step_end sees the same steps, timesteps and tensor names with and without us."""
    seen: list[list[tuple[int, int, list[str]]]] = []
    for policy in ("never", "fixed_step"):
        pipe, notes = kit.make_pipe(), []

        def callback(pipe: Any, step: int, t: Any, state: Any, notes: Any = notes) -> Any:
            notes.append((step, int(t), sorted(state)))
            return state

        with tg.gate(pipe, policy, **({"gate_step": GATE} if policy == "fixed_step" else {})):
            kit.call(pipe, callback_on_step_end=callback)
        seen.append(notes)
    assert seen[0] == seen[1]
    assert len(seen[0]) == kit.STEPS


@pytest.mark.parametrize(("at", "images"), [(0, 1), (GATE - 1, 3), (GATE, 1), (GATE + 1, 3)])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_callback_may_turn_guidance_off_at_any_step(
    kit: Any, policy: str, at: int, images: int
) -> None:
    """Such a run, and the guided one after it, are a fresh pipeline's, bit for bit."""
    options = POLICIES[policy]
    off: dict[str, Any] = {"num_images_per_prompt": images, **cutoff(at)}
    pipe = kit.make_pipe()
    with tg.gate(pipe, **options):
        before = kit.call(pipe)
        without = kit.call(pipe, **off)
        after = kit.call(pipe)
    assert torch.equal(without, fresh(kit, options, **off))
    assert torch.equal(after, before)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("gate_step", [1, GATE, 5])
def test_dropping_guidance_is_diffusers_own_cutoff(kit: Any, gate_step: int, images: int) -> None:
    """gates=("guidance",) with estimator "none" is the bare pipeline with a cutoff callback."""
    bare = kit.call(kit.make_pipe(), num_images_per_prompt=images, **cutoff(gate_step - 1))
    pipe = kit.make_pipe()
    options = {"gate_step": gate_step, "gates": ("guidance",), "estimator": "none"}
    with tg.gate(pipe, "fixed_step", **options):
        gated = kit.call(pipe, num_images_per_prompt=images)
    assert torch.equal(gated, bare)


def stop(pipe: Any, step: int, timestep: Any, state: dict[str, Any]) -> dict[str, Any]:
    """A callback that ends the run after the gate has closed."""
    pipe._interrupt = step >= GATE
    return state


@newer.needs_diffusers("0.33", "before it a pipeline tells nobody that it ends early")
def test_a_pipeline_that_a_callback_stopped_holds_nothing(kit: Any) -> None:
    """Its cache goes with it, not with the next image."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=GATE) as gating:
        kit.call(pipe, callback_on_step_end=stop)
        assert gating.cache_bytes == 0


def test_a_callback_may_stop_the_pipeline(kit: Any) -> None:
    """`pipe._interrupt` ends a run early; the report says so and the next image is whole."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=GATE) as gating:
        kit.call(pipe, callback_on_step_end=stop)
        after = kit.call(pipe)
    assert [(len(r.steps), r.complete) for r in gating.runs] == [(GATE + 1, False), (6, True)]
    assert torch.equal(after, fresh(kit, POLICIES["hold"]))


def test_a_loop_of_one_s_own_and_the_pipeline_take_turns(kit: Any) -> None:
    """Loops over a gated pipeline's UNet, one of them broken off and still held, leave the next
    image as it was."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, **POLICIES["hold"]) as gating:
        before = kit.call(pipe)
        pipe.scheduler.set_timesteps(kit.STEPS)
        held = gating.steps(pipe.scheduler.timesteps)
        next(held)
        loops = [kit.walk(pipe.unet, pipe.scheduler.timesteps, gating=gating) for _ in range(2)]
        after = kit.call(pipe)
    assert torch.equal(*loops)
    assert torch.equal(before, after)
    rows = [r.rows for r in gating.runs]
    # A loop says nothing of its layout, and this one's pipeline is not asked: guidance stays open.
    assert rows == [(9, 12), (12, 12), (12, 12), (9, 12)]
