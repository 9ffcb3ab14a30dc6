"""Estimators in whole runs: where an estimator is right, the gated run is the full run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import kload, pipes
from tests.compose import toys
from tests.kload import sampling
from tgate_plugins.k_diffusion import SAMPLERS, SamplerDriver
from tgate_sampling import guidance
from tgate_sampling.errors import OptionError
from tgate_sampling.guidance import ESTIMATORS
from tgate_sampling.testing import tiny_unet

pytestmark = [pytest.mark.filterwarnings(text) for text in (*pipes.WARNINGS, *kload.WARNINGS)]

NAMES = tuple(ESTIMATORS)
SCHEDULERS = ("ddim", "euler", "dpmpp_2m", "heun", "pndm")
STEPS = 8

#: Two fixed directions for deltas, small against the samples.
A, B = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9)) / 10

#: For each estimator a delta that it estimates exactly.
EXACT: dict[str, toys.Delta] = {
    "none": lambda cond, level: torch.zeros_like(cond),
    "hold": lambda cond, level: A.expand_as(cond),
    "decay": lambda cond, level: A * (guidance.DECAY * level).exp(),
    "forecast": lambda cond, level: A + level * B,
    "linear": lambda cond, level: A + 0.5 * cond,
}


@pytest.fixture(autouse=True)
def _oracle() -> Iterator[None]:
    with toys.oracle_backbone(), torch.no_grad():
        yield


@pytest.fixture
def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators without the caution that makes them inexact on purpose."""
    monkeypatch.setattr(guidance, "BELIEF", 1.0)
    monkeypatch.setattr(guidance, "REACH", 100.0)
    monkeypatch.setattr(guidance, "RIDGE", 0.0)


def oracle(name: str) -> toys.Oracle:
    unet: toys.Oracle = toys.Oracle()
    unet.delta = EXACT[name]
    return unet


def full_and_gated(
    run: Callable[[], torch.Tensor], target: Any, **options: Any
) -> tuple[torch.Tensor, torch.Tensor, tg.Report]:
    """The ungated result, the result with guidance looked at every second step, and its report."""
    full = run()
    with tg.gate(target, "interleave", every=2, warm_up=3, **options) as gating:
        gated = run()
    return full, gated, gating.report


# -- an estimator that is right loses nothing -----------------------------------------------------

FORMULAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rescaled": {"guidance_rescale": 0.7},
    "two prompts": {"embeds": toys.texts(2)},
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("believing")
def test_a_right_estimate_reproduces_the_full_run(name: str, scheduler: str) -> None:
    """Every scheduler of diffusers: second evaluations and repeated steps have their own level."""
    pipe = pipes.pipeline(oracle(name), toys.scheduler(scheduler))
    full, gated, report = full_and_gated(
        lambda: toys.generate(pipe, embeds=toys.texts()), pipe, estimator=name
    )
    torch.testing.assert_close(gated, full, rtol=1e-5, atol=1e-5)
    assert report.rows[0] < report.rows[1]
    assert report.events == ()


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("believing")
def test_estimators_act_below_the_guidance_formula(name: str, formula: str) -> None:
    """The pipeline sees both branches, so rescaling and every other formula stay right."""
    pipe = pipes.pipeline(oracle(name), toys.scheduler("ddim"))
    settings = {"embeds": toys.texts()} | FORMULAS[formula]
    full, gated, report = full_and_gated(
        lambda: toys.generate(pipe, **settings), pipe, estimator=name
    )
    torch.testing.assert_close(gated, full, rtol=1e-5, atol=1e-5)
    assert report.closed["guidance"] == (3, 5, 7)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "dpmpp_2s_ancestral", "dpmpp_2m"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("believing")
def test_a_right_estimate_reproduces_a_k_diffusion_sampler(name: str, sampler: str) -> None:
    """Also at second evaluations, whose noise level lies below their step's."""
    cond, uncond = toys.texts()
    unet = oracle(name)
    model = tg.UNetDenoiser(
        unet,
        toys.ALPHAS,
        cond=cond,
        uncond=uncond,
        guidance_scale=4.0,
        prediction_type="v_prediction",
    )
    sigmas = sampling.get_sigmas_karras(STEPS, 0.05, 14.0)
    function = getattr(sampling, f"sample_{sampler}")

    def noise() -> torch.Tensor:
        torch.manual_seed(3)  # ancestral samplers draw from the global generator
        return torch.randn(1, 4, 8, 8) * sigmas[0]

    full = function(model, noise(), sigmas, disable=True)
    sample = tg.wrap_sampler(function, "interleave", every=2, warm_up=3, estimator=name)
    gated = sample(model, noise(), sigmas, disable=True)
    torch.testing.assert_close(gated, full, rtol=2e-5, atol=2e-5)
    assert sample.report.rows[0] < sample.report.rows[1]
    assert sample.report.events == ()


