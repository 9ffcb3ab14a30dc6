"""Where a gated pipeline could go wrong without a word: changes of guidance, chance, interrupts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.backbones import adapter_for

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

GATE, CLOSE = gated.GATE, gated.CLOSE
GUIDANCE = ("guidance",)


def switched_off(step: int) -> dict[str, Any]:
    """Guidance off after a step, as diffusers' documentation has it (dynamic guidance)."""

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == step:
            pipe._guidance_scale = 0.0
            tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        return tensors

    return {
        "callback_on_step_end": callback,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }


@pytest.mark.parametrize("batch", [1, 2])
def test_guidance_that_a_callback_switches_off_stays_off(batch: int) -> None:
    """From then on there is one branch: the gate closes over nothing, whatever the batch."""
    row, pipe = pipelines.PIPELINES["sd"], gated.made("sd")
    bare = row.call(pipe, steps=5, batch=batch, **switched_off(1))
    with tg.gate(pipe, "fixed_step", gate_step=3, gates=GUIDANCE) as gating:
        latents = row.call(pipe, steps=5, batch=batch, **switched_off(1))
    assert gating.report.rows == (7 * batch, 7 * batch)
    assert torch.equal(latents, bare)


def test_guidance_that_a_callback_switches_off_between_calls_of_one_branch() -> None:
    """Wan: without the uncond call nothing is estimated, and no event is due."""

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 1:
            pipe._guidance_scale = 1.0
        return tensors

    row, pipe = pipelines.PIPELINES["wan"], gated.made("wan")
    bare = row.call(pipe, steps=5, callback_on_step_end=callback)
    with tg.gate(pipe, "fixed_step", gate_step=3, gates=GUIDANCE) as gating:
        latents = row.call(pipe, steps=5, callback_on_step_end=callback)
    assert torch.equal(latents, bare)
    assert gating.report.rows == (7, 7)
    assert gating.report.events == ()


#: LEdits++ edits one picture, and is not gated.
PAIRS = [
    name
    for name, row in pipelines.PIPELINES.items()
    if row.layout in ("uncond_first", "cond_first") and not row.prelude
]


@pytest.mark.parametrize("name", PAIRS)
def test_two_prompts_from_the_same_noise_are_no_branches(name: str) -> None:
    """Without guidance, equal latents in both rows (one seed, two prompts) mean nothing."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)

    def call() -> torch.Tensor:
        same = [torch.Generator().manual_seed(3) for _ in range(2)]
        latents: torch.Tensor = row.call(pipe, steps=3, guidance=False, batch=2, generator=same)
        return latents

    bare = call()
    with tg.gate(pipe, "fixed_step", gate_step=1, gates=GUIDANCE) as gating:
        latents = call()
    assert gating.report.rows == (6, 6)
    assert torch.equal(latents, bare)


@pytest.mark.parametrize(
    ("name", "batch"),
    [("allegro", 2), ("hunyuan-dit", 8), ("cogvideox", 24)],
)
def test_what_is_as_long_as_the_batch_by_chance_is_not_cut(name: str, batch: int) -> None:
    """A rotary table with as many entries as the batch has rows goes to the backbone whole."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    truth = gated.expected(row, pipe, (1, 2), GUIDANCE, steps=3, batch=batch)
    with tg.gate(pipe, "fixed_step", gate_step=1, gates=GUIDANCE):
        latents = row.call(pipe, steps=3, batch=batch)
    assert oracles.distance(latents, truth) <= CLOSE


def lengths(value: Any, path: str = "") -> dict[str, int]:
    """Leading dimensions of all tensors in a nested value, by where they are."""
    if isinstance(value, torch.Tensor):
        return {path: value.shape[0]} if value.ndim else {}
    if isinstance(value, (tuple, list)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return {}
    return {k: n for name, v in value.items() for k, n in lengths(v, f"{path}.{name}").items()}


def arguments(row: Any, pipe: Any, batch: int) -> tuple[Any, Any]:
    """The arguments of the first backbone call of a guided run."""
    calls: list[tuple[Any, Any]] = []
    hook = row.denoiser(pipe).register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    with hook:
        row.call(pipe, steps=2, batch=batch)
    return calls[0]


LUMINA = pytest.mark.xfail(strict=True, reason="Lumina's rotary table is not said to be whole")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[LUMINA] if name == "lumina" else [])
        for name in PAIRS
        if name != "z-image"  # whose batch is a list
    ],
)
def test_what_does_not_follow_the_batch_is_never_cut(name: str) -> None:
    """Whatever is as long for two prompts as for one stays whole in a batch of just that size."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    backbone = row.denoiser(pipe)
    one, two = (lengths(arguments(row, pipe, batch)) for batch in (1, 2))
    still = {path: n for path, n in one.items() if two.get(path) == n and n > 1}
    args, kwargs = arguments(row, pipe, 1)
    for size in set(still.values()):
        cut = adapter_for(backbone).take(backbone, args, kwargs, size, slice(0, size // 2))
        assert {path: lengths(cut)[path] for path, n in still.items() if n == size} == {
            path: n for path, n in still.items() if n == size
        }


def interrupt(error: type[BaseException], where: str, pipe: Any, backbone: Any) -> dict[str, Any]:
    """Keywords of a call that is broken off in its fourth step."""

    def callback(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 3:
            raise error
        return tensors

    if where == "callback":
        return {"callback_on_step_end": callback}
    calls: list[int] = []

    def hook(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise error

    # The first layer of the backbone: in the middle of its forward.
    next(iter(backbone.children())).register_forward_pre_hook(hook)
    return {}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["callback", "forward"])
@pytest.mark.parametrize("name", ["sd", "wan"])
def test_a_run_that_is_broken_off_leaves_nothing(
    name: str, where: str, error: type[BaseException]
) -> None:
    """Not in the backbone, which leaves the block clean, nor in the next run on the gating."""
    row, pipe = pipelines.PIPELINES[name], gated.fresh(name)
    backbone = row.denoiser(pipe)
    bare = row.call(pipe, steps=5)
    before = gated.kit.snapshot(backbone)
    first = next(iter(backbone.children()))
    with pytest.raises(error), tg.gate(pipe, "fixed_step", gate_step=GATE) as broken:
        row.call(pipe, steps=5, **interrupt(error, where, pipe, backbone))
    first._forward_pre_hooks.clear()
    assert gated.kit.snapshot(backbone) == before
    assert torch.equal(row.call(pipe, steps=5), bare)
    assert not broken.report.complete
    with tg.gate(pipe, "fixed_step", gate_step=GATE) as gating:
        whole = row.call(pipe, steps=5)
        with pytest.raises(error):
            row.call(pipe, steps=5, **interrupt(error, where, pipe, backbone))
        first._forward_pre_hooks.clear()
        again = row.call(pipe, steps=5)
    assert torch.equal(again, whole)
    assert [report.complete for report in gating.runs] == [True, False, True]
