"""One piece of work on a loaded pipeline: what it finds goes into records and files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from tgate_plugins.cli.bench import Cost, backbone_calls, say
from tgate_plugins.methods.suite import suite
from tgate_plugins.study import costs, curves
from tgate_plugins.study.items import Count, Output, Round
from tgate_plugins.study.models import Loaded, call, is_zoo
from tgate_plugins.study.names import picture_file, picture_id
from tgate_plugins.study.pictures import to_png
from tgate_plugins.study.spec import Subject
from tgate_plugins.study.ways import CONVERGED, UNGATED, Way, all_of, method_of
from tgate_sampling.method import Applied, Method
from tgate_sampling.report import Report


class FailedError(Exception):
    """A method failed on the pipeline, which may not be what it was; holds the error."""


def survey(loaded: Loaded) -> Iterator[Output]:
    """Which methods run on the model, and what one of its backbone calls costs."""
    subject, pipe, setting = loaded.subject, loaded.pipe, loaded.setting
    asked = suite(pipe, setting) if subject.methods is None else subject.methods
    ways = all_of(asked, subject.converged_steps, pipe, setting)
    unit = costs.unit(loaded)
    for way in ways:
        if way.why is not None:
            yield Output(
                {
                    "kind": "refused",
                    "id": f"refused/{subject.name}/{way.label}",
                    "model": subject.name,
                    "method": way.label,
                    "why": way.why,
                }
            )
    looked_at = {*range(1, subject.steps + 1), *filter(None, [subject.converged_steps])}
    yield Output(
        {
            "kind": "model",
            "id": f"model/{subject.name}",
            "model": subject.name,
            "pipeline": type(pipe).__name__,
            "scheduler": type(pipe.scheduler).__name__,
            "zoo": is_zoo(subject),
            "ways": [way.to_dict() for way in ways],
            "unit": {"rows": unit.rows, "macs": unit.macs},
            "calls": {str(steps): _calls(pipe, steps) for steps in sorted(looked_at)},
        }
    )


def _calls(pipe: Any, steps: int) -> int:
    try:
        return backbone_calls(pipe, steps)
    except Exception:  # a scheduler that refuses so many steps: nobody will be able to run them
        return steps


def round_of(loaded: Loaded, item: Round) -> Iterator[Output]:
    """The pictures of one prompt and seed; a failure is part of the answer.

    Raises:
        FailedError: after the record of a method that failed, since it may have left something
            behind: the pipeline must be loaded anew for the methods after it.
    """
    subject = loaded.subject
    beside: float | None = None
    if item.specs[0] != UNGATED:
        # The round was begun before, or is one of fewer-steps runs: it needs a clock of its own.
        # Where the bare model cannot draw this one, times have nothing beside them.
        with suppress(Exception):
            beside = _draw(loaded, method_of(UNGATED), item)[1]
    for spec in item.specs:
        method, way = method_of(spec), Way.of(spec)
        try:
            image, seconds, applied, report = _draw(loaded, method, item)
            cost = _cost(loaded, method, item, report)
        except Exception as error:
            yield Output(record_of(subject, way, item, error=say(error)))
            raise FailedError(say(error)) from error
        beside = seconds if spec == UNGATED else beside
        timed = way.name != CONVERGED
        yield Output(
            record_of(
                subject,
                way,
                item,
                steps=applied.steps,
                guidance_scale=applied.guidance_scale,
                seconds=seconds if timed else None,
                beside=beside if timed else None,
                cost=cost,
                report=report,
            ),
            picture_file(subject.name, way.label, item.prompt, item.seed),
            to_png(image),
        )


def record_of(
    subject: Subject,
    way: Way,
    item: Round,
    *,
    steps: int | None = None,
    guidance_scale: float | None = None,
    seconds: float | None = None,
    beside: float | None = None,
    cost: Cost | None = None,
    report: Report | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """The log's line of one picture."""
    return {
        "kind": "picture",
        "id": picture_id(subject.name, way.label, item.prompt, item.seed),
        "model": subject.name,
        "method": way.label,
        "prompt": item.prompt,
        "seed": item.seed,
        "steps": subject.steps if steps is None else steps,
        "guidance_scale": subject.guidance_scale if guidance_scale is None else guidance_scale,
        "seconds": seconds,
        "beside": beside,
        "rows": cost.rows if cost else None,
        "macs": cost.macs if cost else None,
        "closed": {gate: list(at) for gate, at in report.closed.items()} if report else {},
        "events": [event.message for event in report.events] if report else [],
        "error": error,
    }


