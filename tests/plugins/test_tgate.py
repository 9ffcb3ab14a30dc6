"""Reference mode: `policy="tgate"` is tgate 1.0.0, latent for latent and flag for flag."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_plugins.tgate import TGate
from tgate_sampling.settle import settle_all

ROOT = Path(__file__).parents[1] / "golden"
FAMILIES = ("sd", "sdxl", "pixart_alpha")
CASES: dict[str, dict[str, Any]] = {
    f: json.loads((ROOT / f / "cases.json").read_text()) for f in FAMILIES
}
EACH = [(family, name) for family in FAMILIES for name in sorted(CASES[family])]
TABLE: list[list[Any]] = json.loads((ROOT / "schedule_table.json").read_text())["rows"]

# diffusers' DPM-Solver hands tensors to numpy 2, which asks for an `__array__` that torch has not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: float32 accuracy; the smallest planted mistake moves the latents by 7.1e-5.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def recorded(golden_io: Any) -> dict[str, Any]:
    """The recorded cases of each family."""
    return {family: golden_io.Golden(family) for family in FAMILIES}


def schedule(case: dict[str, Any]) -> dict[str, int]:
    """T-GATE's own arguments, but for the one that says there is a single branch: we see that."""
    return {k: v for k, v in case["tgate"].items() if k != "lcm"}


def test_every_recorded_case_is_run() -> None:
    """None was lost on the way here."""
    assert {f: len(CASES[f]) for f in FAMILIES} == {"sd": 15, "sdxl": 17, "pixart_alpha": 13}


@pytest.fixture(scope="module")
def rerun(recorded: dict[str, Any]) -> Callable[[str, str], tuple[torch.Tensor, tg.Report]]:
    """Latents and report of a recorded case under our policy; each is run once."""

    @functools.cache
    def run(family: str, name: str) -> tuple[torch.Tensor, tg.Report]:
        golden = recorded[family]
        case = golden.cases[name]
        pipe = golden.pipeline(case["scheduler"])
        with tg.gate(pipe, "tgate", **schedule(case)) as gating:
            latents = golden.call(pipe, case)
        return latents, gating.report

    return run


@pytest.mark.parametrize(("family", "name"), EACH)
def test_a_recorded_case_is_reproduced(
    recorded: dict[str, Any], rerun: Any, golden_io: Any, family: str, name: str
) -> None:
    """The latents are the reference's to float32 accuracy, and no step was a guess."""
    latents, report = rerun(family, name)
    assert golden_io.relative_l2(latents, recorded[family].outputs[name]) <= TOLERANCE
    # The one thing to tell: with a single branch there is no guidance to close.
    single = "lcm" in CASES[family][name]["tgate"]
    assert [event.kind for event in report.events] == ["guidance"] * single
    assert report.complete


@pytest.mark.parametrize(("family", "name"), EACH)
def test_a_recorded_case_does_the_reference_s_work(rerun: Any, family: str, name: str) -> None:
    """Rows run and sites reused at each call are those in the reference's own trace."""
    _, report = rerun(family, name)
    calls = [c for s in report.steps for c in s.calls]
    done = [(c.ran, len(c.reused.get("cross", ())), len(c.reused.get("self", ()))) for c in calls]
    expected = [
        (work["batch"], work["ca"]["reuse"], work["sa"]["reuse"])
        for first, last, work in CASES[family][name]["trace"]
        for _ in range(first, last + 1)
    ]
    assert done == expected


@dataclasses.dataclass(frozen=True)
class OneBranch(TGate):
    """Keeps the rows that run instead of the mean of both branches."""

    merge = "cond"


@dataclasses.dataclass(frozen=True)
class RelativePlanning(TGate):
    """Counts `sp_interval` from the warm-up instead of from step 0."""

    def _at(self, c: int) -> tg.Decision:
        inside = self.warm_up < c < self.gate_step - 1
        if inside and (c - self.warm_up) % self.sp_interval:
            return tg.Decision(frozenset({"self"}))
        return tg.Decision() if inside else super()._at(c)


@dataclasses.dataclass(frozen=True)
class RelativeFidelity(TGate):
    """Counts `fi_interval` from the gate instead of from step 0."""

    def _at(self, c: int) -> tg.Decision:
        if c < self.gate_step:
            return super()._at(c)
        closed = {"guidance", "cross"} | (
            {"self"} if (c - self.gate_step) % self.fi_interval else set()
        )
        return tg.Decision(frozenset(closed), rows="uncond")


