"""What a comparison found: methods in groups of equal cost, each with its fewer-steps rival."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from tgate_plugins.cli.bench import Cost, Method, Shot
from tgate_plugins.cli.metrics import Image, Spread, finite, psnr, spread, ssim


@dataclass(frozen=True)
class Group:
    """Methods that cost about the same.

    Args:
        title: what they share.
        members: gated methods, then the fewer-steps run that costs no more than any of them.
    """

    title: str
    members: tuple[Method, ...]


@dataclass(frozen=True)
class Row:
    """One method, over all pictures that succeeded.

    Args:
        method: which.
        images, failed: how many pictures there are, and how many runs failed.
        cost: mean of a run.
        speedup: the ungated run's cost over this one's.
        seconds: median wall time.
        faster: the median of the ungated runs made beside them over this one.
        psnr, ssim: against the reference; None without a picture.
        rival: label of the run that the method must beat; None where there is none.
        gain, worst_gain: mean and worst PSNR over the rival's, in dB, of the pictures both made;
            None where there is no rival but the reference itself.
    """

    method: Method
    images: int
    failed: int
    cost: Cost | None = None
    speedup: float | None = None
    seconds: float | None = None
    faster: float | None = None
    psnr: Spread | None = None
    ssim: Spread | None = None
    rival: str | None = None
    gain: float | None = None
    worst_gain: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "method": self.method.label,
            "kind": self.method.kind,
            "steps": self.method.steps,
            "images": self.images,
            "failed": self.failed,
            "rows": self.cost.rows if self.cost else None,
            "macs": self.cost.macs if self.cost else None,
            "macs_speedup": self.speedup,
            "seconds": self.seconds,
            "seconds_speedup": self.faster,
            "identical": self.psnr.identical if self.psnr else 0,
            "psnr": self.psnr.to_dict() if self.psnr else None,
            "ssim": self.ssim.to_dict() if self.ssim else None,
            "rival": self.rival,
            "psnr_gain_over_rival": {
                "mean": finite(self.gain),
                "worst": finite(self.worst_gain),
            },
        }


@dataclass(frozen=True)
class Scored:
    """A picture with its distance from the reference."""

    shot: Shot
    psnr: float | None = None
    ssim: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        shot = self.shot
        return {
            "method": shot.method,
            "prompt": shot.prompt,
            "seed": shot.seed,
            "seconds": shot.seconds,
            "ungated_seconds_beside": shot.beside or None,
            "rows": shot.cost.rows,
            "macs": shot.cost.macs,
            "psnr": finite(self.psnr),
            "identical": self.psnr is not None and finite(self.psnr) is None,
            "ssim": self.ssim,
            "closed": {gate: list(steps) for gate, steps in shot.closed.items()},
        }


def score(shots: Sequence[Shot], reference: str) -> list[Scored]:
    """Each picture against the reference's of the same prompt and seed."""
    truth: Mapping[tuple[str, int], Image] = {
        (s.prompt, s.seed): s.image for s in shots if s.method == reference and s.image is not None
    }
    scored = []
    for shot in shots:
        target = truth.get((shot.prompt, shot.seed))
        if shot.image is None or target is None:
            scored.append(Scored(shot))
        else:
            scored.append(Scored(shot, psnr(shot.image, target), ssim(shot.image, target)))
    return scored


def mean_cost(shots: Sequence[Shot], method: Method) -> Cost | None:
    """Mean over the runs of a method that succeeded; None where none did."""
    costs = [s.cost for s in shots if s.method == method.label and s.image is not None]
    if not costs:
        return None
    macs = [c.macs for c in costs if c.macs is not None]
    return Cost(fmean(c.rows for c in costs), fmean(macs) if len(macs) == len(costs) else None)


def summarize(
    scored: Sequence[Scored], methods: Sequence[Method], rivals: Mapping[str, str]
) -> list[Row]:
    """One row a method.

    Args:
        scored: every run.
        methods: in the order of the rows; the ungated one among them.
        rivals: for a gated method's label, the run that it must beat.
    """
    base = next(_row(scored, m, None, {}) for m in methods if m.kind == "ungated")
    return [_against(_row(scored, method, base, rivals), scored) for method in methods]


def _row(
    scored: Sequence[Scored], method: Method, base: Row | None, rivals: Mapping[str, str]
) -> Row:
    mine = [s for s in scored if s.shot.method == method.label]
    good = [s for s in mine if s.shot.image is not None]
    failed = len(mine) - len(good)
    cost = mean_cost([s.shot for s in good], method)
    if cost is None:
        return Row(method, 0, failed, rival=rivals.get(method.label))
    seconds = median(s.shot.seconds for s in good)
    clock = [s.shot.beside for s in good if s.shot.beside]
    return Row(
        method,
        len(good),
        failed,
        cost,
        1 / cost.share(base.cost) if base and base.cost else None,
        seconds,
        median(clock) / seconds if clock else None,
        spread([s.psnr for s in good if s.psnr is not None]),
        spread([s.ssim for s in good if s.ssim is not None]),
        rivals.get(method.label),
    )


def _against(row: Row, scored: Sequence[Scored]) -> Row:
    """The row with its distance to its rival, over the pictures that both have."""
    mine, theirs = _by_picture(scored, row.method.label), _by_picture(scored, row.rival or "")
    both = mine.keys() & theirs.keys()
    ours, other = spread([mine[k] for k in both]), spread([theirs[k] for k in both])
    if ours is None or other is None or math.isinf(other.mean):
        return row  # nothing to compare, or the rival is the reference itself
    return replace(row, gain=ours.mean - other.mean, worst_gain=ours.worst - other.worst)


def _by_picture(scored: Sequence[Scored], label: str) -> dict[tuple[str, int], float]:
    return {
        (s.shot.prompt, s.shot.seed): s.psnr
        for s in scored
        if s.shot.method == label and s.psnr is not None
    }


def arrange(
    plain: Sequence[Method], gated: Sequence[Method], rivals: Mapping[str, Method]
) -> list[Group]:
    """Groups of equal cost: each fewer-steps run stands after the methods that must beat it.

    Args:
        plain: the ungated run, and the reference where that is another.
        gated: in the order in which they were asked for.
        rivals: by a gated method's label; one without any (it failed) goes last.
    """
    groups = [Group("ungated", tuple(plain))]
    order = dict.fromkeys(rivals[m.label] for m in gated if m.label in rivals)
    for rival in order:
        members = [m for m in gated if rivals.get(m.label) == rival]
        if rival.kind == "ungated":
            groups.append(Group("saves less than one step", tuple(members)))
        else:
            groups.append(Group(f"the cost of {rival.steps} steps", (*members, rival)))
    alone = tuple(m for m in gated if m.label not in rivals)
    return [*groups, Group("nothing to compare with", alone)] if alone else groups