def _draw(
    loaded: Loaded, method: Method, item: Round | Count
) -> tuple[np.ndarray, float, Applied, Report | None]:
    """A picture in [0, 1], its wall time, and how it was called."""
    prompt = loaded.subject.prompts[item.prompt]
    with method.apply(loaded.pipe, loaded.setting) as applied:
        started = time.perf_counter()
        result = _call(loaded, applied, prompt, item.seed)
        seconds = time.perf_counter() - started
    report = applied.report()  # a run may end only when its block does
    image = np.asarray(result.images[0])
    if not np.isfinite(image).all():
        raise FloatingPointError("the picture holds NaN: try dtype float32")
    if any(getattr(result, "nsfw_content_detected", None) or ()):
        raise ValueError("the model's own safety checker blackened the picture")
    return image, seconds, applied, report


def _call(loaded: Loaded, applied: Applied, prompt: str, seed: int) -> Any:
    return call(
        loaded, prompt, seed, applied.steps, applied.guidance_scale, **dict(applied.arguments)
    )


def _cost(loaded: Loaded, method: Method, item: Round, report: Report | None) -> Cost | None:
    """What this very picture took, where that is known of each picture."""
    if report is not None:
        return costs.reported(report, loaded.footprints)
    return _count(loaded, method, item) if method.adapts else None


def _count(loaded: Loaded, method: Method, item: Round | Count) -> Cost:
    """What a picture takes, by drawing it again: a run that is counted is no run to be timed."""
    prompt = loaded.subject.prompts[item.prompt]
    with method.apply(loaded.pipe, loaded.setting) as applied:
        return costs.counted(loaded.pipe, lambda: _call(loaded, applied, prompt, item.seed))


def count(loaded: Loaded, item: Count) -> Iterator[Output]:
    """What one method takes for any picture."""
    try:
        cost = _count(loaded, method_of(item.spec), item)
    except Exception as error:
        yield Output(cost_record(item, None, say(error)))
        raise FailedError(say(error)) from error
    yield Output(cost_record(item, cost))


def cost_record(item: Count, cost: Cost | None, error: str | None = None) -> dict[str, Any]:
    """The log's line of a method's cost."""
    label = Way.of(item.spec).label
    return {
        "kind": "cost",
        "id": f"cost/{item.model}/{label}",
        "model": item.model,
        "method": label,
        "rows": cost.rows if cost else None,
        "macs": cost.macs if cost else None,
        "error": error,
    }


def curves_of(loaded: Loaded) -> Iterator[Output]:
    """The model's curves, or why there are none."""
    subject = loaded.subject
    prompt, seed = subject.images[0]
    try:
        sites = curves.measure(loaded, subject.prompts[prompt], seed)
    except Exception as error:
        yield Output(curves_record(subject, {}, say(error)))
        raise FailedError(say(error)) from error
    yield Output(curves_record(subject, sites))


def curves_record(
    subject: Subject, sites: dict[str, list[float | None]], error: str | None = None
) -> dict[str, Any]:
    """The log's line of a model's curves."""
    return {
        "kind": "curves",
        "id": f"curves/{subject.name}",
        "model": subject.name,
        "steps": subject.steps,
        "sites": sites,
        "error": error,
    }
