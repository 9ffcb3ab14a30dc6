"""The figure: in which steps the backbone is given the prompt, and in which the null text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import load_helper

pytest.importorskip("diffusers", minversion="0.42")

from tgate_plugins.methods._pipes import backbone_of
from tgate_plugins.methods.spec import parse

homes = load_helper("methods/homes.py")
trial = load_helper("methods/tried.py")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HOMES = ("sd", "sdxl", "pixart_sigma")


def inputs(kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A call's inputs that come from the prompt."""
    names = ("encoder_hidden_states", "encoder_attention_mask")
    found = {n: kwargs[n] for n in names if kwargs.get(n) is not None}
    added = kwargs.get("added_cond_kwargs") or {}
    return found | {n: added[n] for n in ("text_embeds",) if added.get(n) is not None}


def heard(name: str, text: str) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """The picture, and the text of each backbone call."""
    home, pipe = homes.HOMES[name], trial.pipe_of(name)
    calls: list[dict[str, torch.Tensor]] = []
    with parse(text).apply(pipe, home.setting) as how:
        handle = backbone_of(pipe).register_forward_pre_hook(
            lambda _, args, kwargs: calls.append(inputs(kwargs)), with_kwargs=True
        )
        picture = home.picture(pipe, how)
        handle.remove()
    return picture, calls


def with_prompt(calls: list[dict[str, torch.Tensor]]) -> list[bool]:
    """Whether the branches of each call differ in all of their text."""
    differ = [{not torch.equal(*t.chunk(2)) for t in call.values()} for call in calls]
    assert all(len(d) == 1 for d in differ)  # pooled text and mask go with the rest
    return [d.pop() for d in differ]


@pytest.mark.parametrize("name", HOMES)
@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("text_window:mode=all", [True] * 6),
        ("text_window:mode=first,m=2", [True] * 2 + [False] * 4),
        ("text_window:mode=last,m=2", [False] * 2 + [True] * 4),
        ("text_window:mode=null", [False] * 6),
    ],
)
def test_the_prompt_is_heard_in_its_steps(name: str, text: str, steps: list[bool]) -> None:
    """Embedding, mask and pooled embedding, in these steps and no others."""
    _, calls = heard(name, text)
    assert with_prompt(calls) == steps


@pytest.mark.parametrize("name", HOMES)
def test_null_text_is_the_unconditional_branch_s_own(name: str) -> None:
    """Where the prompt is not heard, both branches are given what uncond is given elsewhere."""
    _, calls = heard(name, "text_window:mode=first,m=1")
    for key, value in calls[0].items():
        assert torch.equal(calls[1][key], torch.cat([value.chunk(2)[0]] * 2))


@pytest.mark.parametrize("name", HOMES)
@pytest.mark.parametrize(
    ("text", "like"),
    [
        ("text_window:mode=first,m=6", "ungated"),
        ("text_window:mode=last,m=0", "ungated"),
        ("text_window:mode=first,m=0", "text_window:mode=null"),
        ("text_window:mode=last,m=6", "text_window:mode=null"),
    ],
)
def test_windows_at_their_ends_are_all_or_nothing(name: str, text: str, like: str) -> None:
    """Bitwise."""
    assert torch.equal(heard(name, text)[0], heard(name, like)[0])


def test_null_in_every_step_is_the_negative_prompt_s_picture() -> None:
    """Bitwise the bare pipeline's, with its negative embedding in the prompt's place."""
    home, pipe = homes.HOMES["sd"], trial.pipe_of("sd")
    tensors = homes.families.FAMILIES["sd"].inputs(1, torch.Generator().manual_seed(0))
    null = tensors["negative_prompt_embeds"]
    bare = home.picture(pipe, home.bare, prompt_embeds=null)
    assert torch.equal(heard("sd", "text_window:mode=null")[0], bare)


def test_a_step_of_two_evaluations_is_one_step() -> None:
    """Heun's second evaluation belongs to its step."""
    import diffusers

    pipe = trial.pipe_of("sd")
    before = pipe.scheduler
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(before.config)
    try:
        _, calls = heard("sd", "text_window:mode=first,m=2")
    finally:
        pipe.scheduler = before
    assert with_prompt(calls) == [True] * 4 + [False] * 7


def test_a_run_of_one_branch_is_given_the_empty_prompt() -> None:
    """Without guidance, null text is what the pipeline's encoder makes of ''."""
    home, pipe = homes.HOMES["emoji-sd"], trial.pipe_of("emoji-sd")
    setting = homes.Setting(steps=3, guidance_scale=1.0)
    with parse("text_window:mode=null").apply(pipe, setting) as how:
        found = home.picture(pipe, how)
    empty = pipe(
        prompt="",
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    assert torch.equal(found, empty)
