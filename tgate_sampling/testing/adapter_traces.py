"""Checks of adapters: what they list, and what a gating leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tgate_sampling.decision import ATTENTION_GATES
from tgate_sampling.testing.batches import Batch
from tgate_sampling.testing.cases import TIMES, AdapterCase
from tgate_sampling.testing.results import ConformanceError, claim
from tgate_sampling.testing.watch import always_called, changes, hooked, snapshot

#: Branches differ by so much of the largest value at least, well above what rounding does.
TELLING = 1e-3


class InterruptionError(Exception):
    """What a check raises in the middle of a forward."""


def check_example_is_telling(case: AdapterCase) -> None:
    """Factory and inputs can show a fault: fresh models, branches that differ."""
    model = case.model()
    claim(
        case.model() is not model,
        "model_factory() returned the same model twice: make a fresh one in each call",
    )
    out = case.bare(model, case.batch(model, 2), TIMES[0])
    claim(
        bool(torch.isfinite(out).all()),
        "the bare model's output is not finite: give other inputs, or other weights",
    )
    first, second = out.chunk(2)
    apart = float((first - second).abs().max())
    claim(
        apart > TELLING * float(out.abs().max()),
        "both branches' rows come out alike, so that no check can tell them apart: let "
        "inputs(rows) give every row a text of its own, and the model weights that read it",
    )


def check_site_names_are_stable(case: AdapterCase) -> None:
    """Two fresh models list the same sites, and each name leads to its module."""
    model = case.model()
    sites = case.sites(model)
    listed, again = ([(s.name, s.kind) for s in case.sites(m)] for m in (model, case.model()))
    claim(
        listed == again,
        f"two fresh models list different sites, as {_odd(listed, again)}: name sites as "
        "named_modules() does",
    )
    names = [site.name for site in sites]
    twice = sorted({n for n in names if names.count(n) > 1})
    claim(not twice, f"{', '.join(twice)} is listed twice: list every site once")
    modules = dict(model.named_modules())
    for site in sites:
        claim(
            site.kind in ATTENTION_GATES,
            f"site {site.name!r} has kind {site.kind!r}: it must be one of "
            f"{', '.join(ATTENTION_GATES)}",
        )
        claim(
            modules.get(site.name) is site.module,
            f"site {site.name!r} does not lead to its module: give the name under which "
            "model.get_submodule(name) finds it, and the module itself",
        )


def _odd(listed: list[Any], again: list[Any]) -> str:
    """A site that is in one list only."""
    odd = [site for site in (*listed, *again) if (site in listed) != (site in again)]
    return repr(odd[0]) if odd else "their order"


def check_detaching_restores_the_model(case: AdapterCase) -> None:
    """After a run with everything closed the model is what it was, and computes what it did."""
    model = case.model()
    batch = case.batch(model, 2)
    calls = [(batch, t) for t in TIMES]
    bare, before = case.bare(model, batch, TIMES[0]), snapshot(model)
    case.run(model, [(), case.gates(model)], calls)
    claim_same(before, snapshot(model), "after the gating was left")
    claim(
        torch.equal(case.bare(model, batch, TIMES[0]), bare),
        "the model computes something else after a gating was left: undo all that attaching did",
    )


def claim_same(before: dict[str, Any], after: dict[str, Any], when: str) -> None:
    """Go on if two snapshots are equal."""
    claim(
        before == after,
        f"{when}: {changes(before, after)}; an adapter describes, and leaves the model alone",
    )


def check_an_error_leaves_no_trace(case: AdapterCase) -> None:
    """An exception in the middle of a forward comes out, and nothing stays behind."""
    for step in range(3):
        model = case.model()
        batch = case.batch(model, 2)
        bare = case.bare(model, batch, TIMES[0])
        place = middle(case, model, batch)
        hook = _at_call(step + 1, InterruptionError("in the middle of a forward"))
        with hooked(place, hook):
            before = snapshot(model)
            gates = case.gates(model)
            try:
                case.run(model, [(), (), gates], [(batch, t) for t in TIMES])
            except InterruptionError:
                pass
            else:
                raise ConformanceError(
                    f"an exception in the forward of step {step} did not come out: let it through"
                )
            claim_same(before, snapshot(model), f"after an exception in step {step}")
        claim(
            torch.equal(case.bare(model, batch, TIMES[0]), bare),
            f"the model computes something else after an exception in step {step}: keep no state "
            "of a call in the adapter or on the model",
        )


def middle(case: AdapterCase, model: nn.Module, batch: Batch) -> nn.Module:
    """A module that every call reaches, open or closed, about half way through."""
    order = always_called(model, case.sites(model), lambda: case.bare(model, batch, TIMES[0]))
    once = [m for m in order if order.count(m) == 1]
    claim(bool(once), "no module outside the sites is called just once: leave some work to them")
    return once[len(once) // 2]


def _at_call(number: int, error: Exception) -> Callable[..., None]:
    """A forward hook that raises in its `number`-th call."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise error

    return hook
