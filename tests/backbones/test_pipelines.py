"""The tiny pipelines are what their table says: seeded, guided, and laid out as diffusers does."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.conftest import load_helper

pipelines = load_helper("backbones/pipelines.py")
kit = pipelines.kit

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS = 3

#: Which branch of a step listens to the negative prompt, by layout.
LISTENS = {
    "uncond_first": [True, False],
    "cond_first": [False, True],
    "separate": [False, True],
    "three": [False, True, True],
    "pag": [True, False, False],
}

#: What a timestep is worth on the scheduler's scale, by how it was made.
UNDONE = {
    "view": lambda t: t,
    "stale": lambda t: t,
    "copied": lambda t: t,
    "scaled": lambda t: 1000 * t,
    "reversed": lambda t: 1000 - 1000 * t,
}


#: Where guidance is an embedding, there is no negative prompt to hear.
BRANCHED = [name for name, row in pipelines.PIPELINES.items() if row.layout != "single"]


SEVERAL = [name for name in pipelines.PIPELINES if name not in pipelines.ONE_EACH]

#: The keywords that ask for several outputs a prompt.
PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")


@pytest.fixture(params=pipelines.PIPELINES)
def row(request: pytest.FixtureRequest) -> Any:
    """One row of the table after the other; the test may choose others."""
    row = pipelines.PIPELINES[request.param]
    if row.needs:
        pytest.importorskip(row.needs)
    return row


@functools.cache
def made(name: str) -> Any:
    """One pipeline for all tests that do not ask for a fresh one: no call leaves a trace."""
    return pipelines.PIPELINES[name].build()


def calls_of(row: Any, pipe: Any, **how: Any) -> list[Any]:
    """The backbone calls of one pipeline call."""
    with kit.recorded(pipe, row.backbone, *row.experts) as calls:
        row.call(pipe, **how)
    return calls


def promised(row: Any, *, steps: int, batch: int) -> list[int]:
    """Rows of all backbone calls of a guided run, as the table has it."""
    return [batch] * (row.prelude * steps) + row.rows_a_step(batch) * steps


class Told(SimpleNamespace):
    """Stands where a pipeline is called, and keeps the keywords it was called with."""

    def __call__(self, **given: Any) -> list[None]:
        self.given = given
        return [None]


def contrary(row: Any) -> dict[str, Any]:
    """Keywords that overrule the call's own negative prompt by another one."""
    if row.name == "svd":  # no negative prompt: the uncond rows see no picture at all
        return {"image": kit.Draw(9)(1, 3, 32, 32).sigmoid()}
    if row.name == "ledits":
        return {"negative_prompt": "b"}
    told = Told(guider=SimpleNamespace())
    row.call(told)
    return {
        name: [-part for part in value] if isinstance(value, list) else -value
        for name, value in told.given.items()
        if name.startswith("negative") and name.endswith(("embeds", "embeds_2"))
    }


def outputs(row: Any, pipe: Any, **how: Any) -> Iterator[torch.Tensor]:
    """The rows of the backbone's outputs in the first guided step."""
    given: list[Any] = []
    hook = row.denoiser(pipe).register_forward_hook(lambda *call: given.append(call[-1]))
    with hook:
        row.call(pipe, steps=2, **how)
    first = 2 * row.prelude
    for output in given[first : first + row.calls]:
        yield from output[0]


def listening(row: Any) -> list[bool]:
    """Which rows of a guided step change with the negative prompt."""
    pipe = made(row.name)
    pairs = zip(outputs(row, pipe), outputs(row, pipe, **contrary(row)), strict=True)
    return [not torch.equal(first, second) for first, second in pairs]


def expected(row: Any) -> list[bool]:
    """As `listening`, by the row's layout."""
    heard = LISTENS[row.layout]
    if row.name == "svd":  # what changes is the picture, which the cond rows see
        heard = [not one for one in heard]
    further = sum(row.rows_a_step()) - len(heard)  # skip-layer guidance asks cond once more
    return heard + [False] * further


