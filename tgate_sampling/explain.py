"""`explain`: what a policy will save and cost on a model, before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tgate_sampling.compose import Stack, active_layers
from tgate_sampling.compose import compose as combine
from tgate_sampling.errors import OptionError
from tgate_sampling.layout import LAYOUTS
from tgate_sampling.policy import Policy, choose_policy, describe
from tgate_sampling.prediction import Prediction, gate_forecasts
from tgate_sampling.rehearse import Stage, foreseen
from tgate_sampling.run import Filling, choose_filling
from tgate_sampling.sites import find_sites
from tgate_sampling.subject import Counted, Question, Subject, counted, subject_of


def explain(
    target: Any,
    policy: Policy | Callable[..., Any] | str | None = None,
    *,
    steps: int = 25,
    guidance: bool = True,
    batch: int = 1,
    height: int | None = None,
    width: int | None = None,
    tokens: int = 77,
    dtype: torch.dtype | None = None,
    backbone: nn.Module | None = None,
    compose: Sequence[str | Policy] = (),
    estimator: str | None = None,
    refresh: int | None = None,
    merge: str | None = None,
    **options: Any,
) -> Prediction:
    """Predict MACs, memory and speed-up per gate. Nothing is run and no weights are needed.

    The backbone is rebuilt without weights, one call of it is counted, and the whole run is
    rehearsed by the code that gates real runs. A policy that decides by what it measures is
    answered with a range: no gate ever closing, and all closing after the first step.

    Args:
        target: a diffusers pipeline, a backbone, a backbone's configuration (a mapping with its
            `_class_name`), or the folder of a downloaded model.
        policy: as for `gate`.
        steps: of the run. A pipeline's scheduler says how often each evaluates the backbone;
            elsewhere it is once.
        guidance: whether the run uses classifier-free guidance. A model that takes the guidance
            scale as an input has one branch all the same.
        batch: images at a time.
        height: of the images in a pipeline, of the latents elsewhere; None is the model's own.
        width: the same.
        tokens: length of the text; 77 is CLIP's.
        dtype: in which caches are held; None is the backbone's own, float32 for a configuration.
        backbone: as for `gate`.
        compose: as for `gate`.
        estimator: as for `gate`.
        refresh: as for `gate`.
        merge: as for `gate`.
        **options: the policy's own.

    Returns:
        The prediction; print it, or lay it beside a report with `prediction.compare(report)`.

    Raises:
        OptionError: an option is unknown or out of range.
        UnsupportedBackboneError: no adapter knows the backbone, or its adapter has no recipe to
            build it, or to call it, without weights.

    Example:
        >>> import tgate_sampling as tg
        >>> from tgate_sampling.testing import tiny_unet
        >>> prediction = tg.explain(tiny_unet(), "fixed_step", gate_step=2, steps=4, tokens=7)
        >>> prediction.rows, prediction.closed["guidance"]
        ((6, 8), (2, 3))
    """
    for name, count in {"steps": steps, "batch": batch, "tokens": tokens}.items():
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"{name}={count!r} must be a whole number, 1 or more.")
    subject = subject_of(target, backbone)
    high, wide = (side and side // subject.scale for side in (height, width))
    one = counted(
        Question(
            made=subject.made,
            config=subject.config,
            dtype=dtype or subject.dtype,
            guidance=guidance,
            batch=batch,
            height=high,
            width=wide,
            tokens=tokens,
            adapter=subject.adapter,
            build=subject.build,
        )
    )
    chosen = combine(choose_policy(policy, options), compose, subject.real or one.model)
    filling = choose_filling(chosen, estimator, merge, refresh)
    stage = _stage(subject, one, chosen, steps)
    ends, total = [], len(stage.evaluations)
    for closes in (False, True):
        foretold, known = foreseen(chosen, total, closes=closes)
        if closes or not known:
            ends.append(_predict(stage, foretold, filling))
    return replace(
        ends[-1],
        policy=describe(chosen),  # what was rehearsed may be a stand-in
        call=f"{_call(one)}, {tokens} tokens",
        notes=ends[-1].notes + _notes(subject, chosen, len(ends)),
        unclosed=ends[0] if len(ends) > 1 else None,
    )


def _stage(subject: Subject, one: Counted, policy: Policy, steps: int) -> Stage:
    driver = subject.driver
    return Stage(
        name=type(one.model).__name__,
        adapter=subject.adapter.name,
        sites=find_sites(subject.adapter, one.model, policy),
        answers=one.answers,
        output=subject.adapter.output(one.answers[""]),
        call=one.call,
        shape=one.shape,
        layout=LAYOUTS[one.layout],
        evaluations=driver.evaluations(steps) if driver else [1] * steps,
        cost=one.cost,
        opaque=(driver and driver.opaque()) or subject.adapter.opaque(one.model),
    )


def _predict(stage: Stage, policy: Policy, filling: Filling) -> Prediction:
    report, held = stage.play(policy, filling)
    spent = report.macs
    assert spent is not None  # the call is counted already
    return Prediction(
        policy=report.policy,
        backbone=report.backbone,
        call="",
        steps=len(report.steps),
        rows=report.rows,
        macs=spent,
        gates=tuple(gate_forecasts(report, spent, held)),
        peak_cache_bytes=report.peak_cache_bytes,
        notes=tuple(event.message for event in report.events),
    )


def _call(one: Counted) -> str:
    rows, *latent = one.call.sample.shape
    word = "row" if rows == 1 else "rows"
    branches = ", ".join(LAYOUTS[one.layout])
    return f"{rows} {word} a call ({branches}) of {'x'.join(map(str, latent))}"


def _notes(subject: Subject, policy: Policy, ends: int) -> tuple[str, ...]:
    """What the prediction leaves out."""
    layers = active_layers(subject.real) if subject.real is not None else []
    notes = [f"{layer.name} is active, and what it skips is not counted" for layer in layers]
    if ends > 1 and isinstance(policy, Stack):
        notes.append(
            "a look at both branches re-opens the other gates of a stack for that step: with many "
            "looks the run may cost more than either end"
        )
    return tuple(notes)
