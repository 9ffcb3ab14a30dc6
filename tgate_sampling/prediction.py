"""What a run will save and cost, said before anything has run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tgate_sampling.cost import ZERO, Macs
from tgate_sampling.decision import GATES
from tgate_sampling.report import Report, Spent, macs_dict, si


@dataclass(frozen=True, slots=True)
class GateForecast:
    """One gate's part.

    Args:
        gate: its name.
        steps: in which steps it is closed.
        saved: MACs.
        share: saved true MACs as a part of the ungated run's.
        speedup: ungated / (ungated - saved), in true MACs: the gain of this part alone.
        cache_bytes: what it holds when the run holds most.
    """

    gate: str
    steps: tuple[int, ...]
    saved: Macs
    share: float
    speedup: float
    cache_bytes: int


@dataclass(frozen=True)
class Prediction:
    """A run foretold. Made by `explain`.

    Where a policy decides by what it measures, the numbers are those of every gate closing right
    after the first step, and `unclosed` holds those of none ever closing: the run lies in between
    (in a stack of policies it may cost more; `notes` says so).

    Args:
        policy: in one line.
        backbone: its class.
        call: one backbone call, in words.
        steps: of the run.
        rows: backbone rows (that run, asked for).
        macs: done, ungated, and saved per gate.
        gates: each gate that closes or holds memory.
        peak_cache_bytes: the most memory the caches ever hold.
        notes: what stays open and why, and what is not counted.
        unclosed: the other end of the range; None where the decisions are known.
    """

    policy: str
    backbone: str
    call: str
    steps: int
    rows: tuple[int, int]
    macs: Spent
    gates: tuple[GateForecast, ...]
    peak_cache_bytes: int
    notes: tuple[str, ...] = ()
    unclosed: Prediction | None = None

    @property
    def closed(self) -> dict[str, tuple[int, ...]]:
        """The steps in which each gate is closed."""
        return {g.gate: g.steps for g in self.gates if g.steps}

    @property
    def speedup(self) -> float:
        """`ungated / done`, in true MACs: the most that wall time can gain."""
        return self.macs.speedup

    def __str__(self) -> str:
        lines = [f"{self.policy} on {self.backbone}: {self.steps} steps, {self.call}"]
        peak = self.peak_cache_bytes
        if self.unclosed is not None:
            least, peak = self.unclosed, max(peak, self.unclosed.peak_cache_bytes)
            lines.append(
                "decides in the run: between never closing, "
                f"{si(least.macs.done.true)} MACs ({least.speedup:.3f}x), "
                "and closing right after the first step, which is:"
            )
        done, ungated = self.macs.done, self.macs.ungated
        lines += [
            f"MACs           {si(done.true)} of {si(ungated.true)} ({self.speedup:.3f}x); without "
            f"attention's own products {si(done.layers)} of {si(ungated.layers)}",
            "backbone rows  {} of {}".format(*self.rows),
            f"cache          {_bytes(peak)} at most",
        ]
        lines += self._table() if self.gates else ["no gate closes"]
        lines += [f"note           {note}" for note in self.notes]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        form = "{:<9} {:>9} {:>11} {:>7} {:>8} {:>14}"
        head = form.format("gate", "closed", "saves", "share", "alone", "cache at peak")
        return [head] + [
            form.format(
                g.gate,
                f"{len(g.steps)} of {self.steps}",
                si(g.saved.true),
                f"{g.share:.1%}",
                f"{g.speedup:.3f}x",
                _bytes(g.cache_bytes),
            )
            for g in self.gates
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        return {
            "policy": self.policy,
            "backbone": self.backbone,
            "call": self.call,
            "steps": self.steps,
            "rows": dict(zip(("ran", "asked"), self.rows, strict=True)),
            "macs": macs_dict(self.macs),
            "gates": {
                g.gate: {
                    "steps": list(g.steps),
                    "share": g.share,
                    "speedup": g.speedup,
                    "cache_bytes": g.cache_bytes,
                }
                for g in self.gates
            },
            "peak_cache_bytes": self.peak_cache_bytes,
            "notes": list(self.notes),
            "unclosed": self.unclosed.to_dict() if self.unclosed else None,
        }

    def compare(self, report: Report) -> str:
        """What was predicted beside what a run's report counted, as text."""
        form = "{:<20} {:>24} {:>12} {:>7}"
        lines = [form.format("", "predicted", "counted", "ratio")]
        for name, show, ends, counted in self._beside(report):
            low, high = sorted(ends)
            said = show(high) if low == high else f"{show(low)} to {show(high)}"
            ratio = f"{counted / high:.3f}" if low == high and high else ""
            lines.append(form.format(name, said, show(counted), ratio))
        if report.macs is None:
            lines.append("MACs were not counted: the adapter has no recipe for it")
        if report.total != self.steps:
            lines.append(f"the run took {report.total} steps, and {self.steps} were predicted")
        return "\n".join(line.rstrip() for line in lines)

    def _beside(self, report: Report) -> list[_Line]:
        other, spent = self.unclosed or self, report.macs
        lines: list[_Line] = []
        if spent is not None:
            done, least = self.macs.done, other.macs.done
            lines.append(("MACs", si, (done.true, least.true), spent.done.true))
            ends = (done.layers, least.layers)
            lines.append(("  without products", si, ends, spent.done.layers))
            for gate in (g for g in GATES if g in self.macs.saved or g in spent.saved):
                both = (saved.get(gate, ZERO).true for saved in (self.macs.saved, other.macs.saved))
                counted = spent.saved.get(gate, ZERO).true
                lines.append((f"  saved by {gate}", si, (next(both), next(both)), counted))
        lines.append(("backbone rows", str, (self.rows[0], other.rows[0]), report.rows[0]))
        held = (self.peak_cache_bytes, other.peak_cache_bytes)
        lines.append(("cache at peak", _bytes, held, report.peak_cache_bytes))
        return lines


#: A line of a comparison: name, how a number is shown, both ends of what was predicted, counted.
_Line: TypeAlias = tuple[str, Callable[[float], str], tuple[float, float], float]


def _bytes(value: float) -> str:
    if not value:
        return "0"
    return f"{value / 2**20:.2f} MiB" if value >= 2**19 else f"{value / 2**10:.2f} KiB"


def gate_forecasts(report: Report, spent: Spent, held: Mapping[str, int]) -> list[GateForecast]:
    """Each gate of a rehearsed run, in the order of gates.

    Args:
        report: of the rehearsal.
        spent: its MACs.
        held: bytes by gate when most were held.
    """
    closed, ungated = report.closed, spent.ungated.true
    names = [g for g in GATES if g in closed or spent.saved.get(g) or held.get(g)]
    found = []
    for gate in names:
        saved = spent.saved.get(gate, ZERO)
        rest = ungated - saved.true
        share = saved.true / ungated if ungated else 0.0
        speedup = ungated / rest if rest else 1.0
        steps = closed.get(gate, ())
        found.append(GateForecast(gate, steps, saved, share, speedup, held.get(gate, 0)))
    return found