def how_timed(row: Any, pipe: Any) -> tuple[str, list[Any]]:
    """How the timesteps of a run are made, as far as their storage tells, and its calls."""
    calls = calls_of(row, pipe, steps=STEPS)
    offsets = {call.offset is not None for call in calls}
    owned = {call.own for call in calls}
    kinds = {
        (True, True): "view",
        (True, False): "stale",
        (False, False): "new",
    }
    assert len(offsets) == len(owned) == 1, "one run, two kinds of timesteps"
    return kinds[offsets.pop(), owned.pop()], calls


def test_fresh_pipelines_agree_to_the_bit_and_so_do_calls_in_a_row(row: Any) -> None:
    """Weights and inputs are seeded, and no call leaves anything for the next one."""
    pipe = row.build()
    first = row.call(pipe, steps=STEPS)
    assert first.isfinite().all()
    assert torch.equal(row.call(row.build(), steps=STEPS), first)
    assert torch.equal(row.call(pipe, steps=STEPS), first)


def test_guidance_shows_in_the_latents(row: Any) -> None:
    """By a hundredth of the latents' size or more, so that losing it cannot pass unseen."""
    pipe = made(row.name)
    guided, unguided = (row.call(pipe, steps=STEPS, guidance=g) for g in (True, False))
    assert (guided - unguided).norm() > 0.01 * guided.norm()


@pytest.mark.parametrize("batch", [1, 2])
def test_backbone_calls_are_those_of_the_table(row: Any, batch: int) -> None:
    """As many a step, and of as many rows, as `layout` and `calls` say."""
    calls = calls_of(row, made(row.name), steps=STEPS, batch=batch)
    assert [call.rows for call in calls] == promised(row, steps=STEPS, batch=batch)


@pytest.mark.parametrize("row", SEVERAL, indirect=True)
def test_two_outputs_of_one_prompt_are_two_rows_a_branch(row: Any) -> None:
    """As of two prompts."""
    pipe = made(row.name)
    named = inspect.signature(type(pipe).__call__).parameters
    # Modular pipelines take any keyword their blocks know.
    keyword = next((name for name in PER_PROMPT if name in named), PER_PROMPT[0])
    calls = calls_of(row, pipe, steps=STEPS, **{keyword: 2})
    assert [call.rows for call in calls] == promised(row, steps=STEPS, batch=2)


@pytest.mark.parametrize("row", BRANCHED, indirect=True)
def test_only_the_uncond_rows_hear_the_negative_prompt(row: Any) -> None:
    """Which rows these are, the layout says."""
    assert listening(row) == expected(row)


def test_timesteps_reach_the_backbone_as_the_table_says(row: Any) -> None:
    """A view's offset is the raw index; a new tensor's value is a function of the scheduler's."""
    pipe, told = made(row.name), pipelines.TIMESTEPS[row.name]
    kind, calls = how_timed(row, pipe)
    assert kind == (told if told in ("view", "stale") else "new")
    times = pipe.scheduler.timesteps
    guided = calls[row.prelude * STEPS :]
    raw = [len(times) - STEPS + number // row.calls for number in range(STEPS * row.calls)]
    if kind != "new":
        assert [call.offset for call in guided] == raw
    values = torch.tensor([UNDONE[told](call.timestep) for call in guided])
    torch.testing.assert_close(values, times[raw].float(), rtol=1e-4, atol=1e-3)


def test_the_table_is_whole() -> None:
    """Names are unique, and nothing is both built and left out."""
    names = [
        one.name
        for family in pipelines.FAMILIES
        for one in load_helper(f"backbones/pipes_{family}.py").ROWS
    ]
    assert len(names) == len(set(names)) == len(pipelines.PIPELINES)
    assert not set(names) & set(pipelines.LEFT_OUT)


def test_a_wrong_row_is_found_out() -> None:
    """A row that promises another number of calls, or another order, fails what it is held to."""
    true = pipelines.PIPELINES["sd"]
    rows = [call.rows for call in calls_of(true, made("sd"), steps=STEPS)]
    false = dataclasses.replace(true, layout="separate", calls=2)
    assert rows != promised(false, steps=STEPS, batch=1)
    false = dataclasses.replace(true, layout="cond_first")
    assert listening(true) != expected(false)
    kind, _ = how_timed(pipelines.PIPELINES["flux"], made("flux"))
    assert kind != "view"
