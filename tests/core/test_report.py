"""Promise 9: what a report says is what was decided, done and spent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest

import tgate_sampling as tg
from tgate_sampling.errors import NoRunError, OptionError
from tgate_sampling.testing import tiny_unet

STEPS, GATE = 10, 4


@pytest.fixture(scope="module")
def gating(kit: Any) -> Any:
    """A finished gating with one guided image."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=GATE, refresh=4) as done:
        kit.call(pipe, prompts=2, steps=STEPS)
    return done


def test_the_text_holds_every_figure(gating: Any) -> None:
    """Rows, MACs per gate, filling, memory, and a strip of steps per gate."""
    report = gating.report
    lines = str(report).splitlines()
    assert lines[0].startswith(
        "fixed_step(gate_step=4) on UNet2DConditionModel (diffusers-unet): 10 steps, "
    )
    assert "backbone rows  30 of 40" in lines
    (macs,) = [line for line in lines if line.startswith("MACs")]
    spent = report.macs
    assert f"({spent.speedup:.3f}x)" in macs
    assert "without attention's own products" in macs
    saved = [line.split()[0] for line in lines if " saved " in line]
    assert saved == ["guidance", "cross"]
    assert "filling        estimator=hold, merge=cond, refresh=4" in lines
    assert lines[-2:] == ["guidance ....###.##", "cross    ....###.##"]


def test_the_dictionary_holds_every_figure(gating: Any) -> None:
    """Plain values, the same in JSON."""
    report = gating.report
    plain = report.to_dict()
    assert json.loads(report.to_json()) == plain
    assert (plain["rows"], plain["complete"]) == ({"ran": 30, "asked": 40}, True)
    assert plain["macs"]["done"]["true"] == report.macs.done.true
    assert set(plain["macs"]["saved"]) == {"guidance", "cross"}
    assert [s["closed"] for s in plain["steps"][GATE - 1 : GATE + 1]] == [[], ["cross", "guidance"]]
    assert plain["steps"][GATE - 1]["stored"] == ["cross", "guidance"]
    assert plain["steps"][7]["reason"] == "refresh=4: a look at both branches"
    assert plain["steps"][GATE]["calls"] == [{"rows": 4, "ran": 2, "reused": {"cross": 4}}]


def test_saved_and_done_add_up(gating: Any) -> None:
    """Per gate: done + saved = ungated, in both counts."""
    spent = gating.report.macs
    for count in ("true", "layers"):
        saved = sum(getattr(m, count) for m in spent.saved.values())
        done, ungated = getattr(spent.done, count), getattr(spent.ungated, count)
        assert done + saved == pytest.approx(ungated)
    assert spent.speedup == pytest.approx(spent.ungated.true / spent.done.true)


def test_closed_total_and_strip_speak_of_the_run_s_own_steps(gating: Any) -> None:
    """closed lists steps; total is the run's."""
    report = gating.report
    assert report.closed == {"guidance": (4, 5, 6, 8, 9), "cross": (4, 5, 6, 8, 9)}
    assert report.total == STEPS
    assert report.strip().splitlines() == ["guidance ....###.##", "cross    ....###.##"]


def test_seconds_are_wall_time(kit: Any) -> None:
    """From the first backbone call to the end of the run."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "never") as gating:
        began = time.perf_counter()
        kit.call(pipe, callback_on_step_end=lambda p, i, t, k: time.sleep(0.01) or k)
        whole = time.perf_counter() - began
    assert 0.01 * (kit.STEPS - 1) <= gating.report.seconds <= whole


def test_each_run_has_a_report_of_its_own(kit: Any) -> None:
    """gating.runs keeps all, oldest first; gating.report is the last."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        for steps in (3, 5):
            kit.call(pipe, steps=steps)
    assert [len(r.steps) for r in gating.runs] == [3, 5]
    assert gating.report is gating.runs[-1]


