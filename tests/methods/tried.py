"""Each method on each home, once: what its pictures are, and what is left of it afterwards."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tests.conftest import load_helper
from tgate_plugins.methods._pipes import backbone_of
from tgate_plugins.methods._restore import left_behind, traces
from tgate_plugins.methods.counting import macs_of
from tgate_plugins.methods.spec import parse

homes = load_helper("methods/homes.py")


class TroubleError(Exception):
    """What a test raises in the middle of a run."""


@dataclass(frozen=True, eq=False)
class Tried:
    """What a method did.

    Args:
        bare: the bare pipeline's picture before,
        after: and afterwards.
        pictures: two in one block, of seeds 0 and 1.
        alone: the second in a block of its own, which an error in the middle of a run preceded.
        left: what differs after the first block,
        left_by_error: and after the error.
        macs: of the first picture, as a share of the bare one's.
        rows: of the first picture.
    """

    bare: torch.Tensor
    after: torch.Tensor
    pictures: tuple[torch.Tensor, torch.Tensor]
    alone: torch.Tensor
    left: list[str]
    left_by_error: list[str]
    macs: float
    rows: int


@functools.cache
def pipe_of(name: str) -> Any:
    """The home's pipeline, called once, so that what a first call sets is there."""
    home = homes.HOMES[name]
    pipe = home.make()
    home.picture(pipe, home.bare)
    return pipe


@functools.cache
def bare(name: str) -> tuple[torch.Tensor, float, int]:
    """The bare pipeline's picture, and its MACs and rows."""
    home, pipe = homes.HOMES[name], pipe_of(name)
    made: list[torch.Tensor] = []
    macs, rows = macs_of(pipe, lambda: made.append(home.picture(pipe, home.bare)))
    assert len(made) == 1
    return home.picture(pipe, home.bare), macs, rows


@functools.cache
def tried(name: str, text: str) -> Tried:
    """Try a method."""
    home, pipe, method = homes.HOMES[name], pipe_of(name), parse(text)
    picture, whole, _ = bare(name)
    looked = traces(pipe)
    with method.apply(pipe, home.setting) as how:
        pictures = home.picture(pipe, how), home.picture(pipe, how, seed=1)
    left = left_behind(looked, traces(pipe))
    with method.apply(pipe, home.setting) as how:
        macs, rows = macs_of(pipe, lambda: home.picture(pipe, how))
    try:
        with method.apply(pipe, home.setting) as how, trouble(pipe):
            home.picture(pipe, how)
    except TroubleError:
        left_by_error = left_behind(looked, traces(pipe))
    with method.apply(pipe, home.setting) as how:
        alone = home.picture(pipe, how, seed=1)
    after = home.picture(pipe, home.bare)
    return Tried(picture, after, pictures, alone, left, left_by_error, macs / whole, rows)


@contextmanager
def trouble(pipe: Any) -> Iterator[None]:
    """The third backbone call raises from its middle."""
    backbone, calls = backbone_of(pipe), 0

    def shake(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise TroubleError

    first = next(getattr(backbone, n) for n in ("conv_in", "pos_embed") if hasattr(backbone, n))
    handle = first.register_forward_pre_hook(shake)
    try:
        yield
    finally:
        handle.remove()
