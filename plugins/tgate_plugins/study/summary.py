"""summary.json: what a study found, by model and method, for reports and for other programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tgate_plugins.cli.bench import Cost
from tgate_plugins.study import distances, metrics
from tgate_plugins.study.names import picture_file
from tgate_plugins.study.pictures import size_of
from tgate_plugins.study.results import Image, Measured
from tgate_plugins.study.rivals import mean_cost, rivals
from tgate_plugins.study.spec import StudySpec, Subject
from tgate_plugins.study.state import Known, State
from tgate_plugins.study.ways import UNGATED


def summary(
    study: StudySpec,
    state: State,
    measured: Mapping[str, Sequence[Measured]],
    folder: Path,
    *,
    complete: bool,
    hardware: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole study.

    Args:
        study: the spec.
        state: the log.
        measured: by model.
        folder: of the study.
        complete: whether nothing is left to do.
        hardware: what it ran on.
    """
    models = []
    for subject in study.subjects:
        known = state.models.get(subject.name)
        if known is None:
            models.append(_unknown(subject, state.broken.get(subject.name)))
        else:
            models.append(_model(subject, state, known, measured[subject.name], folder))
    found = {
        "version": version("tgate-sampling"),
        "complete": complete,
        "hardware": dict(hardware),
        "spec": study.to_dict(),
        "left_out": left_out(study, state, measured, folder),
        "models": models,
    }
    return {key: finite(value) for key, value in found.items()}


def left_out(
    study: StudySpec, state: State, measured: Mapping[str, Sequence[Measured]], folder: Path
) -> dict[str, str]:
    """Which metrics are not here, and why, by name."""
    zoo = any(known.record["zoo"] for known in state.models.values())
    files = [
        folder / picture_file(name, one.way.label, *image)
        for name, ones in measured.items()
        for one in ones
        for image in one.good[:1]
    ]
    sizes = [size_of(file) for file in files]
    found = metrics.left_out(zoo or not state.models, min(sizes, default=None))
    if study.metrics is not None:
        found |= {name: "not asked for" for name in metrics.BETTER if name not in study.metrics}
    return found


def finite(value: Any) -> Any:
    """Plain values without what JSON cannot say: there it is null."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _head(subject: Subject) -> dict[str, Any]:
    return {
        "name": subject.name,
        "pipeline": None,
        "scheduler": None,
        "steps": subject.steps,
        "guidance_scale": subject.guidance_scale,
        "converged_steps": subject.converged_steps or None,
        "prompts": list(subject.prompts),
        "seeds": list(subject.seeds),
        "why": None,
    }


def _unknown(subject: Subject, why: str | None) -> dict[str, Any]:
    return {**_head(subject), "why": why, "methods": []}


def _model(
    subject: Subject, state: State, known: Known, ones: Sequence[Measured], folder: Path
) -> dict[str, Any]:
    by_label = {one.way.label: one for one in ones}
    base = mean_cost(state, subject, by_label[UNGATED].way)
    of_rival = rivals(state, subject, known)
    fids = distances.of_model(subject, state, known, folder)
    methods = []
    for one in ones:
        way = of_rival.get(one.way.label)
        rival = by_label.get(way.label) if way else None
        row = _method(subject, state, one, base)
        row |= {"rival": rival.way.label if rival else None, "over_rival": _over(one, rival)}
        methods.append(row | {"fid": fids.get(one.way.label)})
    record = known.record
    return {
        **_head(subject),
        "pipeline": record["pipeline"],
        "scheduler": record["scheduler"],
        "methods": methods,
    }


def _method(subject: Subject, state: State, one: Measured, base: Cost | None) -> dict[str, Any]:
    way, good = one.way, one.good
    failed = [record for record in one.records.values() if record["error"]]
    status = "refused" if way.why is not None else ("ran" if good or not failed else "failed")
    records = [one.records[image] for image in good]
    cost = mean_cost(state, subject, way)
    seconds = [r["seconds"] for r in records if r["seconds"] is not None]
    ratios = [r["beside"] / r["seconds"] for r in records if r["seconds"] and r["beside"]]
    first = records[0] if records else next(iter(failed), None)
    return {
        "label": way.label,
        "name": way.name,
        "part": way.part,
        "source": way.source,
        "status": status,
        "why": way.why or (failed[0]["error"] if status == "failed" else None),
        "steps": first["steps"] if first else subject.steps,
        "guidance_scale": first["guidance_scale"] if first else subject.guidance_scale,
        "pictures": len(good),
        "failed": len(failed),
        "macs": cost.macs if cost else None,
        "macs_speedup": _speedup(cost, base),
        "seconds": median(seconds) if seconds else None,
        "seconds_speedup": median(ratios) if ratios else None,
        "rows": cost.rows if cost else None,
        "measures": {key: _summarize(key, values) for key, values in sorted(one.values.items())},
        "closed": records[0]["closed"] if records else {},
        "events": list(dict.fromkeys(event for r in records for event in r["events"])),
        "errors": list(dict.fromkeys(record["error"] for record in failed)),
        "images": {f"{p}-{s}": picture_file(subject.name, way.label, p, s) for p, s in good},
    }


def _speedup(cost: Cost | None, base: Cost | None) -> float | None:
    return 1 / cost.share(base) if cost and base and cost.rows else None


def _summarize(key: str, values: Mapping[Image, float]) -> dict[str, Any]:
    """Over pictures; whole prompts are resampled, since seeds of one prompt are alike."""
    prompts = [prompt for prompt, _ in values]
    return metrics.summarize(_array(values.values()), prompts, better=_better(key)).to_dict()


def _better(key: str) -> metrics.Better:
    return metrics.BETTER[key.rpartition(".")[2]]


def _over(one: Measured, rival: Measured | None) -> dict[str, Any] | None:
    """Paired differences, over the pictures that both made; None without a rival to beat.

    Where the rival is the reference itself there is nothing that could be nearer to it. Of shifts,
    which are bad in either direction, a difference says nothing.
    """
    if rival is None:
        return None
    found = {}
    for key in sorted(one.values.keys() & rival.values.keys()):
        better = _better(key)
        both = [image for image in one.values[key] if image in rival.values[key]]
        mine, theirs = ([m.values[key][image] for image in both] for m in (one, rival))
        if both and better != "zero":
            prompts = [prompt for prompt, _ in both]
            of_key = metrics.difference(_array(mine), _array(theirs), prompts, better=better)
            found[key] = of_key.to_dict()
    return found


def _array(values: Any) -> NDArray[np.float64]:
    return np.array(list(values), np.float64)
