"""What one run keeps: attention outputs and looks at guidance, by backbone call of an evaluation.

A kept value is read only where its branch labels, its shape, its device and its dtype fit; anything
else is dropped and computed anew.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from tgate_sampling.guidance import Look
from tgate_sampling.layout import Layout, block, map_tensors, tensors_in

#: What must stay the same between calls for a kept value to be worth anything:
#: sample shape without rows, rows per branch, dtype, device.
Signature: TypeAlias = tuple[tuple[int, ...], int, torch.dtype, torch.device]


def signature(sample: torch.Tensor, branches: int) -> Signature:
    """The signature of a call with `branches` equal blocks of rows."""
    return tuple(sample.shape[1:]), sample.shape[0] // branches, sample.dtype, sample.device


@dataclass(frozen=True, slots=True)
class Kept:
    """One module's output, a tensor or a nest of them, and the branches its rows belong to."""

    value: Any
    branches: Layout


def narrow(kept: Kept, branches: Layout, merge: str) -> Kept | None:
    """`kept` for the rows of `branches`, or None where it holds no such rows.

    Args:
        kept: (R, ...) rows of `kept.branches`, in order.
        branches: what is about to run.
        merge: `mean` averages all branches into the one that runs (T-GATE's rule); `cond` and
            `both` take the matching rows. All but `both` give a copy, so that the rest is freed.
    """
    if kept.branches == branches:
        return kept
    if len(branches) != 1 or branches[0] not in kept.branches:
        return None

    def take(tensor: torch.Tensor) -> torch.Tensor:
        if merge == "mean":
            parts = tensor.chunk(len(kept.branches))
            return sum(parts[1:], parts[0]) / len(parts)
        rows = tensor[block(kept.branches, branches[0], tensor.shape[0])]
        return rows if merge == "both" else rows.clone()

    return Kept(map_tensors(take, kept.value), branches)


def _three() -> deque[Look]:
    return deque(maxlen=3)  # no estimator rests on more


@dataclass
class Slot:
    """What one backbone call of each evaluation keeps (a tile or a prompt has its own).

    Looks are kept for each branch beside cond; where every branch has a call of its own, the
    uncond call's slot has them.
    """

    signature: Signature | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    looks: dict[str, deque[Look]] = field(default_factory=lambda: defaultdict(_three))
    version: int = 0

    def admit(self, new: Signature) -> bool:
        """Drop everything if the call has changed shape; returns whether something was dropped."""
        changed = self.signature is not None and self.signature != new
        if changed:
            self.kept.clear()
            self.looks.clear()
            self.version += 1
        self.signature = new
        return changed

    def seen(self, branches: Collection[str]) -> int:
        """How many looks there are at every one of these branches."""
        return min((len(self.looks[b]) if b in self.looks else 0 for b in branches), default=0)

    def forget(self) -> None:
        """Drop what sites kept, which nobody will read again."""
        if self.kept:
            self.kept.clear()
            self.version += 1

    def keep(self, site: str, value: Any, branches: Layout) -> None:
        self.kept[site] = Kept(value, branches)
        self.version += 1

    def fit(self, site: str, branches: Layout, merge: str) -> Any:
        """The kept output of `site` for `branches`, narrowed once if the rows have changed.

        None where nothing fits.
        """
        kept = self.kept.get(site)
        if kept is None:
            return None
        fitting = narrow(kept, branches, merge)
        if fitting is None:
            return None
        if fitting is not kept and merge != "both":
            self.kept[site] = fitting
        return fitting.value

    def tensors(self) -> Iterator[torch.Tensor]:
        for kept in self.kept.values():
            yield from tensors_in(kept.value)
        yield from tensors_in([(x.delta, x.cond) for looks in self.looks.values() for x in looks])


@dataclass
class Cache:
    """All slots of a run."""

    slots: dict[int, Slot] = field(default_factory=dict)

    def slot(self, call: int) -> Slot:
        return self.slots.setdefault(call, Slot())

    @property
    def bytes(self) -> int:
        """Memory held, each storage once."""
        return bytes_behind(t for slot in self.slots.values() for t in slot.tensors())

    def clear(self) -> None:
        self.slots.clear()


def bytes_behind(tensors: Iterable[torch.Tensor]) -> int:
    """Memory that tensors hold, each storage once; on the meta device, what it would be."""
    # Not data_ptr(): it is 0 for every tensor without memory.
    storages = {s._cdata: s.nbytes() for t in tensors for s in (t.untyped_storage(),)}
    return sum(storages.values())
