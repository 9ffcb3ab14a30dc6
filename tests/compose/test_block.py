"""The block gate is DeepCache, step for step, wherever our clock runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tgate_sampling as tg
from tests import pipes
from tests.compose import toys
from tests.kload import sampling
from tgate_plugins.block import full_steps
from tgate_sampling.errors import OptionError
from tgate_sampling.testing import tiny_denoiser, tiny_unet

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

#: What branch 0 of `tiny_unet` leaves out.
DEEP = (
    *(f"down_blocks.0.{part}.0" for part in ("resnets", "attentions", "downsamplers")),
    "down_blocks.1",
    "mid_block",
    "up_blocks.0",
    *(f"up_blocks.1.{part}.0" for part in ("resnets", "attentions")),
)


@contextmanager
def helped(pipe: Any, interval: int, branch: int) -> Iterator[Any]:
    """DeepCache's own helper at work on a pipeline, or on anything with `unet` and `scheduler`."""
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper(pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    try:
        yield helper
    finally:
        helper.disable()


@contextmanager
def mac_count(into: list[float]) -> Iterator[None]:
    """Append what torch counts inside; the math kernel is made of operators it can see."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        yield
    into.append(counter.get_total_flops() / 2)


def done(report: tg.Report) -> float:
    assert report.macs is not None
    return report.macs.done.true


def reused(total: int, interval: int) -> tuple[int, ...]:
    return tuple(i for i in range(total) if i % interval)


def quick(golden: Any, **settings: Any) -> Any:
    """A recorded case cut to eight steps."""
    return {**golden.cases["v1_g10"], "call": {"num_inference_steps": 8, **settings}}


# -- beside DeepCache's helper --------------------------------------------------------------------


@pytest.mark.parametrize("branch", range(6))
@pytest.mark.parametrize("interval", [1, 2, 3, 5])
def test_latents_are_the_helper_s(golden: Any, interval: int, branch: int) -> None:
    """Bitwise, on a Stable Diffusion pipeline with DDIM; the gate leaves all other work alone."""
    pipe = golden.pipeline("ddim")
    with tg.gate(pipe, "block", interval=interval, branch=branch) as gating:
        ours = golden.call(pipe, quick(golden))
    with helped(pipe, interval, branch):
        theirs = golden.call(pipe, quick(golden))
    assert torch.equal(ours, theirs)
    assert gating.report.closed.get("block", ()) == reused(8, interval)
    assert gating.report.events == ()


@pytest.mark.parametrize("branch", [0, 2, 4])
def test_work_is_the_helper_s(golden: Any, branch: int) -> None:
    """MACs equal what is reported for the helper, and what torch counts in either run."""
    pipe, counts, case = golden.pipeline("ddim"), list[float](), quick(golden)
    with tg.gate(pipe, "block", interval=3, branch=branch) as gating, mac_count(counts):
        golden.call(pipe, case)
    with (
        helped(pipe, 3, branch),
        tg.gate(pipe, "never", compose=["deepcache"]) as theirs,
        mac_count(counts),
    ):
        golden.call(pipe, case)
    assert done(gating.report) == pytest.approx(done(theirs.report), rel=1e-9)
    assert [done(gating.report)] * 2 == pytest.approx(counts, rel=0.01)


@pytest.mark.parametrize("branch", [0, 1, 2, 4, 6, 8])
@pytest.mark.parametrize("interval", [2, 3, 5])
def test_an_sdxl_unet_in_a_plain_loop(interval: int, branch: int) -> None:
    """Three levels, added text and time ids, no pipeline: the helper's result, bitwise."""
    unet, timesteps = toys.sdxl_unet(), torch.arange(900, 0, -130)
    with tg.gate(unet, "block", interval=interval, branch=branch) as gating:
        ours = toys.sdxl_loop(unet, timesteps, gating)
    holder = SimpleNamespace(unet=unet, scheduler=SimpleNamespace(timesteps=timesteps))
    with helped(holder, interval, branch):
        theirs = toys.sdxl_loop(unet, timesteps)
    assert torch.equal(ours, theirs)
    assert gating.report.closed == {"block": reused(len(timesteps), interval)}


@pytest.mark.parametrize("branch", [0, 4])
def test_an_sdxl_unet_s_work_is_counted(branch: int) -> None:
    """The report's MACs are those that torch counts, and those of the helper's report."""
    unet, timesteps = toys.sdxl_unet(), torch.arange(900, 0, -130)
    counts: list[float] = []
    with tg.gate(unet, "block", branch=branch) as gating, mac_count(counts):
        toys.sdxl_loop(unet, timesteps, gating)
    holder = SimpleNamespace(unet=unet, scheduler=SimpleNamespace(timesteps=timesteps))
    with helped(holder, 3, branch), tg.gate(unet, "never", compose=["deepcache"]) as theirs:
        toys.sdxl_loop(unet, timesteps, theirs)
    assert [done(gating.report)] == pytest.approx(counts, rel=0.01)
    assert done(gating.report) == pytest.approx(done(theirs.report), rel=1e-9)


def test_the_helper_s_result_under_dpmpp_2m() -> None:
    """In k-diffusion too, where the helper can be told the timesteps by hand."""
    model, sigmas = tiny_denoiser(guidance_scale=1.0), sampling.get_sigmas_karras(8, 0.1, 12.0)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * sigmas[0]
    sample = tg.wrap_sampler("dpmpp_2m", "block", interval=3)
    with torch.no_grad():
        ours = sample(model, noise, sigmas, disable=True)
        scheduler = SimpleNamespace(timesteps=model.sigma_to_t(sigmas[:-1]))
        with helped(SimpleNamespace(unet=model.inner_model, scheduler=scheduler), 3, 0):
            theirs = sampling.sample_dpmpp_2m(model, noise, sigmas, disable=True)
    assert torch.equal(ours, theirs)
    assert sample.report.closed == {"block": reused(8, 3)}


# -- the pattern follows steps --------------------------------------------------------------------


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("name", ["ddim", "euler", "dpmpp_2m", "heun", "kdpm2", "pndm", "pndm_prk"])
def test_the_pattern_follows_steps_not_calls(name: str, interval: int) -> None:
    """Second evaluations and repeated timesteps do not shift it: a step is full or it is not."""
    pipe, ran = pipes.pipeline(tiny_unet(), toys.scheduler(name)), list[int]()
    with tg.gate(pipe, "block", interval=interval) as gating:
        steps = lambda: len(gating.report.steps) - 1  # noqa: E731  # read while the run goes on
        pipe.unet.mid_block.register_forward_hook(lambda *_: ran.append(steps()))
        toys.generate(pipe, steps=9)
    report = gating.report
    assert report.closed == {"block": reused(len(report.steps), interval)}
    assert sorted(set(ran)) == [i for i in range(len(report.steps)) if i % interval == 0]
    assert len(ran) == sum(len(s.calls) for s in report.steps if not s.decision.closed)
    assert report.events == ()


@pytest.mark.parametrize("name", ["ddim", "heun", "pndm"])
def test_img2img_begins_with_a_full_step(name: str) -> None:
    """The pattern counts from the run's own first step, in every run."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler(name), img2img=True)
    with tg.gate(pipe, "block", interval=3) as gating:
        for strength, total in ((0.5, 5), (0.8, 8)):
            toys.generate(pipe, steps=10, strength=strength)
            assert gating.report.total == len(gating.report.steps)
            assert gating.report.total in (total, total + 1)  # PNDM repeats one
            assert gating.report.closed == {"block": reused(gating.report.total, 3)}


class Replay:
    """DeepCache as one would write it down: deep modules answer as in the last full step.

    Args:
        unet: a `tiny_unet`.
        full: whether evaluation 0, 1, ... belongs to a full step.
    """

    def __init__(self, unet: nn.Module, full: list[bool]) -> None:
        self._full, self._kept = iter(full), dict[str, Any]()
        self._now = True
        self.hooks = [unet.register_forward_pre_hook(self._begin)]
        for name in DEEP:
            module = unet.get_submodule(name)
            self.hooks.append(module.register_forward_hook(self._answer(name)))

    def _begin(self, *_: Any) -> None:
        self._now = next(self._full)

    def _answer(self, name: str) -> Any:
        def answer(module: nn.Module, args: Any, result: Any) -> Any:
            if self._now:
                self._kept[name] = result
            return self._kept[name]

        return answer


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize(("name", "evaluations"), [("heun", 2), ("dpmpp_2m", 1)])
def test_k_diffusion_samplers_reuse_the_last_full_step(
    name: str, evaluations: int, guidance_scale: float
) -> None:
    """Heun's two evaluations are one step: both run in full, or both reuse."""
    model = tiny_denoiser(guidance_scale=guidance_scale)
    sigmas = sampling.get_sigmas_karras(7, 0.1, 12.0)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * sigmas[0]
    sample = tg.wrap_sampler(name, "block", interval=3)
    with torch.no_grad():
        ours = sample(model, noise, sigmas, disable=True)
        full = [i % 3 == 0 for i in range(7) for _ in range(evaluations)]
        replay = Replay(model.inner_model, full)
        written = getattr(sampling, f"sample_{name}")(model, noise, sigmas, disable=True)
    assert torch.equal(ours, written)
    assert sample.report.closed == {"block": reused(7, 3)}
    assert all(len(s.calls) == evaluations for s in sample.report.steps[:-1])
    for hook in replay.hooks:
        hook.remove()


def test_a_sampler_of_unknown_length_spaces_full_steps_evenly() -> None:
    """`dpm_adaptive` cannot be planned for, so that a centre means nothing to it."""
    for options in ({"interval": 3}, {"interval": 3, "center": 0.5}):
        sample = tg.wrap_sampler("dpm_adaptive", "block", **options)
        with torch.no_grad():
            sample(tiny_denoiser(), torch.ones(1, 4, 8, 8), 0.5, 12.0, disable=True)
        report = sample.report
        assert report.total is None
        assert report.closed == {"block": reused(len(report.steps), 3)}


# -- uneven schedules -----------------------------------------------------------------------------


def test_full_steps_crowd_around_the_centre() -> None:
    """Spaced by |u| ** power with u even: three known answers."""
    assert sorted(full_steps(25, 5, None, 1.4)) == [0, 5, 10, 15, 20]
    assert sorted(full_steps(21, 5, 0.5, 2.0)) == [0, 8, 10, 12, 20]
    assert sorted(full_steps(21, 5, 0.0, 2.0)) == [0, 1, 5, 11, 20]


@given(
    total=st.integers(2, 60),
    interval=st.integers(1, 10),
    center=st.floats(0, 1),
    power=st.floats(1.0, 3.0),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_an_uneven_schedule_costs_what_an_even_one_does(
    total: int, interval: int, center: float, power: float
) -> None:
    """The first step is full, none is out of the run, gaps do not shrink away from the centre."""
    full = sorted(full_steps(total, interval, center, power))
    assert full[0] == 0
    assert full[-1] < total
    assert len(full) <= max(2, -(-total // interval)) + 1
    middle = center * (total - 1)
    for before, here, after in zip(full, full[1:], full[2:], strict=False):
        left, right = here - before, after - here
        if before >= middle:
            assert right >= left - 1  # rounding
        elif after <= middle:
            assert left >= right - 1


@pytest.mark.parametrize(("center", "power"), [(0.5, 2.0), (0.0, 1.4), (1.0, 3.0)])
def test_an_uneven_schedule_is_what_runs(center: float, power: float) -> None:
    """Planned from the run's own number of steps."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    with tg.gate(pipe, "block", interval=4, center=center, power=power) as gating:
        toys.generate(pipe, steps=12)
    full = full_steps(12, 4, center, power)
    assert gating.report.closed == {"block": tuple(i for i in range(12) if i not in full)}


# -- as users have it -----------------------------------------------------------------------------


@pytest.mark.parametrize("branch", range(6))
def test_features_are_kept_as_they_were_made(branch: int) -> None:
    """FreeU scales deep features in place: what is kept must not be scaled once a step.

    With the same input in every step the gate is exact, however often it reuses.
    """
    unet = tiny_unet()
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    made = torch.Generator().manual_seed(0)
    sample, text = torch.randn(2, 4, 8, 8, generator=made), torch.randn(2, 7, 16, generator=made)
    with torch.no_grad(), tg.gate(unet, "block", interval=4, branch=branch) as gating:
        outputs = [
            unet(sample, 500, encoder_hidden_states=text).sample for _ in gating.steps(range(8))
        ]
    assert all(torch.equal(outputs[0], x) for x in outputs)


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
@pytest.mark.parametrize("prompts", [1, 3])
def test_any_batch_with_or_without_guidance(kit: Any, prompts: int, guidance_scale: float) -> None:
    """Rows are counted in full, and nothing is left behind."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    before = kit.snapshot(pipe.unet)
    with tg.gate(pipe, "block", interval=2) as gating:
        for _ in range(2):
            toys.generate(pipe, embeds=toys.texts(prompts), guidance_scale=guidance_scale)
            assert gating.cache_bytes == 0
    asked = 8 * prompts * (1 if guidance_scale == 1 else 2)
    assert gating.report.rows == (asked, asked)
    assert gating.report.peak_cache_bytes > 0
    assert kit.snapshot(pipe.unet) == before


@pytest.mark.parametrize("branch", [6, 7, 100])
def test_a_branch_that_is_not_there_is_an_error(branch: int) -> None:
    """Said before anything is attached, with how many there are."""
    with pytest.raises(OptionError, match=f"branch={branch} .* has the branches 0 to 5"):
        tg.gate(tiny_unet(), "block", branch=branch)


def test_a_backbone_without_deep_blocks_is_an_error(kit: Any) -> None:
    """Rather than a gate that never closes."""
    with (
        kit.plugged(kit.AffinePlugin(), "affine"),
        pytest.raises(OptionError, match="Affine has no deep blocks"),
    ):
        tg.gate(kit.Affine(), "block")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"interval": 0}, "interval=0 must be a whole number, 1 or more"),
        ({"branch": -1}, "branch=-1 must be a whole number, 0 or more"),
        ({"center": 12}, "center=12 must be a share of the run, 0 to 1"),
        ({"power": 0}, "power=0 must be a number above 0"),
        ({"intervall": 3}, "interval"),
    ],
)
def test_a_wrong_option_is_an_error(options: dict[str, Any], sentence: str) -> None:
    """With its cure in the sentence."""
    with pytest.raises(OptionError, match=sentence):
        tg.gate(tiny_unet(), "block", **options)
