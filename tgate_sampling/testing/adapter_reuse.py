"""Checks of adapters: what a closed attention gate saves, and what it hands out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Site
from tgate_sampling.testing.adapter_rows import (
    LAYOUTS,
    claim_guidance_closed,
    close,
    cond_rows,
    need_two_branches,
    part_of,
)
from tgate_sampling.testing.batches import Batch, tensors_of
from tgate_sampling.testing.cases import TIMES, AdapterCase
from tgate_sampling.testing.results import DoesNotApplyError, claim
from tgate_sampling.testing.script import Script
from tgate_sampling.testing.watch import counted, hooked


def equal(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether tensors are bitwise the same, one by one."""
    pairs = zip(some, others, strict=True)
    return len(some) == len(others) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs
    )


def check_open_is_free(case: AdapterCase) -> None:
    """A policy that never closes gives bitwise the bare outputs, by the same calls."""
    model = case.model()
    calls = [(case.batch(model, 2), t) for t in TIMES]
    with counted(case.sites(model)) as expected:
        bare = [tensors_of(r) for r in case.play(model, calls)]
    for policy in ("never", Script(gates=case.gates(model))):
        with counted(case.sites(model)) as seen, case.gate(model, policy) as gating:
            results = [tensors_of(r) for r in case.play(model, calls, gating)]
        claim(
            all(map(equal, results, bare)),
            "with every gate open the output differs from the bare model's: read() and output() "
            "must change nothing in what they look at",
        )
        claim(
            seen == expected,
            "with every gate open the sites are not called as often as in the bare model: call "
            "each of them through its own __call__, once for each time",
        )


def check_reuse_saves_calls(case: AdapterCase) -> None:
    """A site whose gate is closed is not called, and nothing inside it is."""
    model = case.model()
    batch = case.batch(model, 2)
    for kind in case.some_kinds(model):
        sites = [s for s in case.sites(model) if s.kind == kind]
        with counted(sites) as once:
            case.bare(model, batch, TIMES[0])
        claim(
            any(once.values()),
            f"no {kind} site is called in a forward: list the modules that do the work",
        )
        with counted(sites) as seen:
            case.run(model, [(), (kind,)], [(batch, t) for t in TIMES])
        for name, calls in seen.items():
            claim(
                calls == once[name],
                f"site {name!r} was called in a step with {kind} closed ({calls} calls inside it "
                f"in {len(TIMES)} steps, expected {once[name]}): call it as a module, "
                "`site(...)`, and not by its forward",
            )


def check_reuse_returns_what_was_stored(case: AdapterCase) -> None:
    """Where nothing has changed since, reuse makes no difference, to any row, however often."""
    model = case.model()
    batch = case.batch(model, 2)
    calls = [(batch, TIMES[0])] * 3
    bare = case.bare(model, batch, TIMES[0])
    for kind in case.some_kinds(model):
        outputs, _ = case.run(model, [(), (kind,)], calls)
        claim(
            equal(outputs, [bare] * 3),
            f"with {kind} reused and the same inputs the output is not the stored step's: a site's "
            "output must depend on nothing but its row, and whoever calls the site must not write "
            "into it",
        )


def check_nothing_is_reused_before_it_is_stored(case: AdapterCase) -> None:
    """With every gate closed from step 0 on, the first step is full all the same."""
    model = case.model()
    batch = case.batch(model, 2)
    bare = case.bare(model, batch, TIMES[0])
    outputs, report = case.run(model, [case.gates(model)], [(batch, t) for t in TIMES])
    claim(
        torch.equal(outputs[0], bare),
        "the first step of a run differs from the bare model's, so something was reused that this "
        "run has not stored: keep nothing in the adapter or on its modules between runs",
    )
    early = [gate for gate, steps in report.closed.items() if 0 in steps]
    claim(not early, f"{', '.join(early)} closed in the first step, where nothing is stored yet")


def check_branches_stay_apart(case: AdapterCase) -> None:
    """With guidance closed too, the cond rows reuse their own stored rows."""
    model = case.model()
    need_two_branches(case, model)
    kinds = case.some_kinds(model)
    for layout in LAYOUTS:
        batch = case.batch(model, 4)
        cond = cond_rows(layout, 4)
        bare = case.bare(model, batch, TIMES[0])
        outputs, report = case.run(
            model,
            [(), ("guidance", *kinds)],
            [(batch, TIMES[0])] * 3,
            estimator="none",
            layout=layout,
        )
        claim_guidance_closed(report)
        claim(
            all(close(part_of(out, cond, 4), part_of(bare, cond, 4)) for out in outputs),
            f"with guidance closed ({layout}) the cond rows did not reuse their own stored rows: a "
            "site's output must hold the batch in its first dimension, in the call's order",
        )


def check_signals_are_measured(case: AdapterCase) -> None:
    """A policy that asks hears how much cross- and self-attention move, for every sample."""
    model = case.model()
    sites = [s for s in case.sites(model) if s.kind in ("cross", "self")]
    if not sites:
        raise DoesNotApplyError("the adapter lists no cross- or self-attention")
    batch = case.batch(model, 4)
    for name, answers in _answers(case, model, batch, sites).items():
        claim(
            all(isinstance(a, torch.Tensor) and a.shape[0] % batch.rows == 0 for a in answers),
            f"site {name!r} does not return one tensor with the batch in its first dimension, so "
            "that no signal can be taken of it: list the module inside it that does",
        )
    kinds = {site.kind for site in sites}
    policy = Script(gates=case.gates(model), signals=kinds)
    with case.gate(model, policy) as gating:
        case.play(model, [(batch, t) for t in TIMES], gating)
    samples = 2 if case.guided(model) else 4
    for kind in kinds:
        signal = policy.heard[-1].get(kind)
        values = [] if signal is None else [*signal.change, *signal.cosine]
        claim(
            len(values) == 2 * samples and all(math.isfinite(v) for v in values),
            f"a policy that asks for {kind!r} heard {values} in the last step, and not a change "
            f"and a cosine for each of {samples} samples: read() must return the call's own sample",
        )


def _answers(
    case: AdapterCase, model: nn.Module, batch: Batch, sites: Sequence[Site]
) -> dict[str, list[Any]]:
    """What each site returns in a bare call, by its name."""
    answers: dict[str, list[Any]] = {site.name: [] for site in sites}
    with ExitStack() as stack:
        for site in sites:
            note = partial(_note, answers[site.name])
            stack.enter_context(hooked(site.module, note))
        case.bare(model, batch, TIMES[0])
    return answers


def _note(answers: list[Any], module: nn.Module, args: Any, answer: Any) -> None:
    answers.append(answer)
