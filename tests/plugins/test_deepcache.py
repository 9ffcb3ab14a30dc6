"""The real DeepCache helper beneath our gates: it refreshes where it used to crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from DeepCache import DeepCacheSDHelper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.errors import OptionError

gated = load_helper("backbones/gated.py")
pipelines = gated.pipelines

STEPS = 8

GATES = ("guidance", "cross")


@contextmanager
def enabled(pipe: Any, interval: int = 3, branch: int = 0) -> Iterator[DeepCacheSDHelper]:
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    yield helper
    helper.disable()


def counted(run: Callable[[], Any]) -> tuple[Any, float]:
    """(result, true MACs)."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        result = run()
    return result, counter.get_total_flops() / 2


def in_the_pipeline(kit: Any, pipe: Any, gating: Any = None, steps: int = STEPS) -> torch.Tensor:
    latents: torch.Tensor = kit.call(pipe, prompts=2, steps=steps)
    return latents


def in_a_loop(kit: Any, pipe: Any, gating: Any = None) -> torch.Tensor:
    pipe.scheduler.set_timesteps(STEPS)
    out: torch.Tensor = kit.walk(pipe.unet, pipe.scheduler.timesteps, rows=4, gating=gating)
    return out


PLACES = [in_the_pipeline, in_a_loop]


def gate(pipe: Any, place: Any, policy: Any, **options: Any) -> Any:
    """Gate what a place drives: the pipeline, or its UNet alone."""
    if place is in_a_loop:
        return tg.gate(pipe.unet, policy, layout="uncond_first", **options)
    return tg.gate(pipe, policy, **options)


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("place", PLACES)
def test_guidance_and_cross_gates_close_at_any_step(kit: Any, place: Any, interval: int) -> None:
    """No gate step from 1 to the last crashes, and the report's MACs are those that ran."""
    pipe = kit.make_pipe()
    with enabled(pipe, interval):
        for gate_step in range(1, STEPS):
            with gate(pipe, place, "fixed_step", gate_step=gate_step) as gating:
                latents, macs = counted(lambda: place(kit, pipe, gating))
            spent = gating.report.macs
            assert latents.isfinite().all()
            assert spent.done.true == pytest.approx(macs, rel=1e-9)
            assert set(spent.saved) <= {"guidance", "cross", "block"}
            assert "guidance" in spent.saved
            assert gating.report.events == ()


@pytest.mark.filterwarnings(*pipelines.WARNINGS)
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_guidance_and_cross_gates_close_at_any_step_of_sdxl(interval: int) -> None:
    """No gate step from 1 to the last crashes, and the report's MACs are those that ran."""
    row, pipe = pipelines.PIPELINES["sdxl"], gated.made("sdxl")
    assert type(pipe).__name__ == "StableDiffusionXLPipeline"
    with enabled(pipe, interval):
        for gate_step in range(1, STEPS):
            with tg.gate(pipe, "fixed_step", gate_step=gate_step) as gating:
                latents, macs = counted(lambda: row.call(pipe, steps=STEPS))
            spent = gating.report.macs
            assert spent is not None
            assert latents.isfinite().all()
            assert spent.done.true == pytest.approx(macs, rel=1e-9)
            assert {"guidance", "block"} <= set(spent.saved)
            assert gating.report.events == ()


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
@pytest.mark.parametrize("place", PLACES)
def test_an_open_gate_leaves_deepcache_alone(kit: Any, place: Any, interval: int) -> None:
    """Under a policy that never closes, the result is bitwise DeepCache's own."""
    pipe = kit.make_pipe()
    with enabled(pipe, interval):
        alone = place(kit, pipe)
        with gate(pipe, place, "never") as gating:
            latents = place(kit, pipe, gating)
            _, macs = counted(lambda: place(kit, pipe, gating))
    spent = gating.report.macs
    assert torch.equal(latents, alone)
    assert spent.done.true == pytest.approx(macs, rel=1e-9)
    assert set(spent.saved) == ({"block"} if interval > 1 else set())


@pytest.mark.parametrize("branch", range(6))
def test_every_branch_is_counted(kit: Any, branch: int) -> None:
    """Whatever the helper's branch leaves out, `block` saved it."""
    pipe = kit.make_pipe(kit.tiny_unet(layers_per_block=2))
    with enabled(pipe, 3, branch), tg.gate(pipe, "fixed_step", gate_step=5) as gating:
        _, macs = counted(lambda: in_the_pipeline(kit, pipe))
    assert gating.report.macs.done.true == pytest.approx(macs, rel=1e-9)


