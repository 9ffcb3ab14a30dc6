"""Every scheduler of diffusers: no gate decision is wrong, or no text-to-image pipeline takes it.

`scheduler_table` says for each class how it is tried, or why it cannot be. Its names are held
against `diffusers.schedulers` itself, so that a class that diffusers adds must be placed first.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import diffusers
import pytest
import torch
from diffusers import schedulers

import tgate_sampling as tg
from tests import pipes
from tests.conftest import load_helper
from tests.truth import (
    clock_backbone,
    evaluations,
    true_evaluations,
    wrong_decisions,
    wrong_steps,
)
from tgate_plugins.diffusers_pipeline import PipelineDriver
from tgate_sampling.backbones import adapter_for
from tgate_sampling.errors import UnsupportedBackboneError
from tgate_sampling.report import Report
from tgate_sampling.steps import gate_index

clocks = load_helper("plugins/test_diffusers_clock.py")
homes = load_helper("plugins/scheduler_homes.py")
table = load_helper("plugins/scheduler_table.py")
PLACED, Tried, Refused = table.PLACED, table.Tried, table.Refused

pytestmark = [pytest.mark.filterwarnings(text) for text in homes.WARNINGS]

STEPS = (1, 2, 3, 5, 12)
FRACTION = 0.4


@functools.cache
def scheduled(name: str, entry: Tried | Refused) -> Any:
    """The scheduler of an entry, trained as Stable Diffusion is where it has such a training."""
    kind: Any = getattr(schedulers, name)
    known = inspect.signature(kind.__init__).parameters
    trained = {key: value for key, value in pipes.TRAINED.items() if key in known}
    made = entry.subclass(kind) if isinstance(entry, Tried) else kind
    return made(**trained | dict(entry.settings))


def unplaced(names: Collection[str]) -> set[str]:
    """The scheduler classes among these names that `PLACED` says nothing of."""
    return {name for name in names if name.endswith("Scheduler")} - set(PLACED)


def cases(kind: type[Any], wanted: Callable[[Any], bool] = lambda entry: True) -> list[Any]:
    """(name, entry) of the entries of a kind whose classes this diffusers has."""
    return [
        pytest.param(name, entry, id="-".join([name, entry.home, *map(str, entry.settings)]))
        for name, entries in PLACED.items()
        if hasattr(schedulers, name)
        for entry in entries
        if isinstance(entry, kind) and wanted(entry)
    ]


# -- runs -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _backbone() -> Iterator[None]:
    with clock_backbone(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield


class Stepped(clocks.Stepped):  # type: ignore[misc]
    """Some schedulers of priors have no order."""

    def _has_finished(self) -> bool:
        return not hasattr(self.scheduler, "order") or super()._has_finished()


@contextmanager
def watched(scheduler: Any) -> Iterator[Stepped]:
    """The recorder stands in the place of the scheduler's `step`; each run begins at step 0."""
    stepped = scheduler.step = Stepped(scheduler)
    set_timesteps = scheduler.set_timesteps

    @functools.wraps(set_timesteps)
    def begin(*args: Any, **kwargs: Any) -> Any:
        stepped.done = 0
        return set_timesteps(*args, **kwargs)

    scheduler.set_timesteps = begin
    try:
        yield stepped
    finally:
        del scheduler.step, scheduler.set_timesteps


def driven(
    home: str, scheduler: Any, *runs: Mapping[str, Any], clock: Any = None
) -> list[tuple[Report, list[int]]]:
    """Runs in a row under one gating: each one's report, and the true step of its evaluations."""
    place, pipe = homes.HOMES[home], homes.made(home)
    pipe.scheduler = scheduler
    truths: list[list[int]] = []
    with ExitStack() as stack:
        stepped = stack.enter_context(watched(scheduler))
        backbone = getattr(pipe, place.backbone)
        note = backbone.register_forward_pre_hook(lambda *_: truths[-1].append(stepped.done))
        stack.enter_context(note)
        gating = stack.enter_context(tg.gate(pipe, "fixed_step", fraction=FRACTION))
        if clock is not None:
            stack.enter_context(gating.driven_by(clock(pipe)))
        for run in runs:
            truths.append([])
            place.call(pipe, **run)
    return list(zip(gating.runs, truths, strict=True))


def wrong(report: Report, truth: list[int], gates: Collection[str]) -> list[Any]:
    """Everything in which a report is not what the scheduler did."""
    total = max(truth) + 1
    gate = gate_index(total, fraction=FRACTION)
    said = (report.total, report.complete, evaluations(report))
    true = (total, True, true_evaluations(truth))
    decisions = wrong_decisions(report, truth, gate, gates=gates)
    return [*wrong_steps(report, truth), *decisions, *([] if said == true else [(said, true)])]


def all_wrong(
    name: str, entry: Tried, home: str, *runs: Mapping[str, Any], clock: Any = None
) -> list[Any]:
    """What is wrong in runs that one scheduler drives in a row, with the run it is wrong in."""
    told = driven(home, scheduled(name, entry), *runs, clock=clock)
    found = [wrong(*one, homes.HOMES[home].gates) for one in told]
    return [(run, errors) for run, errors in zip(runs, found, strict=True) if errors]


@pytest.mark.parametrize(("name", "entry"), cases(Tried))
def test_no_decision_is_wrong(name: str, entry: Tried) -> None:
    """At any number of steps, and as well in the second of two runs in a row."""
    runs = [{"steps": steps} for steps in STEPS if steps >= entry.least for _ in range(2)]
    assert all_wrong(name, entry, entry.home, *runs) == []


