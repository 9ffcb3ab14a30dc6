"""What a gated run must give, worked out around a bare pipeline that knows nothing of gates.

    latents = expected(row, pipe, filling={2, 3, 4}, replaying={2, 3, 4}, steps=5)

The backbone runs in full in every step. Where guidance is closed, the rows of the other branches
are overwritten afterwards; where cross-attention is closed, its modules run and their outputs are
replaced by earlier ones. Steps are told by the scheduler's own, branches by the table's `layout`,
and cross-attention by what modules are given when they are called.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

#: Processors are parts of an attention module, blocks are what holds one.
ATTENTION = re.compile(r"(Atten|Attn)(?!.*(Processor|Block))")

#: Branches in the rows of one batched call, by the table's layout.
BRANCHES = {
    "uncond_first": ("uncond", "cond"),
    "cond_first": ("cond", "uncond"),
    "three": ("cond", "image", "uncond"),
    "single": ("cond",),
}


def expected(
    row: Any,
    pipe: Any,
    *,
    filling: Collection[int] = (),
    replaying: Collection[int] = (),
    estimator: str = "hold",
    layout: str = "",
    **how: Any,
) -> torch.Tensor:
    """The latents of a run in which gates are closed in some steps.

    Args:
        row: of the table.
        pipe: built from it, and bare.
        filling: the steps in which guidance is closed; evaluations, where a step takes several.
        replaying: the same of cross-attention.
        estimator: "none" or "hold".
        layout: another one than the row's.
        how: further settings of the row's call.
    """
    with ExitStack() as stack:
        if filling:
            stack.enter_context(filled(row, pipe, filling, estimator, layout or row.layout))
        if replaying:
            stack.enter_context(replayed(row, pipe, replaying))
        latents: torch.Tensor = row.call(pipe, **how)
    return latents


def distance(found: torch.Tensor, right: torch.Tensor) -> float:
    """Relative distance; 0 only where both are equal to the bit."""
    if torch.equal(found, right):
        return 0.0
    return float((found - right).norm() / right.norm().clamp_min(1e-12)) or 1e-12


class Clock:
    """Steps, told by the calls of `scheduler.step`, and backbone calls within each of them."""

    def __init__(self) -> None:
        self.step = 0
        self.calls = 0

    def next_step(self) -> None:
        """The scheduler has moved."""
        self.step, self.calls = self.step + 1, 0

    def next_call(self) -> tuple[int, int]:
        """(step, number within it) of the backbone call that is being made."""
        self.calls += 1
        return self.step, self.calls - 1


@contextmanager
def overridden(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of this one object is another, for the length of a block."""
    before = owner.__dict__.get(name)
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if before is None:
            del owner.__dict__[name]
        else:
            owner.__dict__[name] = before


@contextmanager
def clocked(pipe: Any) -> Iterator[Clock]:
    """A clock for one run of the pipeline."""
    clock, own = Clock(), pipe.scheduler.step

    @functools.wraps(own)
    def step(*args: Any, **kwargs: Any) -> Any:
        moved = own(*args, **kwargs)
        clock.next_step()
        return moved

    with overridden(pipe.scheduler, "step", step):
        yield clock


# -- guidance -------------------------------------------------------------------------------------


def tensor_of(result: Any) -> torch.Tensor:
    """(R, ...) the prediction in what a backbone returned."""
    if isinstance(result, tuple):
        result = result[0]
    if isinstance(result, list):
        return torch.stack(result)
    if isinstance(result, torch.Tensor):
        return result
    return tensor_of(result.sample)


def with_tensor(result: Any, tensor: torch.Tensor) -> Any:
    """What a backbone returned, with another prediction in it."""
    if isinstance(result, tuple):
        return (with_tensor(result[0], tensor), *result[1:])
    if isinstance(result, list):
        return list(tensor)
    if isinstance(result, torch.Tensor):
        return tensor
    return dataclasses.replace(result, sample=with_tensor(result.sample, tensor))


