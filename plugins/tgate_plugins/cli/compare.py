"""`compare`: the same prompts and seeds, ungated, gated, and with fewer steps at equal cost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tgate_plugins.cli.bench import Bench
from tgate_plugins.cli.folders import writable
from tgate_plugins.cli.models import check_model, load_pipeline, pick_device, pick_dtype
from tgate_plugins.cli.record import PICTURE, RECORD, draw, notes, to_dict
from tgate_plugins.cli.samplers import find_sampler, set_sampler
from tgate_plugins.cli.spec import Spec, default_spec
from tgate_plugins.cli.summary import score, summarize
from tgate_plugins.cli.tables import comparison_table
from tgate_plugins.cli.trial import Settings, Trial


def default_policies(steps: int) -> list[Spec]:
    """What is compared where nobody says: the library's default first.

    Fixed gates, T-GATE's among them, are at 2/5 of the run, as in the paper: 10 of 25.
    """
    gate_step = max(1, round(0.4 * steps))
    return [
        default_spec(),
        Spec.make("fixed_step", {"gate_step": gate_step}),
        Spec.make("fixed_step", {"gate_step": gate_step, "estimator": "none"}),
        Spec.make("cosine_delta", {}),
        Spec.make("tgate", {"gate_step": gate_step}),
    ]


def compare(settings: Settings, console: Console, errors: Console) -> int:
    """Run the comparison, show it, and write picture and record.

    Args:
        settings: what was asked.
        console: for the result.
        errors: for progress and failures.

    Returns:
        The exit code: 1 if any run failed, 130 if it was interrupted.

    Raises:
        TGateError: bad input, before any picture is made.
    """
    specs = [Spec.parse(text) for text in settings.policies] or default_policies(settings.steps)
    if settings.sampler:
        find_sampler(settings.sampler)
    check_model(settings.model)
    folder = writable(settings.out)
    device = pick_device(settings.device)
    pipe = load_pipeline(settings.model, device=device, dtype=pick_dtype(settings.dtype, device))
    if settings.sampler:
        set_sampler(pipe, settings.sampler)
    for spec in specs:
        spec.check(pipe)
    trial = Trial(Bench(pipe, _arguments(settings)), settings, specs)
    with _interruptible(trial), _progress(errors) as progress:
        trial.run(progress)
    return _publish(trial, folder, console, errors)


@contextmanager
def _interruptible(trial: Trial) -> Iterator[None]:
    """Ctrl-C ends the runs and keeps what was made."""
    try:
        yield
    except KeyboardInterrupt:
        trial.interrupted = True


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], None]]:
    if not console.is_terminal:  # rich 13 and 14.1 end even a disabled bar with an empty line
        yield lambda label, total: None
        return
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("warming up", total=None)
        done = -2  # the first call announces the warm-up, the second the first picture

        def advance(label: str, total: int) -> None:
            nonlocal done
            done += 1
            bar.update(task, description=label, total=total or None, completed=max(0, done))

        yield advance


def _arguments(settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {"guidance_scale": settings.guidance_scale}
    if settings.negative_prompt is not None:
        arguments["negative_prompt"] = settings.negative_prompt
    if settings.size:
        arguments["width"], arguments["height"] = settings.size
    return arguments


def _publish(trial: Trial, folder: Path, console: Console, errors: Console) -> int:
    """Write and show what there is; the exit code."""
    scored = score(trial.shots, trial.reference.label)
    groups = trial.groups
    methods = [m for g in groups for m in g.members]
    rivals = {label: rival.label for label, rival in trial.rivals.items()}
    rows = {row.method.label: row for row in summarize(scored, methods, rivals)}
    (folder / RECORD).write_text(
        json.dumps(to_dict(trial, groups, rows, scored), indent=2) + "\n", encoding="utf-8"
    )
    draw(trial, groups, rows).save(folder / PICTURE)
    settings = trial.settings
    title = (
        f"{settings.model}: pictures a method {len(trial.images)}, {settings.steps} steps, "
        f"guidance {settings.guidance_scale:g}, against {trial.reference.label}"
    )
    console.print(comparison_table(groups, rows, title))
    for line in notes(trial, list(rows.values())):
        console.print(line, markup=False, soft_wrap=True)
    for shot in trial.failures:
        where = f"{shot.method}, {shot.prompt!r}, seed {shot.seed}"
        errors.print(f"failed: {where}: {shot.error}", markup=False, soft_wrap=True, style="red")
    console.print(f"record   {folder / RECORD}", markup=False, soft_wrap=True)
    console.print(f"picture  {folder / PICTURE}", markup=False, soft_wrap=True)
    if trial.interrupted:
        return 130
    return 1 if trial.failures else 0
