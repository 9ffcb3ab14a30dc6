"""k-diffusion samplers: no gate decision is wrong, measured against the sampler's own loop."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests import kload
from tests.kload import sampling
from tests.truth import (
    Denoiser,
    Loop,
    clock_backbone,
    evaluations,
    true_evaluations,
    wrong_decisions,
    wrong_steps,
)
from tgate_plugins.k_diffusion import EVALUATIONS, SamplerDriver
from tgate_sampling.adapter import Call
from tgate_sampling.report import Report
from tgate_sampling.sampling import Sampling
from tgate_sampling.steps import Outside, Position

pytestmark = [pytest.mark.filterwarnings(text) for text in kload.WARNINGS]

#: Samplers that take a schedule, each with the settings that move its noise levels about.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("euler", {}),
    "euler, churn": ("euler", {"s_churn": 5.0}),
    "euler, churn in the middle": ("euler", {"s_churn": 9.0, "s_tmin": 0.5, "s_tmax": 5.0}),
    "euler_ancestral": ("euler_ancestral", {}),
    "heun": ("heun", {}),
    "heun, churn": ("heun", {"s_churn": 5.0}),
    "dpm_2": ("dpm_2", {}),
    "dpm_2, churn": ("dpm_2", {"s_churn": 5.0}),
    "dpm_2_ancestral": ("dpm_2_ancestral", {}),
    "dpm_2_ancestral, eta 0": ("dpm_2_ancestral", {"eta": 0.0}),
    "lms": ("lms", {}),
    "dpmpp_2s_ancestral": ("dpmpp_2s_ancestral", {}),
    "dpmpp_2s_ancestral, eta 0": ("dpmpp_2s_ancestral", {"eta": 0.0}),
    "dpmpp_sde": ("dpmpp_sde", {}),
    "dpmpp_sde, r 1/3": ("dpmpp_sde", {"r": 1 / 3}),
    "dpmpp_2m": ("dpmpp_2m", {}),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", {}),
    "dpmpp_3m_sde": ("dpmpp_3m_sde", {}),
}

#: Their Brownian tree takes 3 ms a step, and its noise is not under test.
SDE = ("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde")

#: These two read `h` before they have set it when their first step leads to zero.
CRASH_AT_ONE = ("dpmpp_2m_sde", "dpmpp_3m_sde")

STEPS = (1, 4, 10, 30, 1000)


def full(n: int) -> torch.Tensor:
    """A whole run."""
    schedule: torch.Tensor = sampling.get_sigmas_karras(n, 0.03, 14.6)
    return schedule


def img2img(n: int) -> torch.Tensor:
    """The second half of a run of twice as many steps: it starts where the noise is half gone."""
    return full(2 * n)[n:]


def split(n: int) -> torch.Tensor:
    """The first half of such a run: it ends above zero, and the last step is a whole one."""
    return full(2 * n)[: n + 1]


SCHEDULES: dict[str, Callable[[int], torch.Tensor]] = {
    "full": full,
    "img2img": img2img,
    "split": split,
}


@pytest.fixture(autouse=True)
def _backbone() -> Iterator[None]:
    with clock_backbone(), torch.no_grad():
        yield


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """The loop of the samplers that take a schedule, and of `dpm_fast`."""
    loop = Loop()
    monkeypatch.setattr(sampling, "trange", loop)
    return loop


@pytest.fixture
def denoiser(loop: Loop) -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(loop)


def noise(level: float = 14.6) -> torch.Tensor:
    return torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(1)) * level


def gate_of(n: int, share: float) -> int:
    """A gate at the beginning, at two fifths, and at the last step of n."""
    return max(1, round(share * (n - 1)))


def wrap(sampler: Callable[..., Any], gate: int, **options: Any) -> Any:
    return tg.wrap_sampler(sampler, "fixed_step", gate_step=gate, gates=["cross"], **options)


def sampler_of(case: str, sigmas: torch.Tensor) -> Callable[..., Any]:
    """The sampler of one of `SETTINGS`, for a schedule that it can run."""
    name, settings = SETTINGS[case]
    if len(sigmas) == 2 and sigmas[1] == 0 and name in CRASH_AT_ONE:
        pytest.skip(f"{name} itself raises UnboundLocalError at one step")
    if name in SDE:
        settings = {**settings, "noise_sampler": lambda now, after: torch.zeros(())}
    return functools.partial(getattr(sampling, f"sample_{name}"), **settings)


@pytest.mark.parametrize("n", STEPS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("case", SETTINGS)
def test_no_evaluation_is_given_a_wrong_step(
    denoiser: Denoiser, case: str, schedule: str, n: int
) -> None:
    """Ours are the loop's, so any gate there is would be right; total and evaluations are too."""
    sigmas = SCHEDULES[schedule](n)
    sample = wrap(sampler_of(case, sigmas), gate_of(n, 0.4))
    sample(denoiser, noise(float(sigmas[0])), sigmas, disable=True)
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, gate_of(n, 0.4)) == []
    assert evaluations(sample.report) == true_evaluations(denoiser.truth)
    assert sample.report.total == len(sigmas) - 1 == n


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("n", [4, 10, 30])
@pytest.mark.parametrize("case", SETTINGS)
def test_no_decision_is_wrong_for_the_first_and_the_last_gate(
    denoiser: Denoiser, case: str, n: int, share: float
) -> None:
    """Not even one evaluation of the step before the gate is gated, nor one of the last missed."""
    sample = wrap(sampler_of(case, full(n)), gate_of(n, share))
    sample(denoiser, noise(), full(n), disable=True)
    assert wrong_decisions(sample.report, denoiser.truth, gate_of(n, share)) == []


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 10, 30, 1000])
def test_dpm_fast_steps_are_its_groups(
    denoiser: Denoiser, loop: Loop, monkeypatch: pytest.MonkeyPatch, n: int, eta: float
) -> None:
    """Groups of three evaluations, and a shorter end: the last gate is right as well."""
    monkeypatch.setattr(sampling, "range", loop, raising=False)
    total = n // 3 + 1
    sample = wrap(sampling.sample_dpm_fast, max(1, total - 1))
    sample(denoiser, noise(), 0.03, 14.6, n, eta=eta, disable=True)
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, max(1, total - 1)) == []
    assert evaluations(sample.report) == true_evaluations(denoiser.truth)
    assert sample.report.total == total == loop.step + 1


