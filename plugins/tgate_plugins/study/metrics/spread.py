"""Many pictures' values as one line: mean with its interval, 5th percentile, worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tgate_plugins.cli.metrics import finite
from tgate_plugins.study.metrics.names import Better
from tgate_plugins.study.metrics.pictures import Values
from tgate_sampling.errors import OptionError

RESAMPLES: Final = 2000
#: Numbers drawn at once: 8 MB.
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Summary:
    """A measure over all pictures; NaN where nothing was measured.

    Args:
        mean: of the finite values; infinite where all are.
        low, high: bootstrap 95 % interval of that mean.
        p5: the value that 5 % of the pictures are worse than: the 5th percentile, or the 95th
            where less is better.
        worst: of all values.
        n: pictures measured; those without a value (NaN: not asked) are not.
        identical: of them, those with the value +inf, in neither mean, interval nor percentile:
            pictures equal to their reference. In a difference: only ours is.
        behind: of them, those with the value -inf, in no mean either: in a difference, pictures
            of which only the other equals the reference.
    """

    mean: float
    low: float
    high: float
    p5: float
    worst: float
    n: int
    identical: int = 0
    behind: int = 0

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain values for JSON, which has no infinity and no NaN: there they are null."""
        return {name: finite(value) for name, value in asdict(self).items()}


def summarize(
    values: NDArray[Any] | Sequence[float],
    groups: NDArray[Any] | Sequence[Any] | None = None,
    seed: int = 0,
    better: Better = "more",
) -> Summary:
    """Summarize one value a picture.

    Args:
        values: (N); NaN is left out, an infinity counted and left out of the mean.
        groups: (N) prompt of each picture. Seeds of one prompt are alike, so whole prompts are
            resampled; without groups each picture is its own.
        seed: of the bootstrap.
        better: which values are bad, for `p5` and `worst`.

    >>> found = summarize([20.0, 30.0, np.inf])
    >>> found.mean, found.p5, found.worst, found.n, found.identical
    (25.0, 20.5, 20.0, 3, 1)
    """
    found = np.asarray(values, np.float64)
    labels = np.arange(len(found)) if groups is None else np.asarray(groups)
    if found.ndim != 1 or labels.shape != found.shape:
        raise OptionError(
            f"A summary takes one value and one group a picture and got {found.shape} and "
            f"{labels.shape}; give two lists of the same length."
        )
    asked = ~np.isnan(found)
    found, labels = found[asked], labels[asked]
    identical, behind = int(np.sum(found == np.inf)), int(np.sum(found == -np.inf))
    real = np.isfinite(found)
    if not real.any():
        alike = float(found[0]) if len(found) and not (identical and behind) else np.nan
        return Summary(alike, alike, alike, alike, alike, len(found), identical, behind)
    low, high = interval(found[real], labels[real], seed)
    return Summary(
        mean=float(found[real].mean()),
        low=low,
        high=high,
        p5=float(np.percentile(found[real], 95 if better == "less" else 5)),
        worst=_worst(found, better),
        n=len(found),
        identical=identical,
        behind=behind,
    )


def difference(
    ours: NDArray[Any] | Sequence[float],
    theirs: NDArray[Any] | Sequence[float],
    groups: NDArray[Any] | Sequence[Any] | None = None,
    seed: int = 0,
    better: Better = "more",
) -> Summary:
    """Summarize ours - theirs, picture by picture: the same prompts and seeds in the same order.

    Where both equal the reference (PSNR inf) the difference is 0; where one alone does it is
    infinite, and counted in `identical` or `behind`.
    """
    mine, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if mine.shape != other.shape:
        raise OptionError(
            f"A paired difference takes as many values of both and got {mine.shape} and "
            f"{other.shape}; give the pictures that both made."
        )
    with np.errstate(invalid="ignore"):  # inf - inf, which the next line settles
        change = mine - other
    change[np.isinf(mine) & (mine == other)] = 0.0
    return summarize(change, groups, seed, better)


def interval(values: Values, groups: NDArray[Any], seed: int = 0) -> tuple[float, float]:
    """Bootstrap 95 % interval (percentiles of 2,000 resampled means), resampled by group."""
    _, index = np.unique(groups, return_inverse=True)
    count = np.bincount(index)  # (G)
    total = np.bincount(index, weights=values)  # (G)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    step = max(1, _BLOCK // len(count))
    for start in range(0, RESAMPLES, step):
        part = means[start : start + step]
        drawn = generator.integers(0, len(count), (len(part), len(count)))
        part[:] = total[drawn].sum(1) / count[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _worst(values: Values, better: Better) -> float:
    if better == "zero":
        return float(values[np.argmax(np.abs(values))])
    return float(values.max() if better == "less" else values.min())
