"""Every tiny pipeline, gated: the latents an oracle says, the rows and events a table says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.cache import Slot

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS, GATE, CLOSE = gated.STEPS, gated.GATE, gated.CLOSE
CLOSED = range(GATE, STEPS)

#: Policies under which every gate stays open, though the second one might close both.
OPEN: dict[str, dict[str, Any]] = {
    "never": {"policy": "never"},
    "late": {"policy": "fixed_step", "gate_step": 99},
}

#: Pipelines with two branches in one call.
SWAPPED = {"uncond_first": "cond_first", "cond_first": "uncond_first"}
PAIRS = [n for n, r in pipelines.PIPELINES.items() if r.layout in SWAPPED and n != "ledits"]


@pytest.fixture(params=pipelines.PIPELINES)
def row(request: pytest.FixtureRequest) -> Any:
    """One row of the table after the other."""
    return pipelines.PIPELINES[request.param]


def right(row: Any, scene: str, **how: Any) -> torch.Tensor:
    """The oracle's latents for a scene."""
    asked = gated.SCENES[scene]
    how = {"estimator": asked["estimator"]} | how
    return gated.expected(row, gated.made(row.name), CLOSED, asked["gates"], steps=STEPS, **how)


@pytest.mark.parametrize("policy", OPEN)
def test_open_gates_are_not_there(row: Any, policy: str) -> None:
    """Latents are the bare pipeline's to the bit, by as many backbone calls of as many rows."""
    pipe, bare = gated.made(row.name), gated.bare(row.name)
    run = gated.run(row, pipe, {"steps": STEPS}, **OPEN[policy])
    assert torch.equal(run.latents, bare)
    assert run.forwards == gated.rows_of(row, STEPS)
    assert run.report.closed == {}
    assert run.report.rows[0] == run.report.rows[1]


@pytest.mark.parametrize("scene", gated.SCENES)
def test_latents_are_the_oracle_s(row: Any, scene: str) -> None:
    """To the bit where each branch has a call of its own, or no branch goes."""
    run, truth = gated.outcome(row.name, scene), right(row, scene)
    narrower = "guidance" in run.report.closed and row.layout != "separate"
    assert oracles.distance(run.latents, truth) <= (CLOSE if narrower else 0)


@pytest.mark.parametrize("scene", gated.SCENES)
def test_the_report_says_what_was_done(row: Any, scene: str) -> None:
    """Rows that ran are those counted at the backbone; gates, steps and events are the table's."""
    run, gates = gated.outcome(row.name, scene), gated.SCENES[scene]["gates"]
    closed = gated.own_steps(row, CLOSED)
    able = [g for g in ("guidance", "cross") if g in gated.closable(row) & set(gates)]
    shut = closed if "guidance" in able else ()
    assert run.report.closed == dict.fromkeys(able, closed)
    assert run.forwards == gated.rows_of(row, STEPS, shut)
    asked, saved = gated.rows_of(row, STEPS), sum(run.forwards)
    others = sum(row.rows_a_step()) * (STEPS - len(gated.own_steps(row, range(STEPS))))
    aside = row.prelude * STEPS + others  # what came before the run, and what another expert did
    assert run.report.rows == (saved - aside, sum(asked) - aside)
    assert [step.index for step in run.report.steps] == list(gated.own_steps(row, range(STEPS)))
    assert run.report.total == STEPS
    assert run.report.complete


@pytest.mark.parametrize("scene", gated.SCENES)
def test_there_are_no_events_but_the_table_s(row: Any, scene: str) -> None:
    """What a pipeline forbids is one event with its reason; what it allows goes without a word."""
    run, gates = gated.outcome(row.name, scene), gated.SCENES[scene]["gates"]
    told = gated.EVENTS.get(row.name)
    heard = told is not None and (told[0] != "guidance" or "guidance" in gates)
    gated.check_events(run.report, *([told] if heard else []))
    # LEdits++ inverts a picture before it samples: these calls are no part of a run.
    assert run.outside == (["outside"] if row.prelude else [])


@pytest.mark.parametrize("scene", gated.SCENES)
def test_the_second_run_is_the_first(row: Any, scene: str) -> None:
    """To the bit: nothing of a run reaches the next."""
    run = gated.outcome(row.name, scene)
    assert torch.equal(*run.runs)


