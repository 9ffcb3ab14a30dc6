"""What a study found, as values: what `summary.json` says, with its gaps as None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self, TypeAlias

Status: TypeAlias = Literal["ran", "refused", "failed"]

#: Measures of fidelity that a contest may be about, in the order in which they decide it.
DECISIVE: Final = ("converged.psnr", "ungated.psnr")


@dataclass(frozen=True, slots=True)
class Spread:
    """One measure over all pictures of a method.

    Args:
        mean: of the finite values.
        low, high: its 95 % interval.
        p5: 5th percentile.
        worst: of all pictures.
        n: pictures.
        identical: of them, those equal to their reference (their PSNR is infinite); in a
            difference, those of which only this method's is equal.
        behind: in a difference, those of which only the rival's is equal.
    """

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p5: float | None = None
    worst: float | None = None
    n: int = 0
    identical: int = 0
    behind: int = 0

    @classmethod
    def read(cls, values: Mapping[str, Any] | None) -> Self | None:
        """From JSON; None where nothing was measured."""
        if not values:
            return None
        found = cls(
            mean=values.get("mean"),
            low=values.get("low"),
            high=values.get("high"),
            p5=values.get("p5"),
            worst=values.get("worst"),
            n=values.get("n") or 0,
            identical=values.get("identical") or 0,
            behind=values.get("behind") or 0,
        )
        return found if found.mean is not None or found.identical else None

    def to_dict(self) -> dict[str, float | None]:
        """What a chart draws."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Method:
    """One method on one model; `summary.json` explains the fields."""

    label: str
    name: str = ""
    part: str = "related"
    source: str = ""
    status: Status = "ran"
    why: str | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    pictures: int = 0
    failed: int = 0
    macs: float | None = None
    macs_speedup: float | None = None
    seconds: float | None = None
    seconds_speedup: float | None = None
    rows: float | None = None
    rival: str | None = None
    measures: Mapping[str, Spread] | None = None
    over_rival: Mapping[str, Spread] | None = None
    fid: float | None = None
    fid_ungated: float | None = None
    fid_why: str | None = None
    closed: Mapping[str, tuple[int, ...]] | None = None
    events: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    images: Mapping[str, str] | None = None

    def measure(self, key: str) -> Spread | None:
        """One measure; None where it was not taken."""
        return (self.measures or {}).get(key)

    def gain(self, key: str) -> Spread | None:
        """One measure less the rival's; None where there is no rival."""
        return (self.over_rival or {}).get(key)

    @property
    def ran(self) -> bool:
        """At least one picture came out."""
        return self.status == "ran" and self.pictures > 0

    @property
    def outcome(self) -> str:
        """What became of it."""
        return "not yet run" if self.status == "ran" and not self.pictures else self.status

    @property
    def competes(self) -> bool:
        """It claims to be better than fewer steps."""
        return self.ran and self.part in {"ours", "related"}


@dataclass(frozen=True, slots=True)
class Model:
    """One model and what every method did on it; `why` says why nothing was done."""

    name: str
    pipeline: str = ""
    scheduler: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    converged_steps: int | None = None
    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    methods: tuple[Method, ...] = ()
    why: str | None = None

    def find(self, label: str | None) -> Method | None:
        """A method by its label."""
        return next((m for m in self.methods if m.label == label), None)

    @property
    def ungated(self) -> Method | None:
        """The bare pipeline at the setting's own steps."""
        return self._baseline("ungated", self.steps)

    @property
    def converged(self) -> Method | None:
        """The bare pipeline at so many steps that more change nothing."""
        return self._baseline("converged", self.converged_steps)

    @property
    def fewer(self) -> tuple[Method, ...]:
        """The bare pipeline at fewer steps, most steps first."""
        whole = {m.label for m in (self.ungated, self.converged) if m}
        runs = [m for m in self.methods if m.part == "baseline" and m.ran and m.label not in whole]
        return tuple(sorted(runs, key=lambda m: -(m.steps or 0)))

    def _baseline(self, name: str, steps: int | None) -> Method | None:
        bare = [m for m in self.methods if m.part == "baseline" and m.ran]
        named = [m for m in bare if name in (m.label, m.name)]
        equal = [m for m in bare if steps is not None and m.steps == steps]
        return next(iter([*named, *equal]), None)


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of `pictures.parquet`, as far as the page shows it; an infinite PSNR is identity."""

    prompt: str
    values: Mapping[str, float]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """How much each site's cross-attention output still changes, step by step."""

    steps: int
    sites: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that the page is made of.

    Args:
        version: of this library.
        complete: no run is missing.
        hardware: processor, threads, device and versions, by name.
        spec: as it was run.
        left_out: why a metric is not here, by its name.
        models: in the spec's order.
        pictures: by model, method and `<prompt number>-<seed>`.
        curves: by model.
    """

    version: str
    complete: bool
    hardware: Mapping[str, Any]
    spec: Mapping[str, Any]
    left_out: Mapping[str, str]
    models: tuple[Model, ...]
    pictures: Mapping[tuple[str, str, str], Picture]
    curves: Mapping[str, Curves]
