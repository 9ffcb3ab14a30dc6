"""The table of methods: in groups of equal cost, each over the fewer-steps run it must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tgate_plugins.cli.screen import si
from tgate_plugins.study.report.numbers import (
    NOTHING,
    percent,
    plain,
    seconds,
    signed,
    signed_percent,
    times,
    within,
)
from tgate_plugins.study.report.values import DECISIVE, Method, Model, Spread
from tgate_plugins.study.report.verdict import Verdict, contest, judge

#: What is better in a column; `none`: neither.
Better: TypeAlias = Literal["more", "less", "none"]


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that stay together however the table is sorted.

    Args:
        title: what they share.
        members: the methods.
        rival: the fewer-steps run that they must beat, always the last row.
        pinned: `top` and `bottom` stay there.
    """

    title: str
    members: tuple[Method, ...] = ()
    rival: Method | None = None
    pinned: Literal["", "top", "bottom"] = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval drawn beside its numbers, in percent of the width; zero lies at 50."""

    left: float
    width: float
    middle: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of the table.

    Args:
        main: as printed; a dash where there is none.
        small: the interval, or what else belongs to it.
        sort: what the column is sorted by.
        verdict: of a difference.
        bar: of a difference.
    """

    main: str = NOTHING
    small: str = ""
    sort: float | None = None
    verdict: Verdict | None = None
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it is called, which way is better, and how a row fills it."""

    family: str
    title: str
    better: Better
    fill: Callable[[Method], Cell]


def groups(model: Model) -> tuple[Group, ...]:
    """Rows of equal cost, dearest first; the rival is the last row of each."""
    measure = contest(model).measure
    wholes = [m for m in (model.converged, model.ungated) if m]
    running = [m for m in model.methods if m.ran and m.part != "baseline"]
    rivals = [*([model.ungated] if model.ungated else []), *model.fewer]
    found = [Group("what is compared with", tuple(wholes), pinned="top")] if wholes else []
    for rival in rivals:
        members = [m for m in running if m.rival == rival.label]
        if rival is model.ungated and not members:
            continue
        title = "saves less than a step" if rival is model.ungated else _cost(rival)
        found.append(Group(title, tuple(sorted(members, key=lambda m: _loss(m, measure))), rival))
    known = {r.label for r in rivals}
    alone = [m for m in running if m.rival not in known]
    for title, parts in _ALONE:
        members = [m for m in alone if m.part in parts]
        found += [Group(title, tuple(members))] if members else []
    out = tuple(m for m in model.methods if not m.ran)
    return (*found, Group("did not run", out, pinned="bottom")) if out else tuple(found)


_ALONE: Final = (
    ("no fewer-steps run to compare with", ("ours", "related")),
    ("figures: they explain, and save nothing", ("figure",)),
)


def columns(model: Model) -> tuple[Column, ...]:
    """Those that at least one method fills."""
    rows = [m for m in model.methods if m.ran]
    return tuple(c for c in _all_columns(model) if any(c.fill(m).sort is not None for m in rows))


def _all_columns(model: Model) -> list[Column]:
    prompts = len(model.prompts)
    widths = {key: _widest([m.gain(key) for m in model.methods]) for key in DECISIVE}
    cost = "cost of a picture"
    return [
        Column(cost, "steps", "less", lambda m: _cell(m.steps, lambda v: f"{v:.0f}")),
        Column(cost, "MACs", "less", lambda m: _cell(m.macs, si)),
        Column(cost, "fewer MACs", "more", lambda m: _cell(m.macs_speedup, times)),
        Column(cost, "time", "less", lambda m: _cell(m.seconds, seconds)),
        Column(cost, "faster", "more", lambda m: _cell(m.seconds_speedup, times)),
        *(_over(key, name, prompts, widths[key]) for key, name in _OVER),
        *(column for target in ("converged", "ungated") for column in _fidelity(target)),
        Column("quality alone", "object", "more", _measure("object", "percent")),
        Column("quality alone", "background", "more", _measure("background", "percent")),
        Column("quality alone", "FID", "less", lambda m: _cell(m.fid, plain)),
        Column("quality alone", "FID to ungated", "less", lambda m: _cell(m.fid_ungated, plain)),
        *(
            Column("shift from ungated", n, "none", _measure(f"ungated.{n}", "signed_percent"))
            for n in ("brightness", "chroma", "sharpness")
        ),
        Column("pictures", "made", "none", _made),
    ]


_OVER: Final = (("converged.psnr", "to converged, dB"), ("ungated.psnr", "to ungated, dB"))
_DIGITS: Final = {"psnr": 1, "ssim": 3, "ms_ssim": 3}


def _over(key: str, name: str, prompts: int, widest: float) -> Column:
    def fill(method: Method) -> Cell:
        gain = method.gain(key)
        if gain is None or gain.mean is None:
            return Cell()
        verdict = judge(gain, prompts)
        said = "no difference" if verdict == "same" else ""
        behind = f"{gain.behind} where the rival is identical" if gain.behind else ""
        also = (said, _identical(gain), behind)
        small = "; ".join(x for x in (within(gain, "signed"), *also) if x)
        return Cell(signed(gain.mean), small, gain.mean, verdict, _bar(gain, widest))

    return Column("over fewer steps of the same cost", name, "more", fill)


def _fidelity(target: str) -> list[Column]:
    family = f"fidelity to {target}"
    psnr = f"{target}.psnr"
    tails: tuple[tuple[str, Callable[[Spread], float | None]], ...] = (
        ("5th pct.", lambda s: s.p5),
        ("worst", lambda s: s.worst),
    )
    return [
        Column(family, "PSNR, dB", "more", _measure(psnr, "plain", 1)),
        *(Column(family, title, "more", _tail(psnr, get)) for title, get in tails),
        Column(family, "SSIM", "more", _measure(f"{target}.ssim", "plain", 3)),
        Column(family, "MS-SSIM", "more", _measure(f"{target}.ms_ssim", "plain", 3)),
    ]


def _measure(key: str, show: str, digits: int = 1) -> Callable[[Method], Cell]:
    shown = {"percent": percent, "signed_percent": signed_percent}

    def fill(method: Method) -> Cell:
        spread = method.measure(key)
        if spread is None:
            return Cell()
        if spread.mean is None:
            return Cell("identical", "")
        main = shown[show](spread.mean) if show in shown else plain(spread.mean, digits)
        small = "; ".join(x for x in (within(spread, show, digits), _identical(spread)) if x)
        return Cell(main, small, spread.mean)

    return fill


def _identical(spread: Spread) -> str:
    return f"{spread.identical} identical" if spread.identical else ""


def _tail(key: str, get: Callable[[Spread], float | None]) -> Callable[[Method], Cell]:
    def fill(method: Method) -> Cell:
        spread = method.measure(key)
        return _cell(get(spread) if spread else None, lambda v: plain(v, 1))

    return fill


def _made(method: Method) -> Cell:
    failed = f"{method.failed} failed" if method.failed else ""
    return Cell(str(method.pictures), failed, float(method.pictures))


def _cell(value: float | None, show: Callable[[float], str]) -> Cell:
    return Cell() if value is None else Cell(show(value), "", float(value))


def _widest(gains: Sequence[Spread | None]) -> float:
    ends = [abs(v) for g in gains if g for v in (g.mean, g.low, g.high) if v is not None]
    return max(ends, default=0.0)


def _bar(gain: Spread, widest: float) -> Bar | None:
    """Where an interval lies; by square roots, so that one great loss does not flatten the rest."""
    if gain.low is None or gain.high is None or gain.mean is None or widest <= 0:
        return None

    def place(value: float) -> float:
        share = math.sqrt(abs(value) / widest)
        return round(50 + 50 * share * (1 if value > 0 else -1), 2)

    left = place(gain.low)
    return Bar(left, round(max(place(gain.high) - left, 0.8), 2), place(gain.mean))


def _cost(rival: Method) -> str:
    return f"the cost of {rival.steps} steps" if rival.steps else f"the cost of {rival.label}"


def _loss(method: Method, measure: str) -> float:
    gain = method.gain(measure)
    return -gain.mean if gain is not None and gain.mean is not None else float("inf")