def test_gates_that_close_can_be_seen(row: Any) -> None:
    """Every closed gate moves the latents by more than batch sizes do: an oracle can miss none."""
    for scene in gated.SCENES:
        run = gated.outcome(row.name, scene)
        moved = oracles.distance(run.latents, gated.bare(row.name))
        if "guidance" in run.report.closed:
            assert moved > 3 * CLOSE
        else:
            same = not run.report.closed or row.name in gated.ONE_TOKEN
            assert (moved == 0) == same


def test_cross_attention_is_where_the_table_says(row: Any) -> None:
    """The modules that are given a context of their own: none in joint transformers."""
    with oracles.replayed(row, gated.made(row.name), ()) as replayer:
        row.call(gated.made(row.name), steps=2)
    assert bool(replayer.kept) == (row.name not in gated.JOINT)


def test_nothing_is_left_behind(row: Any) -> None:
    """Classes, attributes, hooks, forwards, state-dict keys and latents are as before."""
    pipe, bare = gated.made(row.name), gated.bare(row.name)
    before = gated.kit.snapshot(row.denoiser(pipe))
    gated.run(row, pipe, {"steps": 3}, "fixed_step", gate_step=1)
    assert gated.kit.snapshot(row.denoiser(pipe)) == before
    assert torch.equal(row.call(pipe, steps=STEPS), bare)


@pytest.mark.parametrize("name", PAIRS)
def test_the_oracle_notices_a_wrong_layout(name: str) -> None:
    """A gating that is told the branches lie the other way gives other latents."""
    row, gates = pipelines.PIPELINES[name], ("guidance",)
    swapped = {"layout": SWAPPED[row.layout], "gate_step": GATE, "gates": gates}
    run = gated.run(row, gated.made(name), {"steps": STEPS}, "fixed_step", **swapped)
    assert oracles.distance(run.latents, right(row, "hold")) > 3 * CLOSE
    # ... and those of an oracle that is told the same.
    wrong = right(row, "hold", layout=swapped["layout"])
    assert oracles.distance(run.latents, wrong) <= CLOSE


@pytest.mark.parametrize("name", ["sd", "pixart-sigma", "wan", "modular-sdxl"])
def test_the_oracle_notices_a_stale_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-attention of the step before the last open one is found out."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    keep = Slot.keep

    def keep_the_first(self: Slot, site: str, value: Any, branches: Any) -> None:
        if site not in self.kept:
            keep(self, site, value, branches)

    def at_two(step: tg.StepContext) -> set[str]:  # without a plan it stores in every open step
        return {"cross"} if step.index >= GATE else set()

    assert torch.equal(gated.run(row, pipe, {"steps": STEPS}, at_two).latents, right(row, "cross"))
    monkeypatch.setattr(Slot, "keep", keep_the_first)
    run = gated.run(row, pipe, {"steps": STEPS}, at_two)
    assert oracles.distance(run.latents, right(row, "cross")) > 0


@pytest.mark.parametrize("name", ["sd", "pixart-sigma", "ltx"])
def test_the_oracle_notices_the_wrong_branch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-attention of uncond handed to cond, once cond runs alone, is found out."""
    row = pipelines.PIPELINES[name]

    def other(layout: tuple[str, ...], branch: str, rows: int) -> slice:
        size = rows // len(layout)
        start = (len(layout) - 1 - layout.index(branch)) * size
        return slice(start, start + size)

    monkeypatch.setattr("tgate_sampling.cache.block", other)
    asked = {"gate_step": GATE, **gated.SCENES["both"]}
    run = gated.run(row, gated.made(name), {"steps": STEPS}, "fixed_step", **asked)
    assert oracles.distance(run.latents, right(row, "both")) > CLOSE


def test_the_count_notices_a_gate_that_saves_nothing() -> None:
    """Rows are counted at the backbone: a run in full with the right latents has too many."""
    row, pipe = pipelines.PIPELINES["wan"], gated.made("wan")
    with oracles.forwards(row, pipe) as rows:
        right(row, "hold")
    assert rows != gated.rows_of(row, STEPS, CLOSED)
