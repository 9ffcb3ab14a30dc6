"""Checks of adapters: whom a gated model turns away."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from tgate_sampling.errors import (
    AlreadyGatedError,
    ConcurrentRunError,
    OptionError,
    TGateError,
    UnsupportedBackboneError,
)
from tgate_sampling.gating import Gating
from tgate_sampling.testing.adapter_traces import claim_same, middle
from tgate_sampling.testing.cases import TIMES, AdapterCase
from tgate_sampling.testing.results import ConformanceError, claim
from tgate_sampling.testing.script import Script
from tgate_sampling.testing.watch import hooked, in_a_thread, snapshot


def check_asking_touches_nothing(case: AdapterCase) -> None:
    """The verbs, a gating that is not entered, and refusals leave the model as it was."""
    model = case.model()
    before, verbs = snapshot(model), case.verbs
    reason = verbs.refuses(model)
    claim(reason is None, f"the adapter refuses the very model it is checked on: {reason}")
    verbs.sites(model)
    verbs.branches(model)
    verbs.guided(model)
    verbs.example_inputs(model, rows=2)
    claim_same(before, snapshot(model), "after the adapter was asked for its sites")
    policy = Script(gates=case.gates(model))
    gating = case.gate(model, policy)
    waiting = snapshot(model)
    _enter(gating)  # one that never is would warn
    claim_same(before, waiting, "before the gating was entered")
    refusing: Any = copy.copy(verbs)
    refusing.refuses = lambda backbone: "this one is refused, to see what happens"
    refused = AdapterCase(refusing, case.model_factory)
    claim_refused(
        lambda: _enter(refused.gate(model, policy)),
        UnsupportedBackboneError,
        "a model that the adapter refuses",
    )
    claim_refused(
        lambda: _enter(case.gate(model, policy, layout="upside_down")),
        OptionError,
        "an unknown layout",
    )
    claim_same(before, snapshot(model), "after a gating was refused")


def _enter(gating: Gating) -> None:
    with gating:
        pass


def claim_refused(action: Callable[[], Any], error: type[TGateError], what: str) -> None:
    """Go on if `action` raises `error`."""
    try:
        action()
    except error:
        return
    raise ConformanceError(
        f"{what} was not refused: gating it must raise {error.__name__}, so do not override what "
        "raises it"
    )


def check_a_second_gating_is_refused(case: AdapterCase) -> None:
    """Attaching twice raises `AlreadyGatedError`, and the first gating goes on."""
    model = case.model()
    batch = case.batch(model, 2)
    calls = [(batch, t) for t in TIMES]
    script = [(), case.gates(model)]
    expected, _ = case.run(model, script, calls)
    policy = Script(script, gates=case.gates(model))
    with case.gate(model, policy) as gating:
        claim_refused(
            lambda: _enter(case.gate(model, policy)), AlreadyGatedError, "a second gating"
        )
        results = [case.output(r) for r in case.play(model, calls, gating)]
    claim(
        all(torch.equal(a, b) for a, b in zip(results, expected, strict=True)),
        "the first gating gave other results after a second one was refused: leave it alone",
    )


def check_a_concurrent_call_is_refused(case: AdapterCase) -> None:
    """Another thread is refused in the middle of a run and of a call; the run is unharmed."""
    model = case.model()
    batch = case.batch(model, 2)
    calls = [(batch, t) for t in TIMES]
    script = [(), case.gates(model)]
    place = middle(case, model, batch)
    inside: list[BaseException | None] = []
    between: list[BaseException | None] = []

    def intrude() -> BaseException | None:
        return in_a_thread(lambda: model(**batch.at(TIMES[0])))

    def hook(*_: Any) -> None:
        if len(inside) < len(between) + 1:  # the intruder's own call comes by here, if let in
            inside.append(None)
            inside[-1] = intrude()

    outputs = []
    policy = Script(script, gates=case.gates(model))
    with hooked(place, hook), case.gate(model, policy) as gating, torch.no_grad():
        for t in gating.steps(TIMES):
            outputs.append(case.output(model(**batch.at(t))))
            between.append(intrude())
    claim(
        len(inside) == len(between) == len(TIMES),
        "a module that every call reaches was not called once in each step: call the backbone's "
        "modules as usual, and let the sites alone be skipped",
    )
    for errors, where in ((inside, "inside a call"), (between, "between two calls of a run")):
        for step, error in enumerate(errors):
            claim(
                isinstance(error, ConcurrentRunError),
                f"a call from a second thread {where}, in step {step}, was not refused but met "
                f"{error!r}: the backbone must be called through its hooks, as nn.Module does",
            )
    expected, _ = case.run(model, script, calls)
    claim(
        all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True)),
        "the run gave other results because a second thread was turned away: keep no state of a "
        "call in the adapter",
    )