def test_the_wrong_assumption_does_lose() -> None:
    """The test above can fail: `hold` misses a delta that moves, `forecast` one that bends."""
    for name, delta in (("hold", EXACT["forecast"]), ("forecast", lambda c, s: A * (3 * s).sin())):
        unet = toys.Oracle()
        unet.delta = delta
        pipe = pipes.pipeline(unet, toys.scheduler("ddim"))
        full, gated, _ = full_and_gated(
            lambda pipe=pipe: toys.generate(pipe, embeds=toys.texts()), pipe, estimator=name
        )
        assert float((full - gated).abs().max()) > 1e-3


# -- noise levels of second evaluations -----------------------------------------------------------


@pytest.mark.parametrize("name", [s for s in SAMPLERS if s not in ("dpm_fast", "dpm_adaptive")])
def test_an_evaluation_s_level_is_the_one_it_was_made_at(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock tells estimators the sigma that the sampler handed its model, within a step too."""
    told: list[float | None] = []
    made: list[float] = []
    locate = SamplerDriver.locate

    def located(self: SamplerDriver, call: Any) -> Any:
        where: Any = locate(self, call)
        told.append(where.step.sigma)
        return where

    monkeypatch.setattr(SamplerDriver, "locate", located)
    unet, (cond, _) = toys.Oracle(), toys.texts()

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        made.append(float(sigma[0]))
        denoised: torch.Tensor = unet(x, 10.0, encoder_hidden_states=cond)[0]
        return denoised

    sigmas = sampling.get_sigmas_karras(5, 0.05, 14.0)
    tg.wrap_sampler(name, "interleave", backbone=unet, layout="single")(
        model, torch.ones(1, 4, 8, 8), sigmas, disable=True
    )
    assert len(made) >= 5
    assert told == pytest.approx(made, rel=1e-6)


# -- planned and live policies --------------------------------------------------------------------


PLANNED: dict[str, dict[str, Any]] = {
    "fixed_step": {"gate_step": 3, "gates": ("guidance", "cross", "self")},
    "interleave": {"every": 3, "warm_up": 2, "gates": ("guidance", "cross")},
    "guidance_interval": {"start": 0.25, "stop": 0.75},
}


@pytest.mark.parametrize("refresh", [None, 2])
@pytest.mark.parametrize("scheduler", ["ddim", "heun"])
@pytest.mark.parametrize("policy", PLANNED)
@pytest.mark.parametrize("name", NAMES)
def test_a_plan_changes_no_latent(
    name: str, policy: str, scheduler: str, refresh: int | None
) -> None:
    """A policy that says beforehand what it will do stores less, and reads the same."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler(scheduler))
    planned = tg.get_policy(policy, **PLANNED[policy])
    results, reports = [], []
    for chosen in (planned, toys.live(planned)):
        with tg.gate(pipe, chosen, estimator=name, refresh=refresh) as gating:
            results.append(toys.generate(pipe))
        reports.append(gating.report)
    assert torch.equal(*results)
    assert reports[0].closed == reports[1].closed
    assert "guidance" in reports[0].closed
    assert reports[0].peak_cache_bytes <= reports[1].peak_cache_bytes


def test_a_plan_changes_no_latent_of_the_reference_schedule() -> None:
    """`tgate`, with self-attention reused in its planning phase."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    planned = tg.get_policy("tgate", gate_step=5, sp_interval=2, fi_interval=2, warm_up=1)
    results = []
    for chosen in (planned, toys.live(planned)):
        with tg.gate(pipe, chosen):
            results.append(toys.generate(pipe, steps=10))
    assert torch.equal(*results)


# -- refresh --------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_made", [lambda p: p, toys.live], ids=["planned", "live"])
@pytest.mark.parametrize(
    ("refresh", "closed"), [(None, (2, 3, 4, 5, 6, 7)), (2, (2, 4, 6)), (3, (2, 3, 5, 6))]
)
@pytest.mark.parametrize("name", NAMES)
def test_refresh_looks_again_every_so_many_steps(
    name: str, refresh: int | None, closed: tuple[int, ...], as_made: Any
) -> None:
    """And what re-opens guidance re-opens cross-attention, whose kept rows are of one branch."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    policy = as_made(tg.get_policy("fixed_step", gate_step=2))
    with tg.gate(pipe, policy, estimator=name, refresh=refresh) as gating:
        toys.generate(pipe, steps=STEPS)
    report = gating.report
    assert report.closed == {"guidance": closed, "cross": closed}
    assert report.rows == (2 * STEPS - len(closed), 2 * STEPS)
    assert report.events == ()


@pytest.mark.parametrize("as_made", [lambda p: p, toys.live], ids=["planned", "live"])
def test_refresh_at_every_step_leaves_guidance_open(as_made: Any) -> None:
    """It never closes, so cross-attention, kept for both branches, need not re-open either."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    policy = as_made(tg.get_policy("fixed_step", gate_step=2))
    with tg.gate(pipe, policy, refresh=1) as gating:
        toys.generate(pipe, steps=STEPS)
    assert gating.report.closed == {"cross": (2, 3, 4, 5, 6, 7)}
    assert gating.report.events == ()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "none"])
def test_refresh_works_whatever_the_estimator(name: str) -> None:
    """A look every second step comes closer to the full run than none after the gate."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    full, errors = toys.generate(pipe), []
    for refresh in (2, None):
        with tg.gate(pipe, "fixed_step", gate_step=2, estimator=name, refresh=refresh):
            errors.append(float((toys.generate(pipe) - full).norm()))
    assert errors[0] < errors[1]


# -- merge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_goes_with_none_alone(name: str) -> None:
    """With the mean in both branches cond - uncond is zero, and any other estimator would lie."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    if name != "none":
        with pytest.raises(OptionError, match=f"merge='mean' cannot go with estimator='{name}'"):
            tg.gate(pipe, "fixed_step", gate_step=2, estimator=name, merge="mean")
        return
    with tg.gate(pipe, "fixed_step", gate_step=2, estimator=name, merge="mean") as gating:
        assert toys.generate(pipe).isfinite().all()
    assert gating.report.events == ()


@pytest.mark.parametrize("name", NAMES)
def test_one_branch_or_both_kept_is_the_same_picture(name: str) -> None:
    """`both` costs memory and changes nothing while guidance stays closed."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    results, peaks = [], []
    for merge in ("cond", "both"):
        with tg.gate(pipe, "fixed_step", gate_step=3, estimator=name, merge=merge) as gating:
            results.append(toys.generate(pipe))
        peaks.append(gating.report.peak_cache_bytes)
    assert torch.equal(*results)
    assert peaks[0] <= peaks[1]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "none"])
