"""What a run decided, saved and spent, said plainly."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tgate_sampling.cost import ZERO, CostModel, Macs, total
from tgate_sampling.decision import GATES
from tgate_sampling.run import CallRecord, Event, StepRecord


@dataclass(frozen=True, slots=True)
class Spent:
    """MACs of a run.

    Args:
        done: what was computed.
        ungated: what the same calls cost with every gate open.
        saved: the difference, by the gate that saved it; adds up to ungated - done.
    """

    done: Macs
    ungated: Macs
    saved: dict[str, Macs]

    @property
    def speedup(self) -> float:
        """`ungated / done`, in true MACs: the most that wall time can gain."""
        return self.ungated.true / self.done.true if self.done.true else 1.0


@dataclass(frozen=True)
class Report:
    """The record of one run.

    Args:
        policy: in one line.
        backbone: its class.
        adapter: the one that knows it; "generic" found its sites by rule.
        estimator, merge, refresh: how closed gates were filled.
        steps: what each step decided and did.
        events: what was computed in full for want of knowledge, and other news.
        seconds: wall time from the first backbone call to the end of the run. On an accelerator
            the host may be ahead of the device by the last calls.
        peak_cache_bytes: the most memory the run's caches ever held.
        complete: whether the run reached its end.
    """

    policy: str
    backbone: str
    adapter: str
    estimator: str
    merge: str
    refresh: int | None
    steps: tuple[StepRecord, ...]
    events: tuple[Event, ...]
    seconds: float
    peak_cache_bytes: int
    complete: bool
    cost: CostModel = field(repr=False, compare=False)

    @property
    def total(self) -> int | None:
        """The run's own number of steps, where the sampler knew it."""
        return self.steps[0].context.total if self.steps else None

    @property
    def closed(self) -> dict[str, tuple[int, ...]]:
        """The steps in which each gate was closed."""
        return {
            gate: steps
            for gate in GATES
            if (steps := tuple(s.index for s in self.steps if gate in s.decision.closed))
        }

    @property
    def rows(self) -> tuple[int, int]:
        """Backbone rows (ran, asked for)."""
        calls = [c for s in self.steps for c in s.calls]
        return sum(c.ran for c in calls), sum(c.rows for c in calls)

    @cached_property
    def macs(self) -> Spent | None:
        """MACs done and saved per gate; None where the adapter has no way to count.

        Counted when first read, on the meta device (about a second for a full-size UNet).
        """
        spent: list[Spent] = []
        for step in self.steps:
            for call in step.calls:
                one = spend(call, self.cost)
                if one is None:
                    return None
                spent.append(one)
        gates = {g for s in spent for g in s.saved}
        return Spent(
            total(s.done for s in spent),
            total(s.ungated for s in spent),
            {g: total(s.saved.get(g, ZERO) for s in spent) for g in GATES if g in gates},
        )

    def strip(self) -> str:
        """One line a gate, one character a step: `#` closed, `.` open."""
        lines = []
        for gate in self.closed:
            marks = "".join("#" if gate in s.decision.closed else "." for s in self.steps)
            lines.append(f"{gate:<9}{marks}")
        return "\n".join(lines)

    def __str__(self) -> str:
        backbone = f"{self.backbone} ({self.adapter})" if self.adapter else self.backbone
        head = f"{self.policy} on {backbone}: {len(self.steps)} steps, {self.seconds:.2f} s"
        lines = [head if self.complete else f"{head} (the run did not reach its end)"]
        if self.steps:
            ran, asked = self.rows
            lines.append(f"backbone rows  {ran} of {asked}")
        lines += _macs_lines(self.macs)
        lines.append(
            f"filling        estimator={self.estimator}, merge={self.merge}"
            + (f", refresh={self.refresh}" if self.refresh else "")
        )
        lines.append(f"cache          {self.peak_cache_bytes / 2**20:.2f} MiB at most, 0 now")
        if strip := self.strip():
            lines.append(strip)
        elif self.steps:
            lines.append("no gate closed")
        lines += [f"event          step {e.step}: {e.message}" for e in self.events]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        spent = self.macs
        return {
            "policy": self.policy,
            "backbone": self.backbone,
            "adapter": self.adapter,
            "estimator": self.estimator,
            "merge": self.merge,
            "refresh": self.refresh,
            "complete": self.complete,
            "seconds": self.seconds,
            "peak_cache_bytes": self.peak_cache_bytes,
            "rows": dict(zip(("ran", "asked"), self.rows, strict=True)),
            "macs": macs_dict(spent) if spent else None,
            "steps": [_step_dict(s) for s in self.steps],
            "events": [{"kind": e.kind, "step": e.step, "message": e.message} for e in self.events],
        }

    def to_json(self) -> str:
        """`to_dict` as indented JSON text."""
        return json.dumps(self.to_dict(), indent=2)


def spend(call: CallRecord, cost: CostModel) -> Spent | None:
    """The MACs of one backbone call, and who saved the rest.

    Guidance saves whole rows; attention gates save their sites on the rows that ran; a block layer
    saves what it skipped on all rows. The three add up to what an ungated call would cost more.
    """
    footprint = cost.footprint(call.shape)
    if footprint is None:
        return None
    skipped = footprint.of(call.skipped)
    row = footprint.whole - skipped
    saved = {
        kind: footprint.attention(names, call.skipped) * call.ran
        for kind, names in call.reused.items()
        if names
    }
    if call.ran < call.rows:
        saved["guidance"] = row * (call.rows - call.ran)
    if call.skipped:
        saved["block"] = skipped * call.rows
    ungated = footprint.whole * call.rows
    return Spent(ungated - total(saved.values()), ungated, saved)


def _macs_lines(spent: Spent | None) -> list[str]:
    if spent is None:
        return ["MACs           not counted: this backbone cannot be built or run without weights"]
    lines = [
        f"MACs           {si(spent.done.true)} of {si(spent.ungated.true)} "
        f"({spent.speedup:.3f}x); without attention's own products "
        f"{si(spent.done.layers)} of {si(spent.ungated.layers)}"
    ]
    for gate, macs in spent.saved.items():
        share = macs.true / spent.ungated.true if spent.ungated.true else 0.0
        lines.append(f"  {gate:<12} saved {si(macs.true)} ({share:.1%})")
    return lines


def si(value: float) -> str:
    """A count with its unit, as `13.817 T`."""
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= factor:
            return f"{value / factor:.3f} {unit}"
    return f"{value:.0f}"


def macs_dict(spent: Spent) -> dict[str, Any]:
    """MACs done and saved, as plain values."""

    def both(macs: Macs) -> dict[str, float]:
        return {"true": macs.true, "without_attention_products": macs.layers}

    return {
        "done": both(spent.done),
        "ungated": both(spent.ungated),
        "saved": {gate: both(macs) for gate, macs in spent.saved.items()},
        "speedup": spent.speedup,
    }


def _step_dict(step: StepRecord) -> dict[str, Any]:
    return {
        "index": step.index,
        "sigma": step.context.sigma,
        "closed": sorted(step.decision.closed),
        "stored": sorted(step.stored),
        "reason": step.decision.reason,
        "evaluations": step.evaluations,
        "calls": [
            {"rows": c.rows, "ran": c.ran, "reused": {k: len(v) for k, v in c.reused.items()}}
            for c in step.calls
        ],
    }
