"""A study from its spec to its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console

from tgate_plugins.study import folder as places
from tgate_plugins.study import hardware, models, plan
from tgate_plugins.study.dispatch import Pool, drive
from tgate_plugins.study.extra import RAY, require
from tgate_plugins.study.folder import claim
from tgate_plugins.study.items import Item, Output
from tgate_plugins.study.journal import Journal
from tgate_plugins.study.pictures import write_whole
from tgate_plugins.study.progress import Tell, progress
from tgate_plugins.study.spec import StudySpec
from tgate_plugins.study.tables import show
from tgate_sampling.errors import OptionError, UnknownNameError, nearest

ENGINES: Final = ("local", "ray")


@dataclass(frozen=True)
class Settings:
    """How and where a study is run; the pictures do not depend on any of it.

    Args:
        out: its folder.
        engine: where the workers live.
        address: of a Ray cluster.
        workers: how many; None for one (local), or one a device (ray).
        force: throw away another study that is there.
        retry: try failed pictures again.
    """

    out: Path
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    force: bool = False
    retry: bool = False


def study(spec: StudySpec, settings: Settings, console: Console, errors: Console) -> int:
    """Run a study, or go on with it, and write what it found.

    Args:
        spec: what to do.
        settings: how and where.
        console: for the result.
        errors: for progress and failures.

    Returns:
        The exit code: 1 if a picture failed, 130 if it was interrupted.

    Raises:
        TGateError: bad input, before any picture is made.
    """
    if settings.engine not in ENGINES:
        raise UnknownNameError(
            f"--engine {settings.engine!r} is unknown. {nearest(settings.engine, ENGINES)}"
        )
    if settings.address is not None and settings.engine != "ray":
        raise OptionError(f"--address {settings.address!r} is for a Ray cluster: add --engine ray.")
    if settings.engine == "ray":
        require("ray", RAY, "tgate-sampling study --engine ray")
    for subject in spec.subjects:
        models.check(subject)
    claim(settings.out, spec, force=settings.force)
    journal = Journal(spec, settings.out, retry=settings.retry)
    try:
        with progress(errors) as tell:
            draw(spec, journal, lambda: pool_of(spec, settings), tell)
        return _publish(spec, settings.out, journal, console, errors)
    except KeyboardInterrupt:
        count = len(journal.state.pictures)
        errors.print(
            f"Interrupted: {count} pictures are safe. To go on where it stopped, type "
            f"`tgate-sampling study --resume --out {settings.out}`.",
            markup=False,
            soft_wrap=True,
        )
        return 130
    finally:
        journal.close()


def draw(
    spec: StudySpec,
    journal: Journal,
    make_pool: Callable[[], Pool],
    tell: Tell = lambda plan, doing: None,
) -> None:
    """Do all that is left to do.

    Args:
        spec: the study.
        journal: of what is done; each thing that is finished goes there at once.
        make_pool: brings the workers, if there is anything for them to do.
        tell: hears how far it is.
    """

    def ready() -> Iterable[Item]:
        return plan.ready(spec, journal.state)

    def keep(output: Output) -> None:
        journal.keep(output)
        record = output.record
        doing = f"{record['model']}: {record.get('method', record['kind'])}"
        tell(lambda: plan.pictures_planned(spec, journal.state), doing)

    if next(iter(ready()), None) is None:
        return
    pool = make_pool()
    try:
        about = hardware.describe(spec.device, spec.threads, pool.size, type(pool).__name__)
        journal.note_hardware(about)
        drive(pool, ready, keep, journal.give_up)
    finally:
        pool.close()


def pool_of(spec: StudySpec, settings: Settings) -> Pool:
    """The workers."""
    if settings.engine == "ray":
        from tgate_plugins.study.engines.ray import Cluster

        return Cluster(spec.to_dict(), settings.workers or 0, settings.address)
    from tgate_plugins.study.engines.local import Here, Processes

    count = settings.workers or 1
    return Here(spec.to_dict()) if count == 1 else Processes(spec.to_dict(), count)


def _publish(
    spec: StudySpec, folder: Path, journal: Journal, console: Console, errors: Console
) -> int:
    """Measure the pictures, write and show what there is; the exit code."""
    from tgate_plugins.study.report import render

    found = publish(spec, folder, journal)
    page = render(folder)
    show(found, console)
    for model in found["models"]:
        if model["why"]:
            _complain(errors, f"{model['name']}: {model['why']}")
        for method in model["methods"]:
            for error in method["errors"]:
                _complain(errors, f"{model['name']}, {method['label']}: {error}")
    for name, path in (("folder", folder), ("report", page)):
        console.print(f"{name:<8} {path}", markup=False, soft_wrap=True)
    failed = [m for m in found["models"] if m["why"] or any(x["failed"] for x in m["methods"])]
    return 1 if failed else 0


def _complain(errors: Console, text: str) -> None:
    errors.print(f"failed: {text}", markup=False, soft_wrap=True, style="red")


def publish(spec: StudySpec, folder: Path, journal: Journal) -> dict[str, Any]:
    """Write table, curves and summary; the summary."""
    from tgate_plugins.study import results, summary

    state = journal.state
    if spec.threads:
        torch.set_num_threads(spec.threads)
    measured = {
        subject.name: results.measure(
            subject, state, state.models[subject.name], folder, spec.metrics
        )
        for subject in spec.subjects
        if subject.name in state.models
    }
    table = results.as_bytes(results.table(spec, state, measured))
    write_whole(folder / places.TABLE, table)
    curves = {
        name: {"steps": record["steps"], "sites": record["sites"]}
        for name, record in sorted(state.curves.items())
    }
    write_whole(folder / places.CURVES, _json(curves))
    complete = next(iter(plan.ready(spec, state)), None) is None
    found = summary.summary(
        spec, state, measured, folder, complete=complete, hardware=_hardware(journal)
    )
    write_whole(folder / places.SUMMARY, _json(found))
    return found


def _hardware(journal: Journal) -> dict[str, Any]:
    """What the study ran on; where sessions differed, the later ones under `also`."""
    first, *others = journal.hardware or [{}]
    return {**first, "also": others} if others else dict(first)


def _json(value: Any) -> bytes:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