class Filler:
    """Overwrites the other branches of backbone calls while guidance is closed."""

    def __init__(self, layout: str, clock: Clock, closed: Collection[int], estimator: str) -> None:
        self.layout, self.clock = layout, clock
        self.closed, self.estimator = closed, estimator
        self.deltas: dict[str, torch.Tensor] = {}
        self.cond = torch.empty(0)

    def __call__(self, result: Any) -> Any:
        """What the pipeline shall see in place of a backbone call's result."""
        step, number = self.clock.next_call()
        full = tensor_of(result)
        if self.layout == "separate":
            made = self._second(full, step, number)
        else:
            made = self._batch(full, step) if number == 0 else full
        return result if made is full else with_tensor(result, made)

    def _second(self, full: torch.Tensor, step: int, number: int) -> torch.Tensor:
        """Of calls of one branch each the second is uncond's; a third has a perturbed model."""
        if number == 0:
            self.cond = full.clone()
        return self._other("uncond", self.cond, full, step) if number == 1 else full

    def _batch(self, full: torch.Tensor, step: int) -> torch.Tensor:
        names = BRANCHES[self.layout]
        parts = dict(zip(names, full.chunk(len(names)), strict=True))
        made = {n: self._other(n, parts["cond"], p, step) for n, p in parts.items() if n != "cond"}
        return torch.cat([made.get(name, parts[name]) for name in names])

    def _other(self, name: str, cond: torch.Tensor, other: torch.Tensor, step: int) -> torch.Tensor:
        if step not in self.closed:
            self.deltas[name] = cond - other
            return other
        return cond if self.estimator == "none" else cond - self.deltas[name]


@contextmanager
def filled(
    row: Any, pipe: Any, closed: Collection[int], estimator: str, layout: str
) -> Iterator[None]:
    """The backbone runs in full, and answers as with guidance closed in some steps."""
    backbone = row.denoiser(pipe)
    own = backbone.forward
    with clocked(pipe) as clock:
        filler = Filler(layout, clock, closed, estimator)

        @functools.wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return filler(own(*args, **kwargs))

        with overridden(backbone, "forward", forward):
            yield


# -- cross-attention ------------------------------------------------------------------------------


def attentions(backbone: nn.Module) -> list[nn.Module]:
    """The innermost modules whose class is called an attention."""

    def named(module: nn.Module) -> bool:
        return ATTENTION.search(type(module).__name__) is not None

    return [
        module
        for module in backbone.modules()
        if named(module) and not any(named(m) for m in module.modules() if m is not module)
    ]


def reads_context(module: nn.Module, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether a call was cross-attention: its context is a tensor of its own, its output is one.

    Attention that text and picture share (SD3) returns two.
    """
    given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    asking = next(iter(given.values()))
    context = given.get("encoder_hidden_states")
    if isinstance(context, (tuple, list)):  # an IP-Adapter's is (text, pictures)
        context = context[0]
    if context is None or not isinstance(out, torch.Tensor):
        return False
    return bool(context.data_ptr() != asking.data_ptr())


class Replayer:
    """Keeps what modules gave in the last open step, and gives it again in closed ones."""

    def __init__(self, clock: Clock, closed: Collection[int], *, all_calls: bool) -> None:
        self.clock, self.closed, self.all_calls = clock, closed, all_calls
        self.now = (0, 0)
        self.kept: dict[tuple[nn.Module, int], Any] = {}

    def begins(self, *_: Any) -> None:
        """A backbone call begins."""
        self.now = self.clock.next_call()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        """What a module shall have given, where that is not what it gave."""
        step, number = self.now
        if not self.all_calls and not reads_context(module, args, kwargs, out):
            return None
        if step in self.closed:
            return self.kept[module, number]
        self.kept[module, number] = tree_map(torch.clone, out)
        return None


@contextmanager
def replayed(
    row: Any, pipe: Any, closed: Collection[int], modules: Collection[nn.Module] | None = None
) -> Iterator[Replayer]:
    """Modules of the pipeline's backbone stand still in some steps; all cross-attention, if none
    are named.
    """
    backbone = row.denoiser(pipe)
    with clocked(pipe) as clock, ExitStack() as stack:
        replayer = Replayer(clock, closed, all_calls=modules is not None)
        stack.enter_context(backbone.register_forward_pre_hook(replayer.begins))
        for module in attentions(backbone) if modules is None else modules:
            stack.enter_context(module.register_forward_hook(replayer, with_kwargs=True))
        yield replayer


# -- what ran -------------------------------------------------------------------------------------


@contextmanager
def forwards(row: Any, pipe: Any) -> Iterator[list[int]]:
    """Rows of every forward that the backbone's own class really ran, experts included.

    Counted below whatever a gating puts in front: a call that is answered is no forward.
    """
    watched = {id(getattr(pipe, name)) for name in (row.backbone, *row.experts)}
    made: Any = next(c for c in type(row.denoiser(pipe)).__mro__ if "_tgate_bare" not in vars(c))
    own, rows = made.forward, []

    @functools.wraps(own)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        if id(self) in watched:
            given = [kwargs[n] for n in ("sample", "hidden_states", "x") if n in kwargs]
            rows.append(len((given or args)[0]))
        return own(self, *args, **kwargs)

    made.forward = forward
    try:
        yield rows
    finally:
        made.forward = own