# diffusers' schedulers hand tensors to numpy 2, which asks for an `__array__` that torch has not.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_noise_levels_are_those_of_the_run_even_when_read_late(kit: Any, scheduler: str) -> None:
    """The second image sets the scheduler anew; the first report still tells its own sigmas."""
    pipe = kit.make_pipe()
    settings = {k: v for k, v in kit.SCHEDULER.items() if k.startswith("beta")}
    pipe.scheduler = getattr(diffusers, scheduler)(**settings)
    at_once, late = [], []
    for read_at_once in (True, False):
        with tg.gate(pipe, "never") as gating:
            kit.call(pipe, steps=4)
            if read_at_once:
                at_once = [s["sigma"] for s in gating.report.to_dict()["steps"]]
            kit.call(pipe, steps=9)
        late = [s["sigma"] for s in gating.runs[0].to_dict()["steps"]]
    assert late == at_once
    assert late == sorted(late, reverse=True)
    assert len(set(late)) == 4


def test_a_run_in_progress_can_be_looked_at(kit: Any) -> None:
    """In the middle gating.report is the live run's, incomplete; its memory is not called gone."""
    pipe = kit.make_pipe()
    texts: list[str] = []

    def look(p: Any, step: int, t: Any, state: Any) -> Any:
        if step == 3:
            assert not gating.report.complete
            assert len(gating.report.steps) == 4
            texts.append(str(gating.report))
        return state

    with tg.gate(pipe, "fixed_step", gate_step=2) as gating:
        kit.call(pipe, callback_on_step_end=look)
    assert "the run did not reach its end" in texts[0]
    assert "the run did not reach its end" not in str(gating.report)


def test_before_any_run_there_is_a_sentence_and_no_report() -> None:
    """With what to do."""
    says = pytest.raises(NoRunError, match=r"call the pipeline, or loop over gating\.steps")
    with tg.gate(tiny_unet(), "never", layout="single") as gating, says:
        _ = gating.report


def test_a_run_in_which_nothing_closed_says_so(kit: Any) -> None:
    """One line instead of strips, nothing saved, and the events that tell why."""
    unet = tiny_unet()
    with tg.gate(unet, "fixed_step", gate_step=1, gates=("guidance",)) as gating:
        kit.walk(unet, [901, 1], gating=gating)
    report = gating.report
    assert report.macs.saved == {}
    assert report.macs.speedup == 1.0
    (event,) = report.events
    assert event.kind == "layout"
    assert f"event          step {event.step}: {event.message}" in str(report)
    assert report.to_dict()["events"] == [
        {"kind": "layout", "step": event.step, "message": event.message}
    ]


@pytest.fixture
def affine(kit: Any) -> Iterator[Any]:
    with kit.plugged(kit.AffinePlugin(), "affine plugin"):
        yield kit.Affine()


def test_without_a_recipe_nothing_is_counted(kit: Any, affine: Any) -> None:
    """An adapter that cannot build a weightless backbone: the report says so, in text and dict."""
    sample, text = kit.torch.ones(2, 1, 2, 2), kit.torch.ones(2, 3, 5)
    with tg.gate(affine, "never", layout="uncond_first") as gating:
        for t in gating.steps([2.0, 1.0]):
            affine(sample, t, encoder_hidden_states=text)
    report = gating.report
    assert report.macs is None
    assert "not counted" in str(report)
    assert "no gate closed" in str(report)
    assert report.to_dict()["macs"] is None
    assert json.loads(report.to_json())["steps"][0]["sigma"] is None


def test_steps_needs_an_attached_gating() -> None:
    """And as many noise levels as steps."""
    gating = tg.gate(tiny_unet(), "never", layout="single")
    with pytest.raises(OptionError, match=r"before entering: use it inside `with gate"):
        gating.steps([1])
    with gating:
        with pytest.raises(OptionError, match="1 sigmas for 2 timesteps: pass one for each"):
            gating.steps([2, 1], sigmas=[3.0])
        assert list(gating.steps([])) == []