@dataclasses.dataclass(frozen=True)
class ReusesAtTheGate(TGate):
    """Reuses self-attention at the gate step itself."""

    def _at(self, c: int) -> tg.Decision:
        at_gate = c == self.gate_step - 1 and c > self.warm_up
        return tg.Decision(frozenset({"self"})) if at_gate else super()._at(c)


@dataclasses.dataclass(frozen=True)
class OtherBranch(TGate):
    """Follows the positive text after the gate."""

    def _at(self, c: int) -> tg.Decision:
        return dataclasses.replace(super()._at(c), rows="cond")


def _changed(**delta: int) -> Callable[[dict[str, Any]], TGate]:
    return lambda options: TGate(**{k: v + delta.get(k, 0) for k, v in options.items()})


def _other(kind: type[TGate]) -> Callable[[dict[str, Any]], TGate]:
    return lambda options: kind(**options)


MUTANTS: dict[str, tuple[str, Callable[[dict[str, Any]], TGate]]] = {
    "gate one step late": ("v1_g10", _changed(gate_step=1)),
    "gate one step early": ("v1_g10", _changed(gate_step=-1)),
    "warm-up one step longer": ("v2_g10", _changed(warm_up=1)),
    "warm-up one step shorter": ("v2_g10", _changed(warm_up=-1)),
    "planning interval off by one": ("v2_g10", _changed(sp_interval=1)),
    "fidelity interval off by one": ("g10_sp1_fi4_w0", _changed(fi_interval=1)),
    "one branch instead of the mean": ("v1_g10", _other(OneBranch)),
    "planning interval relative to the warm-up": ("v2_g10", _other(RelativePlanning)),
    "fidelity interval relative to the gate": ("g10_sp1_fi4_w0", _other(RelativeFidelity)),
    "self-attention reused at the gate": ("v2_g10", _other(ReusesAtTheGate)),
}


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_planted_mistake_is_caught(
    recorded: dict[str, Any], golden_io: Any, family: str, mutant: str
) -> None:
    """The comparison sees each wrong variant of the schedule: the check is checked."""
    name, plant = MUTANTS[mutant]
    golden = recorded[family]
    case = golden.cases[name]
    pipe = golden.pipeline(case["scheduler"])
    with tg.gate(pipe, plant(case["tgate"])):
        latents = golden.call(pipe, case)
    assert golden_io.relative_l2(latents, golden.outputs[name]) > TOLERANCE


def test_the_positive_branch_after_the_gate_is_caught(
    recorded: dict[str, Any], golden_io: Any
) -> None:
    """SDXL's pooled text tells which branch runs; in the other families it no longer matters."""
    golden = recorded["sdxl"]
    case = golden.cases["v2_g10"]
    pipe = golden.pipeline(case["scheduler"])
    with tg.gate(pipe, OtherBranch(**case["tgate"])):
        latents = golden.call(pipe, case)
    assert golden_io.relative_l2(latents, golden.outputs["v2_g10"]) > TOLERANCE


def flags(codes: list[int]) -> list[tuple[bool, bool, bool]]:
    """(cross reused, self reused, one branch runs) at each step, from the reference's codes.

    A code is ca_cache + 2 ca_reuse + 4 sa_cache + 8 sa_reuse + 16 keep_shape. The reference reuses
    cross-attention exactly where it runs one branch.
    """
    return [(bool(c & 2), bool(c & 8), bool(c & 2)) for c in codes]


def planned(policy: TGate, steps: int) -> list[tuple[bool, bool, bool]]:
    """The same of our plan, after legality."""
    plan = settle_all(policy.plan(steps), merge=policy.merge)  # type: ignore[arg-type]
    return [tuple(g in d.closed for g in ("cross", "self", "guidance")) for d in plan]  # type: ignore[misc]


@pytest.mark.parametrize("gate_step", sorted({row[0] for row in TABLE if row[0] >= 1}))
def test_the_schedule_is_the_reference_s_in_every_setting(gate_step: int) -> None:
    """What is reused and what runs agrees at all 26 steps of all 100 settings of each gate step."""
    rows = [row for row in TABLE if row[0] == gate_step]
    wrong = [
        (row[:4], ours, theirs)
        for row in rows
        if (ours := planned(TGate(*row[:4]), len(row[4]))) != (theirs := flags(row[4]))
    ]
    assert wrong == []
    assert len(rows) == 100