@pytest.mark.parametrize("policy", ["interleave", "convergence", "tgate"])
def test_other_policies_go_with_it(kit: Any, policy: str) -> None:
    """Looks, live policies and T-GATE's schedule run to their end, and are counted."""
    options = {"interleave": {"gates": GATES}, "convergence": {"threshold": 10.0}}
    pipe = kit.make_pipe()
    with enabled(pipe, 2), tg.gate(pipe, policy, **options.get(policy, {"gate_step": 4})) as gating:
        _, macs = counted(lambda: in_the_pipeline(kit, pipe, steps=12))
        images = [in_the_pipeline(kit, pipe, steps=12) for _ in range(2)]
    assert gating.runs[0].macs.done.true == pytest.approx(macs, rel=1e-9)
    assert torch.equal(*images)
    assert {"guidance", "cross"} <= set(gating.report.closed)


def test_the_step_that_stores_and_the_step_that_narrows_run_in_full(kit: Any) -> None:
    """Interval 3, gate 4: full at 0 and 3 by the helper's count, at 3 for attention, at 4 because
    the rows change; from there the helper counts anew."""
    pipe = kit.make_pipe()
    with enabled(pipe, 3), tg.gate(pipe, "fixed_step", gate_step=4) as gating:
        in_the_pipeline(kit, pipe)
    calls = [c for s in gating.report.steps for c in s.calls]
    assert [not c.skipped for c in calls] == [i in (0, 3, 4, 7) for i in range(STEPS)]
    assert [c.ran for c in calls] == [4] * 4 + [2] * 4


def test_a_gate_in_an_image_of_its_own_size_and_batch(kit: Any) -> None:
    """Image after image under one attach, helper and all: each as on a fresh pipeline."""
    calls: list[dict[str, Any]] = [{}, {"guidance_scale": 1.0}, {"size": 24, "prompts": 3}, {}]
    pipe = kit.make_pipe()
    with enabled(pipe), tg.gate(pipe, "fixed_step", gate_step=2):
        images = [kit.call(pipe, **call) for call in calls]
    for call, image in zip(calls, images, strict=True):
        fresh = kit.make_pipe()
        with enabled(fresh), tg.gate(fresh, "fixed_step", gate_step=2):
            assert torch.equal(kit.call(fresh, **call), image)


def test_detaching_leaves_the_helper_working(kit: Any) -> None:
    """After our block the helper goes on as before it, and its own disable() restores the bare
    result."""
    pipe = kit.make_pipe()
    bare = in_the_pipeline(kit, pipe)
    with enabled(pipe):
        alone, before = in_the_pipeline(kit, pipe), kit.snapshot(pipe.unet)
        with tg.gate(pipe, "fixed_step", gate_step=3):
            in_the_pipeline(kit, pipe)
        assert kit.snapshot(pipe.unet) == before
        assert torch.equal(in_the_pipeline(kit, pipe), alone)
    assert torch.equal(in_the_pipeline(kit, pipe), bare)


def test_a_helper_enabled_after_attaching_is_found(kit: Any) -> None:
    """An active helper is looked for at each call, and needs no naming."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, "fixed_step", gate_step=3)
    with enabled(pipe):
        in_the_pipeline(kit, pipe)
    in_the_pipeline(kit, pipe)
    gating.detach()
    assert ["block" in r.macs.saved for r in gating.runs] == [True, False]


def test_compose_insists_on_an_enabled_helper(kit: Any) -> None:
    """compose=["deepcache"] is a sentence where there is none, and changes nothing where there
    is one."""
    pipe = kit.make_pipe()
    before = kit.snapshot(pipe.unet)
    with pytest.raises(OptionError, match=r"no enabled DeepCacheSDHelper.*helper\.enable\(\)"):
        tg.gate(pipe, "fixed_step", gate_step=3, compose=["deepcache"])
    assert kit.snapshot(pipe.unet) == before
    results = []
    for compose in ([], ["deepcache"]):
        fresh = kit.make_pipe()
        options = {"gate_step": 3, "compose": compose}
        with enabled(fresh), tg.gate(fresh, "fixed_step", **options):
            results.append(in_the_pipeline(kit, fresh))
    assert torch.equal(*results)