#: Settings of `dpm_adaptive`, and whether it rejects steps with them. Without feedback (`icoeff=0`)
#: its step is constant, which gives it as many steps as one likes.
ADAPTIVE: dict[str, tuple[dict[str, Any], bool]] = {
    "order 3": ({}, False),
    "order 2": ({"order": 2}, True),
    "rejections": ({"h_init": 3.0, "rtol": 1e-4, "atol": 1e-4}, True),
    "rejections, order 2": ({"h_init": 3.0, "rtol": 1e-3, "atol": 1e-3, "order": 2}, True),
    "ancestral": ({"eta": 1.0}, True),
    **{
        f"{n} steps": ({"icoeff": 0.0, "h_init": math.log(14.6 / 0.03) / (n - 0.5)}, False)
        for n in STEPS
    },
}


@pytest.mark.parametrize("case", ADAPTIVE)
def test_dpm_adaptive_steps_are_its_proposals(
    denoiser: Denoiser, loop: Loop, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A rejected proposal is a step as well, and an open gate stays right whatever is rejected."""
    settings, rejects = ADAPTIVE[case]
    accepts = count_proposals(loop, monkeypatch)
    sample = wrap(sampling.sample_dpm_adaptive, 3)
    sample(denoiser, noise(), 0.03, 14.6, disable=True, **settings)
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, 3) == []
    assert evaluations(sample.report) == true_evaluations(denoiser.truth)
    assert rejects == (False in accepts)
    assert sample.report.total is None


def test_dpm_adaptive_inside_a_partial(
    denoiser: Denoiser, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order is read wherever it stands."""
    count_proposals(loop, monkeypatch)
    sample = wrap(functools.partial(sampling.sample_dpm_adaptive, order=2), 3)
    sample(denoiser, noise(), 0.03, 14.6, disable=True)
    assert wrong_steps(sample.report, denoiser.truth) == []


def count_proposals(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """`dpm_adaptive` loops with `while`, and ends each round by proposing a step."""
    accepts: list[bool] = []
    propose = sampling.PIDStepSizeController.propose_step
    loop.step = 0

    def proposing(self: Any, error: Any) -> bool:
        accepts.append(bool(propose(self, error)))
        loop.step += 1
        return accepts[-1]

    monkeypatch.setattr(sampling.PIDStepSizeController, "propose_step", proposing)
    return accepts


# -- restarts -------------------------------------------------------------------------------------


def restart(
    name: str, loop: Loop, *, second_order: bool = True, calls_back: bool = True
) -> Callable[..., Any]:
    """The restart sampler of stable-diffusion-webui, under any name (arXiv 2306.14878)."""

    def restart_sampler(
        model: Any,
        x: torch.Tensor,
        sigmas: torch.Tensor,
        extra_args: Any = None,
        callback: Any = None,
        disable: bool | None = None,
        s_noise: float = 1.0,
        restart_list: dict[float, list[float]] | None = None,
    ) -> torch.Tensor:
        s_in = x.new_ones([x.shape[0]])

        def move(x: torch.Tensor, step: int, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
            denoised = model(x, old * s_in)
            d = sampling.to_d(x, old, denoised)
            if callback is not None and calls_back:
                callback({"x": x, "i": step, "sigma": new, "sigma_hat": old, "denoised": denoised})
            x_2 = x + d * (new - old)
            if new == 0 or not second_order:
                return x_2  # type: ignore[no-any-return]
            d_2 = sampling.to_d(x_2, new, model(x_2, new * s_in))
            return x + (d + d_2) / 2 * (new - old)  # type: ignore[no-any-return]

        last = None
        for step, (old, new) in enumerate(loop.over(restart_steps(sigmas, restart_list))):
            if last is not None and last < old:
                x = x + torch.randn_like(x) * s_noise * (old**2 - last**2) ** 0.5
            x = move(x, step, old, new)
            last = new
        return x

    restart_sampler.__name__ = name
    return restart_sampler


def restart_steps(
    sigmas: torch.Tensor, restart_list: dict[float, list[float]] | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(from, to) of each step; without a list there is one restart, or two from 36 steps on."""
    steps = len(sigmas) - 1
    if restart_list is None:
        restart_list = {}
        if steps >= 20:
            more, times = (9, 1) if steps < 36 else (steps // 4, 2)
            low, high = sigmas[-2].item(), sigmas[0].item()
            sigmas = sampling.get_sigmas_karras(steps - more * times, low, high)
            restart_list = {0.1: [more + 1, times, 2]}
    at = {int((sigmas - key).abs().argmin()): value for key, value in restart_list.items()}
    pairs = []
    for i in range(len(sigmas) - 1):
        pairs.append((sigmas[i], sigmas[i + 1]))
        if i + 1 in at:
            count, times, top = at[i + 1]
            high = int((sigmas - top).abs().argmin())
            if high < i + 1:
                again = sampling.get_sigmas_karras(
                    int(count), sigmas[i + 1].item(), sigmas[high].item()
                )[:-1]
                pairs += list(itertools.pairwise(again)) * int(times)
    return pairs


@pytest.mark.parametrize("gate", [1, 6, 15])
@pytest.mark.parametrize("n", [4, 10, 30, 1000])
def test_a_restart_sampler_that_is_known(denoiser: Denoiser, loop: Loop, n: int, gate: int) -> None:
    """Every step is right, and where sigma rises again all gates open for that one step."""
    sample = wrap(restart("restart_sampler", loop), gate)
    sample(denoiser, noise(), full(n), disable=True)
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, gate, opens=denoiser.rises) == []
    assert evaluations(sample.report) == true_evaluations(denoiser.truth)
    assert len(denoiser.rises) == {4: 0, 10: 0, 30: 1, 1000: 2}[n]


#: Restart samplers under a name that the table does not hold, by what they show of themselves.
UNKNOWN_RESTARTS: dict[str, tuple[dict[str, bool], dict[str, int]]] = {
    "Heun": ({}, {}),
    "Euler": ({"second_order": False}, {}),
    "Heun, hint": ({}, {"evals_per_step": 2}),
    "Heun, no callback, hint": ({"calls_back": False}, {"evals_per_step": 2}),
}


@pytest.mark.parametrize("case", UNKNOWN_RESTARTS)
@pytest.mark.parametrize("gate", [2, 6, 15])
def test_a_restart_sampler_that_is_unknown(
    denoiser: Denoiser, loop: Loop, gate: int, case: str
) -> None:
    """It is learned from its callbacks, or from a hint; a rise opens all gates for one step."""
    shown, hint = UNKNOWN_RESTARTS[case]
    sample = wrap(restart("my_restarts", loop, **shown), gate, **hint)
    again = {0.5: [4, 2, 5.0]}
    sample(denoiser, noise(), full(20), restart_list=again, disable=True)
    assert wrong_decisions(sample.report, denoiser.truth, gate, opens=denoiser.rises) == []
    assert len(denoiser.rises) == 2


def test_a_restart_sampler_that_shows_nothing(denoiser: Denoiser, loop: Loop) -> None:
    """Even without name and callback, a rise of the noise level opens all gates for one step."""
    sampler = restart("my_restarts", loop, second_order=False, calls_back=False)
    sample = wrap(sampler, 2)
    sample(denoiser, noise(), full(20), restart_list={0.5: [4, 2, 5.0]}, disable=True)
    assert wrong_decisions(sample.report, denoiser.truth, 2, opens=denoiser.rises) == []
    assert len(denoiser.rises) == 2


# -- samplers of one's own ------------------------------------------------------------------------


#: How a sampler calls back: at which points of its even (0) and odd (1) steps.
CALLS: dict[str, set[tuple[str, int]]] = {
    "before": {("before", 0), ("before", 1)},
    "start": {("start", 0), ("start", 1)},
    "end": {("end", 0), ("end", 1)},
    "twice": {("start", 0), ("end", 0), ("start", 1), ("end", 1)},
    "without i": {("start", 0), ("start", 1)},
    "no dict": {("start", 0), ("start", 1)},
    "every second": {("start", 0)},
    "never": set(),
}
OWN = [calls for calls in CALLS if calls not in ("every second", "never")]


def own_loop(loop: Loop, order: int, calls: str) -> Callable[..., Any]:
    """An Euler or Heun loop that calls back as `calls` says."""

    def mine(
        model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any = None
    ) -> torch.Tensor:
        def call(when: str, i: int) -> None:
            if (when, i % 2) in CALLS[calls]:
                callback({"without i": {}, "no dict": i}.get(calls, {"i": i}))

        for i in loop(len(sigmas) - 1):
            call("before", i)
            d = (x - model(x, sigmas[i].expand(len(x)))) / sigmas[i]
            call("start", i)
            x_2 = x + d * (sigmas[i + 1] - sigmas[i])
            if order == 2 and sigmas[i + 1] > 0:
                d_2 = (x_2 - model(x_2, sigmas[i + 1].expand(len(x)))) / sigmas[i + 1]
                x_2 = x + (d + d_2) / 2 * (sigmas[i + 1] - sigmas[i])
            x = x_2
            call("end", i)
        return x

    return mine


@pytest.mark.parametrize("n", [4, 10, 30, 1000])
@pytest.mark.parametrize("calls", [*OWN, "never"])
def test_an_euler_loop_of_ones_own(denoiser: Denoiser, loop: Loop, calls: str, n: int) -> None:
    """No decision is wrong, wherever in a step it calls back, or if it never does."""
    sample = wrap(own_loop(loop, 1, calls), gate_of(n, 0.5))
    sample(denoiser, noise(), full(n))
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, gate_of(n, 0.5)) == []


def test_an_euler_loop_with_previews(denoiser: Denoiser, loop: Loop) -> None:
    """One callback every second step: what it does is known from the second callback on."""
    sample = wrap(own_loop(loop, 1, "every second"), 4)
    sample(denoiser, noise(), full(10))
    assert wrong_steps(sample.report, denoiser.truth) == [(2, 2, 1)]
    assert wrong_decisions(sample.report, denoiser.truth, 4) == []


@pytest.mark.parametrize("n", [4, 10, 30, 1000])
@pytest.mark.parametrize("calls", OWN)
def test_a_heun_loop_of_ones_own(denoiser: Denoiser, loop: Loop, calls: str, n: int) -> None:
    """Its first two calls are Euler's, bit for bit; from the second callback on it is known."""
    sample = wrap(own_loop(loop, 2, calls), gate_of(n, 0.5))
    sample(denoiser, noise(), full(n))
    assert [w for w in wrong_steps(sample.report, denoiser.truth) if w[0] > 1] == []
    assert wrong_decisions(sample.report, denoiser.truth, gate_of(n, 0.5)) == []


@pytest.mark.parametrize("calls", [*OWN, "never"])
def test_a_hint_makes_a_heun_loop_exact(denoiser: Denoiser, loop: Loop, calls: str) -> None:
    """`evals_per_step=2` says at once what callbacks could only teach."""
    sample = wrap(own_loop(loop, 2, calls), 1, evals_per_step=2)
    sample(denoiser, noise(), full(10))
    assert wrong_steps(sample.report, denoiser.truth) == []
    assert wrong_decisions(sample.report, denoiser.truth, 1) == []


def test_without_callback_and_hint_a_heun_loop_is_half_a_step_early(
    denoiser: Denoiser, loop: Loop
) -> None:
    """The limit of what can be known: one evaluation, the corrector before the gate, is wrong."""
    sample = wrap(own_loop(loop, 2, "never"), 4)
    sample(denoiser, noise(), full(10))
    assert wrong_decisions(sample.report, denoiser.truth, 4) == [(7, 3, "cross")]


# -- planted wrong clocks -------------------------------------------------------------------------


class Shifted(SamplerDriver):
    """A clock that is some steps off."""

    shift = 0

    def locate(self, call: Call) -> Position | Outside:
        where = super().locate(call)
        assert isinstance(where, Position)
        index = max(0, where.step.index + self.shift)
        return dataclasses.replace(where, step=dataclasses.replace(where.step, index=index))


class Early(Shifted):
    shift = 1


class Late(Shifted):
    shift = -1


class CountsEvaluations(SamplerDriver):
    """The clock of everybody who counts forward calls."""

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._count = -1

    def locate(self, call: Call) -> Position | Outside:
        where = super().locate(call)
        assert isinstance(where, Position)
        self._count += 1
        step = dataclasses.replace(where.step, index=self._count, evaluation=0)
        return dataclasses.replace(where, step=step)


class Forgets(SamplerDriver):
    """A clock that does not see a noise level rise."""

    def locate(self, call: Call) -> Position | Outside:
        where = super().locate(call)
        assert isinstance(where, Position)
        return dataclasses.replace(where, rises=False)


def drive(
    clock: type[SamplerDriver], sampler: Callable[..., Any], denoiser: Denoiser, gate: int
) -> Report:
    """A run of 30 steps that `clock` drives."""
    policy = tg.get_policy("fixed_step", gate_step=gate, gates=["cross"])
    with tg.gate(denoiser.inner_model, policy) as gating:
        arguments = (denoiser, noise(), full(30))
        driver = clock(Sampling(sampler, arguments, {"disable": True}, None))
        with gating.driven_by(driver):
            driver.call()
    return gating.report


@pytest.mark.parametrize("clock", [Early, Late, CountsEvaluations])
@pytest.mark.parametrize("gate", [1, 12, 29])
def test_a_planted_wrong_clock_is_caught(
    denoiser: Denoiser, gate: int, clock: type[SamplerDriver]
) -> None:
    """The same check, on the same run, fails with a wrong clock and passes with ours."""
    wrong = drive(clock, sampling.sample_heun, denoiser, gate)
    assert wrong_decisions(wrong, denoiser.truth, gate) != []
    assert wrong_steps(wrong, denoiser.truth) != []
    denoiser.truth.clear()
    ours = drive(SamplerDriver, sampling.sample_heun, denoiser, gate)
    assert wrong_decisions(ours, denoiser.truth, gate) == []


def test_a_clock_that_forgets_restarts_is_caught(denoiser: Denoiser, loop: Loop) -> None:
    """The steps past the gate where sigma rises are exactly those it gets wrong."""
    report = drive(Forgets, restart("restart_sampler", loop), denoiser, 6)
    wrong = wrong_decisions(report, denoiser.truth, 6, opens=denoiser.rises)
    assert {step for _, step, _ in wrong} == denoiser.rises != set()


def test_every_known_sampler_is_under_test() -> None:
    """A row of the table without a truth test would be a guess."""
    tested = {f"sample_{name}" for name, _ in SETTINGS.values()}
    tested |= {"sample_dpm_fast", "sample_dpm_adaptive", "restart_sampler"}
    assert set(EVALUATIONS) - tested == {"sample_lcm", "sample_ddpm"}
