"""A site's kind is found by perturbation: on a small model with one site of each kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.backbones import sites
from tests.backbones.tiny import Keywords, Tiny, each, per_row, same

KINDS = ("text", "self", "cross", "joint", "exchange")


class Attention(nn.Module):
    """Adds to each token the mean of what it reads."""

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return hidden_states + context.mean(1, keepdim=True)


class Pool(nn.Module):
    """No site: it mixes tokens, and its class is not called an attention."""

    def forward(self, hidden_states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return hidden_states + context.mean(1, keepdim=True)


class AttnBlock(nn.Module):
    """Holds a site and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.site = Attention()


class Model(nn.Module):
    """Video and sound, a prompt, and an attention of each kind, none of them named by its kind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (AttnBlock() for _ in KINDS)
        self.never = AttnBlock()
        self.pool = Pool()

    def forward(
        self,
        hidden_states: torch.Tensor,
        audio_hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        text = encoder_hidden_states * (1 + timestep[:, None, None])
        text = self.a.site(text, text)
        video = self.pool(hidden_states, hidden_states)
        video = self.b.site(video, video)
        video = self.c.site(video, context=text)
        both = torch.cat([text, video], 1)
        video = self.d.site(both, both)[:, text.shape[1] :]
        return (self.e.site(hidden_states=video, context=audio_hidden_states),)


def inputs(rows: int) -> Keywords:
    return {
        "hidden_states": same(rows, 4, 3),
        "audio_hidden_states": same(rows, 6, 3, seed=2),
        "encoder_hidden_states": each(rows, 5, 3),
    }


TOY = Tiny("toy", Model, inputs, per_row(), sample=("hidden_states", "audio_hidden_states"))


def test_each_kind_is_told_from_the_others() -> None:
    """By what moves when the latents, the prompt or one token change; their names say nothing."""
    found = sites.kinds(Model(), TOY)
    assert found == {f"{place}.site": kind for place, kind in zip("abcde", KINDS, strict=True)}


def test_measuring_leaves_the_model_as_it_was() -> None:
    """No hook stays behind, not even after an error in the model."""
    model = Model()
    sites.kinds(model, TOY)
    with pytest.raises(RuntimeError):
        sites.live_calls(model, Tiny("toy", Model, lambda r: inputs(r + 1), per_row()))
    assert not any(module._forward_hooks for module in model.modules())


def test_keys_of_latents_and_text_made_outside_the_site_are_joint() -> None:
    """One asking token leaves the others alone there, too; as in Stable Cascade."""

    class Outside(Model):
        def forward(self, hidden_states: Any, encoder_hidden_states: Any, **_: Any) -> Any:
            keys = torch.cat([hidden_states, encoder_hidden_states], 1)
            return (self.c.site(hidden_states, keys),)

    toy = Tiny("toy", Outside, inputs, per_row())
    assert sites.kinds(Outside(), toy) == {"c.site": "joint"}


@pytest.mark.parametrize("own", [True, False])
def test_a_site_that_reads_its_own_tokens_is_not_cross(own: bool) -> None:
    """Also where they are handed to it as a context."""
    site, tokens, text = Attention(), same(2, 4, 3), each(2, 5, 3)
    context = tokens if own else text
    out = site(tokens, context)
    assert sites.is_cross(site, (tokens,), {"context": context}, out) is not own


def test_a_site_of_one_token_has_no_kind() -> None:
    """Nothing could be left unchanged there: a table with such latents would prove nothing."""
    site, token, text = Attention(), same(2, 1, 3), each(2, 5, 3)
    with pytest.raises(ValueError, match="one token"):
        sites.is_cross(site, (token, text), {}, site(token, text))


def test_other_contents_are_other_everywhere() -> None:
    """Noise for numbers, another id for ids, and shapes and structure stay."""
    value = {"a": [torch.zeros(3), torch.arange(12)], "b": None, "c": 2.0}
    new = sites.other(value)
    assert (new["a"][0] != 0).all()
    assert (new["a"][1] != torch.arange(12)).all()
    assert new["a"][1].max() < 8
    assert (new["b"], new["c"]) == (None, 2.0)
