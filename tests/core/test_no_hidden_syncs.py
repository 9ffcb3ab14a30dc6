"""Promise 7: fixed policies never wait for the device, adaptive ones at most once a step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import diffusers
import pytest
import torch

import tgate_sampling as tg
from tgate_sampling import run
from tgate_sampling.testing import tiny_unet

#: Operators that make the host wait for an accelerator.
WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "unique")

FIXED: dict[str, dict[str, Any]] = {
    "never": {"policy": "never"},
    "hold": {"policy": "fixed_step", "gate_step": 3},
    "refresh": {"policy": "fixed_step", "gate_step": 3, "refresh": 2, "merge": "both"},
    "none": {"policy": "fixed_step", "fraction": 0.5, "estimator": "none", "merge": "mean"},
    "tgate": {"policy": "tgate", "gate_step": 3, "sp_interval": 2, "fi_interval": 2},
}

ADAPTIVE: dict[str, dict[str, Any]] = {
    "convergence": {"policy": "convergence", "threshold": 1e-6},
    "cosine_delta": {"policy": "cosine_delta", "min_cosine": 1.0, "max_delta": 1e-9},
}

STEPS = 10


class Waits:
    """Counts the ways in which a host can wait for a device, while `watching`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kit: Any) -> None:
        self.found: Counter[str] = Counter()
        self.watching = False
        self._kit = kit
        # These two need no dispatch on a CPU, so that the mode below does not see them there.
        for name in ("tolist", "item", "numpy", "__float__", "__int__", "__bool__", "__index__"):
            monkeypatch.setattr(torch.Tensor, name, self._counting(name))

    def _counting(self, name: str) -> Any:
        whole = getattr(torch.Tensor, name)

        def counted(tensor: torch.Tensor, *args: Any) -> Any:
            self.note(name)
            return whole(tensor, *args)

        return counted

    def note(self, name: str) -> None:
        if self.watching:
            self.found[name] += 1

    def around(self, unet: Any) -> None:
        """Watch whatever happens from before the first hook of each call to after the last."""
        mode = self._kit.Watch(self._seen)

        def before(*_: Any) -> None:
            self.watching = True
            mode.__enter__()

        def after(*_: Any) -> None:
            mode.__exit__(None, None, None)
            self.watching = False

        unet.register_forward_pre_hook(before, prepend=True)
        unet.register_forward_hook(after)

    def _seen(self, operator: Any, args: Any, result: Any) -> None:
        name = str(operator).split(".")[1]
        moved = isinstance(result, torch.Tensor) and any(
            isinstance(a, torch.Tensor) and a.device != result.device for a in args
        )
        if name in WAITING or (moved and not result.is_meta):
            self.note(f"aten.{name}")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch, kit: Any) -> Waits:
    return Waits(monkeypatch, kit)


@pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)
def test_a_fixed_policy_never_waits_in_a_pipeline(
    kit: Any, waits: Waits, options: dict[str, Any]
) -> None:
    """No operator of a whole gated run, hooks included, reads a value on the host."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **options)
    waits.around(pipe.unet)
    kit.call(pipe, steps=STEPS)
    gating.detach()
    assert waits.found == {}
    assert len(gating.report.steps) == STEPS


@pytest.mark.parametrize("steps", [6, 10])
@pytest.mark.parametrize("estimator", ["decay", "forecast", "linear"])
def test_an_estimator_that_asks_for_noise_levels_waits_once_a_run(
    kit: Any, waits: Waits, estimator: str, steps: int
) -> None:
    """The scheduler's timesteps and alphas are read once, however many steps there are."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, "interleave", estimator=estimator)
    waits.around(pipe.unet)
    kit.call(pipe, steps=steps)
    gating.detach()
    assert waits.found == {"tolist": 2}
    assert gating.report.closed


@pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)
def test_a_fixed_policy_never_waits_in_a_loop(
    kit: Any, waits: Waits, options: dict[str, Any]
) -> None:
    """The same for `gating.steps` over a tensor of timesteps, the loop's own moves included."""
    unet = tiny_unet()
    with tg.gate(unet, layout="uncond_first", **options) as gating, kit.Watch(waits._seen):
        waits.watching = True
        kit.walk(unet, torch.linspace(901, 1, STEPS).long(), gating=gating)
        waits.watching = False
    assert waits.found == {}


@pytest.mark.parametrize("options", ADAPTIVE.values(), ids=ADAPTIVE)
def test_an_adaptive_policy_waits_once_a_step(
    kit: Any, waits: Waits, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals are read in one place, one transfer a step, and nothing else waits."""
    reads = []
    whole = run.read
    monkeypatch.setattr(run, "read", lambda *a: (reads.append(1), whole(*a))[1])
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, **options)
    waits.around(pipe.unet)
    kit.call(pipe, steps=STEPS)
    gating.detach()
    # The first step has nothing to compare itself with, and nobody asks after the last one.
    assert len(reads) == STEPS - 2
    assert waits.found == {"tolist": len(reads)}


@pytest.mark.parametrize("estimator", ["decay", "forecast"])
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
# diffusers' schedulers hand tensors to numpy 2, which asks for an `__array__` that torch has not.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
def test_noise_levels_are_read_once_a_run(
    kit: Any, waits: Waits, scheduler: str, estimator: str
) -> None:
    """Estimators that ask for sigma at every evaluation cost one copy of the schedule."""
    pipe = kit.make_pipe()
    settings = {k: v for k, v in kit.SCHEDULER.items() if k.startswith("beta")}
    pipe.scheduler = getattr(diffusers, scheduler)(**settings)
    gating = tg.attach(pipe, "interleave", estimator=estimator)
    waits.around(pipe.unet)
    kit.call(pipe, steps=STEPS)
    gating.detach()
    assert waits.found == {"tolist": 2}  # timesteps, and sigmas or cumulative alphas


def test_noise_levels_given_as_a_tensor_are_read_once(kit: Any, waits: Waits) -> None:
    """gating.steps(..., sigmas=tensor) copies it before the loop, and asks no more."""
    unet = tiny_unet()
    sigmas = torch.linspace(9, 1, STEPS)
    with tg.gate(unet, "interleave", layout="uncond_first") as gating:
        steps = gating.steps(list(range(STEPS, 0, -1)), sigmas=sigmas)
        waits.watching = True
        with kit.Watch(waits._seen):
            kit.walk(unet, steps)
        waits.watching = False
    assert waits.found == {}
    assert gating.report.rows[0] < gating.report.rows[1]


def test_an_adaptive_policy_stops_measuring_once_it_has_closed(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step after the gate costs a read."""
    reads = []
    whole = run.read
    monkeypatch.setattr(run, "read", lambda *a: (reads.append(1), whole(*a))[1])
    pipe = kit.make_pipe()
    with tg.gate(pipe, "convergence", threshold=10.0, patience=1) as gating:
        kit.call(pipe, steps=STEPS)
    assert gating.report.closed["cross"] == tuple(range(2, STEPS))
    assert len(reads) == 1


def test_the_check_sees_a_wait(kit: Any, waits: Waits) -> None:
    """A policy that reads a tensor at each step is caught."""
    flag = torch.tensor(True)
    pipe = kit.make_pipe()

    def rude(step: tg.StepContext) -> bool:
        return bool(flag) and flag.item() and False

    gating = tg.attach(pipe, rude)
    waits.around(pipe.unet)
    kit.call(pipe, steps=STEPS)
    gating.detach()
    assert waits.found["__bool__"] == STEPS
    assert waits.found["item"] == STEPS