def test_the_uncond_rows_alone_estimate_nothing(name: str) -> None:
    """A policy that runs the negative prompt's rows goes with `none` alone."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    with pytest.raises(OptionError, match=f"cannot go with estimator='{name}'"):
        tg.gate(pipe, "tgate", gate_step=3, estimator=name)


# -- negative prompts, calls without guidance -----------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n != "none"])
def test_the_negative_prompt_still_counts_after_the_gate(name: str) -> None:
    """Another negative prompt, another image, though it is read before the gate only."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    cond, uncond = toys.texts()
    with tg.gate(pipe, "fixed_step", gate_step=3, estimator=name):
        one = toys.generate(pipe, embeds=(cond, uncond))
        other = toys.generate(pipe, embeds=(cond, -uncond))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_without_guidance_there_is_nothing_to_estimate(name: str) -> None:
    """guidance_scale=1 runs one branch throughout, and is left as it is."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    bare = toys.generate(pipe, guidance_scale=1.0)
    with tg.gate(pipe, "interleave", estimator=name) as gating:
        assert torch.equal(toys.generate(pipe, guidance_scale=1.0), bare)
    assert gating.report.rows == (STEPS, STEPS)
    assert [e.kind for e in gating.report.events] == ["guidance"]  # it has nothing to close


@pytest.mark.parametrize("name", NAMES)
def test_call_after_call_each_run_is_its_own(name: str) -> None:
    """Nothing of a run, looks least of all, is left to the next."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    with tg.gate(pipe, "interleave", estimator=name) as gating:
        first = toys.generate(pipe)
        toys.generate(pipe, seed=8)
        assert torch.equal(toys.generate(pipe), first)
        assert gating.cache_bytes == 0
    assert len(gating.runs) == 3


@pytest.mark.parametrize("estimator", ["forecast", "linear", "decay"])
def test_an_estimator_named_by_the_closing_steps_alone_is_served_by_the_open_ones(
    estimator: str,
) -> None:
    """A plan is read whole: looks keep what any of its steps will rest on."""

    class Named(tg.Policy):
        gates = ("guidance",)

        def plan(self, total: int) -> list[tg.Decision]:
            closed = tg.Decision(frozenset({"guidance"}), estimator=estimator)
            return [closed if i in (3, 5, 6) else tg.Decision() for i in range(total)]

    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))
    with tg.gate(pipe, Named()):
        named = toys.generate(pipe, steps=8)
    with tg.gate(pipe, Named(), estimator=estimator):
        assert torch.equal(toys.generate(pipe, steps=8), named)


def test_a_live_policy_that_names_an_estimator_too_late_is_told() -> None:
    """What acts as `hold` for want of looks is an event, not a silence."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))

    @tg.policy(name="late_namer", gates=("guidance",))
    def late(step: tg.StepContext) -> tg.Decision:
        if step.index < 4:
            return tg.Decision()
        return tg.Decision(frozenset({"guidance"}), estimator="linear")

    with tg.gate(pipe, late) as gating:
        toys.generate(pipe, steps=6)
    (event,) = gating.report.events
    assert "acts as 'hold'" in event.message
