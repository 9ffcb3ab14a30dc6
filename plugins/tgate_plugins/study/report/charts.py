"""What the charts draw, as plain data: points of cost and quality, curves of convergence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from tgate_plugins.study.report.values import Curves, Method, Model, Spread
from tgate_plugins.study.report.verdict import of

#: Measures that a chart can show, as they are offered, and which way is better.
MEASURES: Final = (
    ("converged.psnr", "PSNR to the converged picture, dB", "more"),
    ("ungated.psnr", "PSNR to the ungated picture, dB", "more"),
    ("converged.ssim", "SSIM to the converged picture", "more"),
    ("ungated.ssim", "SSIM to the ungated picture", "more"),
    ("converged.ms_ssim", "MS-SSIM to the converged picture", "more"),
    ("ungated.ms_ssim", "MS-SSIM to the ungated picture", "more"),
    ("object", "right object, share of pictures", "more"),
    ("background", "right background, share of pictures", "more"),
    ("fid", "FID to real pictures (lower is better)", "less"),
    ("fid_ungated", "FID to the ungated pictures (lower is better)", "less"),
)
#: A site whose output changes less than this from one step to the next has converged.
STILL: Final = 0.01


def pareto(model: Model) -> dict[str, Any]:
    """The methods as points, and the line of fewer steps that they must lie above.

    The converged run is left out: at its cost everything else would be one heap.
    """
    line = [m for m in (*model.fewer, model.ungated) if m is not None]
    drawn = {m.label for m in line} | ({model.converged.label} if model.converged else set())
    points = [m for m in model.methods if m.ran and m.label not in drawn]
    shown = [*line, *points]
    return {
        "measures": [
            {"key": key, "title": title, "better": better}
            for key, title, better in MEASURES
            if any(value(m, key) for m in shown)
        ],
        "line": [_point(m, model) for m in sorted(line, key=lambda m: m.steps or 0)],
        "points": [_point(m, model) for m in points],
    }


def value(method: Method, key: str) -> Spread | None:
    """A method's value of a chart's measure."""
    if key in {"fid", "fid_ungated"}:
        distance = method.fid if key == "fid" else method.fid_ungated
        return None if distance is None else Spread(distance)
    spread = method.measure(key)
    return spread if spread is not None and spread.mean is not None else None


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which of some (cost, quality) nothing else beats in both.

    >>> front([(1.0, 1.0), (2.0, 3.0), (2.5, 2.0), (2.0, 3.0)])
    [True, True, False, True]
    """
    return [
        not any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)
        for cost, quality in points
    ]


def lines(curves: Curves) -> list[dict[str, Any]]:
    """One line a site, in the order in which the backbone calls them."""
    names = short_names(list(curves.sites))
    return [
        {"site": site, "name": names[site], "values": [_positive(v) for v in values]}
        for site, values in curves.sites.items()
    ]


def settled(curves: Curves) -> str:
    """What the curves say, in a sentence: when the median site stands still."""
    middle = [_middle([v[i] for v in curves.sites.values() if i < len(v)]) for i in _steps(curves)]
    known = [(i, v) for i, v in enumerate(middle) if v is not None]
    if not known:
        return "Nothing was measured."
    moving = [i for i, v in known if v >= STILL]
    still = [i for i, _ in known if not moving or i > moving[-1]]
    count = f"{len(curves.sites)} sites" if len(curves.sites) > 1 else "one site"
    if not still:
        step, value = known[-1]
        return (
            f"Of {count}, the median one never stands still: in step {step}, the last one measured,"
            f" its output still changes by {100 * value:.1f} %."
        )
    return f"Of {count}, the median one changes by less than 1 % a step from step {still[0]} on."


def short_names(sites: Sequence[str]) -> dict[str, str]:
    """Names of sites without the words that all of them share.

    >>> short_names(["down_blocks.0.attentions.1.transformer_blocks.0.attn2"])
    {'down_blocks.0.attentions.1.transformer_blocks.0.attn2': 'down 0.1.0'}
    """
    short = {site: _short(site) for site in sites}
    return short if len(set(short.values())) == len(short) else {site: site for site in sites}


def _short(site: str) -> str:
    bare = re.sub(r"\.?(attentions|transformer_blocks|attn\d?|processor)\b", "", site)
    return re.sub(r"^(down|up|mid)_blocks?\.", r"\1 ", bare).strip(".") or site


def _steps(curves: Curves) -> range:
    return range(max((len(v) for v in curves.sites.values()), default=0))


def _middle(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return median(known) if known else None


def _positive(value: float | None) -> float | None:
    # A logarithmic axis has no zero.
    return value if value is not None and value > 0 else None


def _point(method: Method, model: Model) -> Mapping[str, Any]:
    values = {key: found.to_dict() for key, _, _ in MEASURES if (found := value(method, key))}
    return {
        "label": method.label,
        "part": method.part,
        "steps": method.steps,
        "macs": method.macs,
        "seconds": method.seconds,
        "verdict": of(method, model),
        "rival": method.rival,
        "values": values,
    }
