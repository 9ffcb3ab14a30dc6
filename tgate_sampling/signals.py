"""What was measured for the policy: how much attention moves, how well guidance is estimated.

Measured in a step's first evaluation, on the device; read by the host once a step, when the next
decision is made. Kinds are those of sites ("cross", "self"), and "guidance".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import torch


@dataclass(frozen=True, slots=True)
class SiteSignal:
    """One site, worst branch of each sample.

    Args:
        change: |y - y_before| / |y_before| per sample. For guidance: the relative error that the
            estimator would have made in the guided output at this look.
        cosine: cos(y, y_before) per sample. For guidance: cos(cond, uncond).
    """

    change: tuple[float, ...]
    cosine: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Signal:
    """All sites of one kind.

    Args:
        change: relative L2 change per sample, mean over sites.
        cosine: cosine similarity per sample, mean over sites.
        cosine_delta: cosine minus the cosine one step before, per sample; empty at first.
        sites: the same per site, by name.
    """

    change: tuple[float, ...]
    cosine: tuple[float, ...]
    cosine_delta: tuple[float, ...] = ()
    sites: Mapping[str, SiteSignal] = field(default_factory=dict, repr=False)

    @property
    def worst_change(self) -> float:
        """The largest change of any sample: a batch closes when its last sample agrees."""
        return max(self.change)

    @property
    def worst_cosine(self) -> float:
        """The smallest cosine of any sample."""
        return min(self.cosine)

    @property
    def worst_cosine_delta(self) -> float | None:
        """The largest absolute cosine delta of any sample; None before there is one."""
        return max((abs(d) for d in self.cosine_delta), default=None)


class Signals(Mapping[str, Signal]):
    """Signals by kind (`signals["cross"]`); a kind that was not measured is absent."""

    def __init__(self, by_kind: Mapping[str, Signal] | None = None) -> None:
        self._by_kind = MappingProxyType(dict(by_kind or {}))

    def __getitem__(self, kind: str) -> Signal:
        return self._by_kind[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_kind)

    def __len__(self) -> int:
        return len(self._by_kind)

    def __repr__(self) -> str:
        return f"Signals({dict(self._by_kind)!r})"


def compare(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Relative change and cosine of each row, on the device.

    Args:
        new: (R, ...) this step's output.
        old: (R, ...) the last stored one.

    Returns:
        (R, 2) float32: relative L2 change, cosine.
    """
    a, b = new.flatten(1).float(), old.flatten(1).float()
    tiny = torch.finfo(torch.float32).tiny
    norm_a, norm_b = a.norm(dim=1), b.norm(dim=1)
    change = (a - b).norm(dim=1) / norm_b.clamp_min(tiny)
    cosine = (a * b).sum(1) / (norm_a * norm_b).clamp_min(tiny)
    return torch.stack([change, cosine], 1)  # (R, 2)


def of_samples(values: torch.Tensor, branches: int, samples: int) -> torch.Tensor:
    """The worst change and cosine that any row of a sample has.

    Args:
        values: (R, 2) as `compare` gives; R is branches x samples x what a site folds into its rows
            (frames, or pixels where it attends over time).
        branches: how many branches the rows hold.
        samples: how many samples each branch holds.

    Returns:
        (B, 2), on the device.
    """
    rows = values.view(branches, samples, -1, 2)
    return torch.stack([rows[..., 0].amax((0, 2)), rows[..., 1].amin((0, 2))], 1)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one site left on the device.

    Args:
        kind: of the site, or "guidance".
        name: of the site; for guidance, "denoised" or "raw".
        values: (B, 2) change and cosine of each sample.
    """

    kind: str
    name: str
    values: torch.Tensor


def read(measured: Sequence[Measurement], before: Signals) -> Signals:
    """Bring measurements to the host: the one place where an adaptive policy waits.

    Args:
        measured: what the last step left on the device.
        before: the signals of the step before, for the cosine's delta.
    """
    rows = iter(torch.cat([m.values for m in measured]).tolist())  # (sum of R, 2), one transfer
    kinds: dict[str, dict[str, SiteSignal]] = {}
    for m in measured:
        own = [next(rows) for _ in range(len(m.values))]
        kinds.setdefault(m.kind, {})[m.name] = SiteSignal(*map(tuple, zip(*own, strict=True)))
    return Signals({k: _over_sites(sites, before.get(k)) for k, sites in kinds.items()})


def _over_sites(sites: Mapping[str, SiteSignal], before: Signal | None) -> Signal:
    change = _mean([s.change for s in sites.values()])
    cosine = _mean([s.cosine for s in sites.values()])
    delta: tuple[float, ...] = ()
    if before is not None and len(before.cosine) == len(cosine):
        delta = tuple(now - then for now, then in zip(cosine, before.cosine, strict=True))
    return Signal(change, cosine, delta, MappingProxyType(dict(sites)))


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(sum(column) / len(column) for column in zip(*rows, strict=True))
