"""`interleave`: guided first steps, then a look every few."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tgate_sampling as tg
from tests import pipes
from tests.compose import toys
from tgate_plugins.interleave import Interleave
from tgate_sampling.decision import as_decision
from tgate_sampling.errors import OptionError
from tgate_sampling.testing import tiny_unet

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

STEPS = 8


@pytest.fixture
def pipe() -> Any:
    return pipes.pipeline(tiny_unet(), toys.scheduler("ddim"))


def closes(answer: Any) -> bool:
    return bool(as_decision(answer, "interleave").closed)


@pytest.mark.parametrize(
    ("every", "warm_up", "start", "steps"),
    [
        (1, 1, 0.0, "........"),
        (2, 1, 0.0, ".#.#.#.#"),
        (2, 1, 0.0, ".#.#..#"),
        (2, 3, 0.3, "...#.#.#"),
        (3, 2, 0.0, "..##.#.##"),
        (5, 1, 0.0, ".###.###"),
        (2, 9, 0.0, "........"),
        (2, 3, 0.3, "...#..#"),
        (2, 3, 0.3, "....#.#..#.#"),
        (2, 3, 0.3, "....#"),
        (2, 3, 0.5, "............#.#.#.#.#.#"),
    ],
)
def test_the_plan_in_pictures(every: int, warm_up: int, start: float, steps: str) -> None:
    """`.` is a look at both branches; what lies between is spread from the first to the last."""
    plan = Interleave(every=every, warm_up=warm_up, start=start).plan(len(steps))
    assert "".join("#" if closes(answer) else "." for answer in plan or ()) == steps


@pytest.mark.parametrize(("steps", "as_many_as"), [(7, 6), (12, 10), (22, 18)])
def test_runs_cost_as_many_rows_as_fewer_full_steps(steps: int, as_many_as: int) -> None:
    """What the page on quality compares."""
    closed = sum(closes(answer) for answer in Interleave().plan(steps) or ())
    assert 2 * steps - closed == 2 * as_many_as


def test_a_sampler_without_an_end_counts_from_the_start() -> None:
    """`sample_dpm_adaptive` does not know how many steps it will take."""
    asked = [Interleave().decide(tg.StepContext.at(i), tg.Signals()) for i in range(8)]
    assert [closes(answer) for answer in asked] == [False] * 3 + [True, False, True, False, True]


@given(
    every=st.integers(1, 6),
    warm_up=st.integers(1, 6),
    total=st.integers(1, 30),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_looks_are_as_many_as_was_said_and_spread(every: int, warm_up: int, total: int) -> None:
    """The first steps are guided, then one in `every`; gaps differ by one at most; it is done so.

    So a run of n steps takes n + w + floor((n - w) / k) rows an image, for a warm-up of w < n.
    """
    policy = Interleave(every=every, warm_up=warm_up, start=0)
    looks = [i for i, d in enumerate(policy.plan(total) or ()) if not d.closed]
    asked = [
        i
        for i in range(total)
        if not policy.decide(tg.StepContext.at(i, total), tg.Signals()).closed
    ]
    assert looks == asked
    assert looks[:warm_up] == list(range(min(warm_up, total)))
    assert len(looks) == min(total, warm_up + max(0, total - warm_up) // every)
    later = looks[warm_up:]
    gaps = [b - a for a, b in itertools.pairwise(later)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    if every > 1 and total > warm_up:
        assert total - 1 not in looks
    if every > 1 and total - warm_up > 2:
        assert warm_up not in looks


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize(
    ("every", "warm_up", "looks"), [(2, 3, 5), (3, 2, 4), (4, 1, 2), (1, 1, 8)]
)
def test_rows_are_counted(pipe: Any, every: int, warm_up: int, looks: int, prompts: int) -> None:
    """A look costs two rows an image, any other step one; the backbone sees just these."""
    seen: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    with tg.gate(pipe, "interleave", every=every, warm_up=warm_up, start=0) as gating:
        toys.generate(pipe, steps=STEPS, embeds=toys.texts(prompts))
    assert gating.report.rows == (prompts * (STEPS + looks), prompts * 2 * STEPS)
    assert sum(seen) == prompts * (STEPS + looks)
    assert seen[:warm_up] == [2 * prompts] * warm_up


@pytest.mark.parametrize("scheduler", ["ddim", "heun", "pndm"])
def test_a_look_at_every_step_is_the_full_run(scheduler: str) -> None:
    """`every=1` never closes: bitwise the run of `never`, and the bare one."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler(scheduler))
    bare = toys.generate(pipe)
    for policy in (Interleave(every=1), "never"):
        with tg.gate(pipe, policy) as gating:
            assert torch.equal(toys.generate(pipe), bare)
        assert gating.report.closed == {}


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpmpp_2m", "heun", "pndm"])
def test_steps_are_guided_in_all_their_evaluations(scheduler: str) -> None:
    """Heun's corrector and PNDM's repeated step belong to the step they correct."""
    pipe = pipes.pipeline(tiny_unet(), toys.scheduler(scheduler))
    with tg.gate(pipe, "interleave") as gating:
        toys.generate(pipe, steps=STEPS)
    assert gating.report.closed == {"guidance": (3, 5, 7)}
    for step in gating.report.steps:
        assert {c.ran for c in step.calls} == ({1} if step.decision.closed else {2})
    assert gating.report.events == ()


def test_a_look_reopens_cross_attention_that_was_closed_too(pipe: Any) -> None:
    """Its kept rows are of one branch."""
    with tg.gate(pipe, "interleave", gates=("guidance", "cross")) as gating:
        toys.generate(pipe, steps=STEPS)
    assert gating.report.closed == {"guidance": (3, 5, 7), "cross": (3, 5, 7)}
    assert gating.report.events == ()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "every=0 must be a whole number, 1 or more"),
        ({"every": 2.5}, r"every=2\.5 must be a whole number"),
        ({"warm_up": 0}, "warm_up=0 must be a whole number, 1 or more"),
        ({"start": 1}, "start=1 must be a share of the run"),
        ({"gates": "guidance"}, "must be a collection of names"),
        ({"gates": ("guidence",)}, "guidance"),
        ({"evry": 2}, "every"),
    ],
)
def test_a_wrong_option_is_an_error_with_its_cure(
    pipe: Any, options: dict[str, Any], sentence: str
) -> None:
    """Before anything is attached."""
    with pytest.raises(OptionError, match=sentence):
        tg.gate(pipe, "interleave", **options)
