"""Planted offenders: whatever a method leaves behind is seen, and is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.conftest import load_helper

pytest.importorskip("diffusers", minversion="0.42")

from tgate_plugins.methods._restore import (
    as_found,
    left_behind,
    own_class,
    traces,
)

homes = load_helper("methods/homes.py")


def a_hook(pipe: Any) -> None:
    pipe.unet.conv_in.register_forward_hook(lambda *_: None)


def a_forward(pipe: Any) -> None:
    pipe.unet.mid_block.forward = pipe.unet.mid_block.forward


def a_processor(pipe: Any) -> None:
    pipe.unet.set_attn_processor(type(next(iter(pipe.unet.attn_processors.values())))())


def an_attribute_of_a_processor(pipe: Any) -> None:
    next(iter(pipe.unet.attn_processors.values())).kept = torch.zeros(1)


def a_kept_tensor(pipe: Any) -> None:
    pipe.unet.conv_in.cache = torch.zeros(1)


def a_class(pipe: Any) -> None:
    made = type(pipe.unet.conv_in)
    pipe.unet.conv_in.__class__ = type(made.__name__, (made,), {})


def another_module(pipe: Any) -> None:
    pipe.unet.mid_block = torch.nn.Identity()


def another_parameter(pipe: Any) -> None:
    pipe.unet.conv_in.weight = torch.nn.Parameter(pipe.unet.conv_in.weight.clone())


def another_scheduler(pipe: Any) -> None:
    pipe.scheduler.extra = 1


def a_method_of_the_pipeline(pipe: Any) -> None:
    pipe.tgate = pipe.__call__


def a_class_of_the_pipeline(pipe: Any) -> None:
    own_class(pipe, __call__=lambda self: None)


OFFENDERS: tuple[Callable[[Any], None], ...] = (
    a_hook,
    a_forward,
    a_processor,
    an_attribute_of_a_processor,
    a_kept_tensor,
    a_class,
    another_module,
    another_parameter,
    another_scheduler,
    a_method_of_the_pipeline,
    a_class_of_the_pipeline,
)


@pytest.mark.parametrize("offend", OFFENDERS, ids=lambda f: f.__name__)
def test_an_offender_is_seen_and_undone(offend: Callable[[Any], None]) -> None:
    """By the check that all methods pass, and by the block that all foreign ones run in."""
    pipe = homes.HOMES["sd"].make()
    before = traces(pipe)
    with as_found(pipe):
        offend(pipe)
        assert left_behind(before, traces(pipe)) != []
    assert left_behind(before, traces(pipe)) == []


def test_a_weight_that_was_changed_in_place_is_seen() -> None:
    """It cannot be undone without a copy, and no method does it; the check would tell."""
    pipe = homes.HOMES["sd"].make()
    before = traces(pipe)
    with torch.no_grad():
        pipe.unet.conv_in.bias.add_(1)
    assert left_behind(before, traces(pipe)) == ["unet.conv_in:_parameters"]


def test_a_call_that_was_put_on_a_shared_class_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cache-dit puts one on the pipeline's class; on a class of its own it meets no other."""
    pipe, other = homes.HOMES["sd"].make(), homes.HOMES["sd"].make()
    before, others = traces(pipe), traces(other)
    with as_found(pipe):
        own_class(pipe)
        type(pipe).__call__ = lambda self: None
        assert left_behind(others, traces(other)) == []
    assert left_behind(before, traces(pipe)) == []
    monkeypatch.setattr(type(pipe), "__call__", lambda self: None)
    assert any("__call__" in path for path in left_behind(others, traces(other)))


def test_an_error_is_undone_too() -> None:
    """The block restores, and lets the error through."""
    pipe = homes.HOMES["sd"].make()
    before = traces(pipe)

    def in_trouble() -> None:
        with as_found(pipe):
            a_hook(pipe)
            raise RuntimeError("trouble")

    with pytest.raises(RuntimeError, match="trouble"):
        in_trouble()
    assert left_behind(before, traces(pipe)) == []
