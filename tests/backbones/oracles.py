"""What a gated run must give, worked out around a bare pipeline that knows nothing of gates.

    with filled(row, pipe, closed={2, 3, 4}, estimator="hold"), replayed(row, pipe, closed={2, 3, 4}):
        expected = row.call(pipe, steps=5)

The backbone runs in full in every step. Where guidance is closed, the rows of the other branches
are overwritten afterwards; where cross-attention is closed, its modules run and their outputs are
replaced by earlier ones. Steps are told by counting calls, branches by the table's `layout`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

#: Branches in the rows of one batched call, by the table's layout.
BRANCHES = {
    "uncond_first": ("uncond", "cond"),
    "cond_first": ("cond", "uncond"),
    "three": ("cond", "image", "uncond"),
    "pag": ("uncond", "cond", "perturbed"),
    "single": ("cond",),
}


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
    """Overwrites what a closed guidance gate leaves out, call by call.

    Args:
        row: of the table.
        closed: the steps in which guidance is closed.
        estimator: "none" or "hold".
    """

    def __init__(self, row: Any, closed: Collection[int], estimator: str) -> None:
        self.row, self.closed, self.estimator = row, closed, estimator
        self.made = 0
        self.deltas: dict[str, torch.Tensor] = {}
        self.cond = torch.empty(0)

    def __call__(self, result: Any) -> Any:
        """What the pipeline shall see in place of a backbone call's result."""
        step, number = divmod(self.made, self.row.calls)
        self.made += 1
        full = tensor_of(result)
        fill = self._separate if self.row.layout == "separate" else self._batched
        filled = fill(full, step, number)
        return result if filled is None else with_tensor(result, filled)

    def _separate(self, full: torch.Tensor, step: int, number: int) -> torch.Tensor | None:
        if number == 0:
            self.cond = full.clone()
            return None
        return self._other("uncond", self.cond, full, step)

    def _batched(self, full: torch.Tensor, step: int, number: int) -> torch.Tensor | None:
        names = BRANCHES[self.row.layout]
        if number or len(names) == 1:  # skip-layer guidance asks for cond once more
            return None
        parts = dict(zip(names, full.chunk(len(names)), strict=True))
        made = [
            part if name == "cond" else self._other(name, parts["cond"], part, step)
            for name, part in parts.items()
        ]
        return torch.cat(made)

    def _other(
        self, name: str, cond: torch.Tensor, other: torch.Tensor, step: int
    ) -> torch.Tensor:
        if step not in self.closed:
            self.deltas[name] = cond - other
            return other
        return cond if self.estimator == "none" else cond - self.deltas[name]


@contextmanager
def filled(
    row: Any, pipe: Any, *, closed: Collection[int], estimator: str = "hold"
) -> Iterator[Filler]:
    """The pipeline's backbone runs in full, and answers as with guidance closed in some steps."""
    backbone = row.denoiser(pipe)
    own, filler = backbone.forward, Filler(row, closed, estimator)

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return filler(own(*args, **kwargs))

    backbone.forward = forward
    try:
        yield filler
    finally:
        del backbone.forward


def reads_context(module: nn.Module, args: Any, kwargs: Any, out: Any) -> bool:
    """Whether an attention call was cross: its context is a tensor of its own, its output one."""
    if not isinstance(out, torch.Tensor) or "Att" not in type(module).__name__:
        return False
    given = [*args, *(v for k, v in kwargs.items() if "states" in k)]
    tensors = [v for v in given if isinstance(v, torch.Tensor) and v.is_floating_point()]
    named = kwargs.get("encoder_hidden_states")
    context = named if named is not None else (tensors[1] if len(args) > 1 else None)
    joint = getattr(module, "add_k_proj", None) is not None and type(module).__name__ == "Attention"
    if not isinstance(context, torch.Tensor) or joint or context.ndim < 3:
        return False
    return context.data_ptr() != tensors[0].data_ptr()


class Replayer:
    """Keeps what cross-attention gave in the last open step, and gives it again in closed ones."""

    def __init__(self, row: Any, closed: Collection[int]) -> None:
        self.row, self.closed = row, closed
        self.made = -1
        self.kept: dict[tuple[nn.Module, int], torch.Tensor] = {}

    def begins(self, *_: Any) -> None:
        """A backbone call begins."""
        self.made += 1

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        """A module was called: what it shall have given."""
        step, number = divmod(self.made, self.row.calls)
        if not reads_context(module, args, kwargs, out):
            return None
        if step in self.closed:
            return self.kept[module, number]
        self.kept[module, number] = out.clone()
        return None

    @property
    def sites(self) -> set[nn.Module]:
        """The modules that were found to read a context."""
        return {module for module, _ in self.kept}


@contextmanager
def replayed(row: Any, pipe: Any, *, closed: Collection[int]) -> Iterator[Replayer]:
    """Every cross-attention of the pipeline's backbone stands still in some steps."""
    backbone, replayer = row.denoiser(pipe), Replayer(row, closed)
    handles = [backbone.register_forward_pre_hook(replayer.begins)]
    handles += [
        module.register_forward_hook(replayer, with_kwargs=True)
        for module in backbone.modules()
        if "Att" in type(module).__name__
    ]
    try:
        yield replayer
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def forwards(row: Any, pipe: Any) -> Iterator[list[int]]:
    """Rows of every forward that the backbone's own class really ran, experts included.

    Counted below whatever a gating puts in front: a call that is answered is no forward.
    """
    names = (row.backbone, *row.experts)
    watched = {id(getattr(pipe, name)) for name in names}
    made: Any = own_class(row.denoiser(pipe))
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


def own_class(backbone: nn.Module) -> type[nn.Module]:
    """The class of diffusers that a backbone, gated or not, is an instance of."""
    return next(c for c in type(backbone).__mro__ if "_tgate_bare" not in c.__dict__)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative distance; 0 where both are equal to the bit."""
    if torch.equal(found, expected):
        return 0.0
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def rows_asked(row: Any, *, steps: int, batch: int) -> list[int]:
    """Rows of the backbone calls of an ungated run."""
    return row.rows_a_step(batch) * steps


def rows_left(row: Any, *, steps: int, batch: int, closed: Collection[int]) -> list[int]:
    """Rows of the forwards that are left of them where guidance is closed in some steps."""
    counted: list[int] = []
    for step in range(steps):
        asked = row.rows_a_step(batch)
        if step not in closed:
            counted += asked
        elif row.layout == "separate":
            counted += asked[: row.calls // 2]
        else:
            counted += [asked[0] // len(BRANCHES[row.layout]), *asked[1:]]
    return counted


#: Makes the expected run of a scene: `scene(row, pipe, closed)` as a context manager.
Scene = Callable[[Any, Any, Collection[int]], Any]
