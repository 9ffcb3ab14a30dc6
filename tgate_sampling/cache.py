"""What one run keeps: attention outputs and looks at guidance, by backbone call of an evaluation.

A kept value is read only where its branch labels, its shape, its device and its dtype fit; anything
else is dropped and computed anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from tgate_sampling.guidance import Look
from tgate_sampling.layout import Layout, block

#: What must stay the same between calls for a kept value to be worth anything:
#: sample shape without rows, rows per branch, dtype, device.
Signature: TypeAlias = tuple[tuple[int, ...], int, torch.dtype, torch.device]


def signature(sample: torch.Tensor, branches: int) -> Signature:
    """The signature of a call with `branches` equal blocks of rows."""
    return tuple(sample.shape[1:]), sample.shape[0] // branches, sample.dtype, sample.device


@dataclass(frozen=True, slots=True)
class Kept:
    """One site's output and the branches its rows belong to."""

    tensor: torch.Tensor
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
    if merge == "mean":
        parts = kept.tensor.chunk(len(kept.branches))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return Kept(total / len(parts), branches)
    rows = kept.tensor[block(kept.branches, branches[0], kept.tensor.shape[0])]
    return Kept(rows if merge == "both" else rows.clone(), branches)


@dataclass
class Slot:
    """What one backbone call of each evaluation keeps (a tile or a prompt has its own)."""

    signature: Signature | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    looks: deque[Look] = field(default_factory=lambda: deque(maxlen=2))
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

    def keep(self, site: str, tensor: torch.Tensor, branches: Layout) -> None:
        self.kept[site] = Kept(tensor, branches)
        self.version += 1

    def fit(self, site: str, branches: Layout, merge: str) -> torch.Tensor | None:
        """The kept output of `site` for `branches`, merged once if the rows have changed."""
        kept = self.kept.get(site)
        if kept is None:
            return None
        fitting = narrow(kept, branches, merge)
        if fitting is None:
            return None
        if fitting is not kept and merge != "both":
            self.kept[site] = fitting
        return fitting.tensor

    def tensors(self) -> Iterator[torch.Tensor]:
        for kept in self.kept.values():
            yield kept.tensor
        for look in self.looks:
            yield look.delta
            if look.cond is not None:
                yield look.cond


@dataclass
class Cache:
    """All slots of a run."""

    slots: dict[int, Slot] = field(default_factory=dict)

    def slot(self, call: int) -> Slot:
        return self.slots.setdefault(call, Slot())

    @property
    def bytes(self) -> int:
        """Memory held, each storage once."""
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
            for slot in self.slots.values()
            for t in slot.tensors()
        }
        return sum(storages.values())

    def clear(self) -> None:
        self.slots.clear()


__all__ = ["Cache", "Kept", "Signature", "Slot", "narrow", "signature"]