@pytest.mark.parametrize(("name", "entry"), cases(Tried, lambda e: e.home == "sd" and e.late))
def test_no_decision_is_wrong_in_a_run_that_starts_late(name: str, entry: Tried) -> None:
    """img2img leaves the first steps out."""
    how = [(2, 0.5), (5, 0.6), (5, 1.0), (12, 0.3), (12, 0.75)]
    runs = [{"steps": steps, "strength": part} for steps, part in how if steps >= entry.least]
    assert all_wrong(name, entry, "sd-img2img", *runs) == []


@pytest.mark.parametrize(("name", "entry"), cases(Tried, lambda e: e.home == "sd" and e.thousand))
def test_no_decision_is_wrong_in_a_run_that_ends_early(name: str, entry: Tried) -> None:
    """SDXL leaves the last steps to a refiner, which leaves the first ones out."""
    assert all_wrong(name, entry, "sdxl", {"steps": 12, "denoising_end": 0.6}) == []
    if entry.late:
        refined = {"steps": 12, "denoising_start": 0.6}
        assert all_wrong(name, entry, "sdxl-img2img", refined) == []


@pytest.mark.parametrize(("name", "entry"), cases(Tried, lambda e: bool(e.given)))
def test_no_decision_is_wrong_with_a_schedule_of_the_users_own(name: str, entry: Tried) -> None:
    """Timesteps or noise levels that the caller chose, twice in a row."""
    for given in entry.given:
        (schedule,) = given.values()
        runs = [{"steps": len(schedule), **given}] * 2
        assert all_wrong(name, entry, entry.home, *runs) == []


@pytest.mark.parametrize(("name", "entry"), cases(Tried))
def test_a_schedulers_evaluations_are_foreseen(name: str, entry: Tried) -> None:
    """What `explain` predicts from is what the scheduler then does."""
    runs = [{"steps": steps} for steps in (2, 5) if steps >= entry.least]
    told = driven(entry.home, scheduled(name, entry), *runs)
    driver = PipelineDriver(homes.made(entry.home))
    foreseen = [list(driver.evaluations(**run)) for run in runs]
    assert foreseen == [list(true_evaluations(truth).values()) for _, truth in told]


# -- whether the table is whole -------------------------------------------------------------------


def uvit() -> Any:
    """The backbone of Amused, as small as it gets."""
    sixteen = (
        "hidden_size cond_embed_dim encoder_hidden_size vocab_size codebook_size in_channels"
        " block_out_channels intermediate_size"
    )
    one = "num_res_blocks block_num_heads num_hidden_layers num_attention_heads"
    return diffusers.UVit2DModel(
        **dict.fromkeys(sixteen.split(), 16),
        **dict.fromkeys(one.split(), 1),
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
    )


#: Backbones of the pipelines that refused schedulers belong to.
BARE: dict[str, Callable[[], Any]] = {
    "UVit2DModel": uvit,
    "StableCascadeUNet": homes.models.MODELS["StableCascadeUNet"].build,
}


def test_every_class_is_placed() -> None:
    """A class that diffusers adds fails here until somebody says how it is to be tried."""
    assert unplaced(dir(schedulers)) == set()
    assert unplaced([*dir(schedulers), "NewScheduler"]) == {"NewScheduler"}


@pytest.mark.parametrize(("name", "entry"), cases(Refused))
def test_a_refused_scheduler_drives_no_run(name: str, entry: Refused) -> None:
    """A pipeline that is given it fails."""
    with pytest.raises(entry.error, match=entry.says):
        driven(entry.home, scheduled(name, entry), {"steps": 20})


@pytest.mark.parametrize("kind", BARE)
def test_the_pipelines_of_refused_schedulers_cannot_be_gated(kind: str) -> None:
    """Those that make pictures from text have backbones that no adapter knows."""
    with pytest.raises(UnsupportedBackboneError, match=f"no adapter knows {kind}"):
        adapter_for(BARE[kind]())


@pytest.mark.parametrize("keyword", ["timesteps", "sigmas"])
def test_schedules_of_the_users_own_are_tried_wherever_they_are_taken(keyword: str) -> None:
    """Each class whose `set_timesteps` has the keyword is given one, or refuses it."""
    for name, entries in PLACED.items():
        tried = [entry for entry in entries if isinstance(entry, Tried)]
        kind = getattr(schedulers, name, None)
        if not tried or keyword not in inspect.signature(kind.set_timesteps).parameters:
            continue
        if (name, keyword) in table.NEVER_GIVEN:
            given, words = table.NEVER_GIVEN[name, keyword]
            with pytest.raises((TypeError, ValueError), match=words):
                driven(tried[0].home, scheduled(name, tried[0]), {"steps": 5, **given})
        else:
            assert any(keyword in given for entry in tried for given in entry.given), name


# -- planted wrong clocks -------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["Early", "Late", "CountsEvaluations"])
@pytest.mark.parametrize(
    "name",
    [
        "DPMSolverSDEScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "PNDMScheduler",
    ],
)
def test_a_planted_wrong_clock_is_caught(name: str, clock: str) -> None:
    """The same check, on the same run, fails with a wrong clock and passes with ours."""
    entry = PLACED[name][0]
    assert isinstance(entry, Tried)
    run = {"steps": 12}
    assert all_wrong(name, entry, entry.home, run, clock=getattr(clocks, clock)) != []
    assert all_wrong(name, entry, entry.home, run, clock=PipelineDriver) == []
