"""Self-attention and the text stream of joint attention, closed: each site gives what it gave."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.conftest import load_helper
from tgate_sampling.backbones import adapter_for

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS, GATE, CLOSE = gated.STEPS, gated.GATE, gated.CLOSE
CLOSED = range(GATE, STEPS)

#: Pipelines whose joint blocks have a stream of text with modules of its own.
STREAMS = frozenset(
    {"sd3", "sd3-skip-layer", "flux", "flux-true-cfg", "chroma", "qwen-image"},
)

#: By what closes, the pipelines that can close it.
CASES = [
    (name, kind)
    for name in pipelines.PIPELINES
    for kind in ("self", "text")
    if name != "ledits" and (name in STREAMS if kind == "text" else name not in gated.JOINT)
]


def sites(row: Any, pipe: Any, kind: str) -> list[Any]:
    """The modules of one kind, as the adapter lists them."""
    backbone = row.denoiser(pipe)
    return [s.module for s in adapter_for(backbone).sites(backbone) if s.kind == kind]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_sites_give_what_they_gave_before_the_gate(name: str, kind: str) -> None:
    """To the bit, with every branch running, and no other site touched."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    modules = sites(row, pipe, kind)
    assert modules
    with oracles.replayed(row, pipe, CLOSED, modules):
        truth = row.call(pipe, steps=STEPS)
    run = gated.run(row, pipe, {"steps": STEPS}, "fixed_step", gate_step=GATE, gates=(kind,))
    assert torch.equal(run.latents, truth)
    assert run.report.closed == {kind: gated.own_steps(row, CLOSED)}
    assert run.report.rows[0] == run.report.rows[1]
    assert not torch.equal(truth, row.call(pipe, steps=STEPS))


@pytest.mark.parametrize(
    ("name", "kind"),
    [c for c in CASES if "guidance" in gated.closable(pipelines.PIPELINES[c[0]])],
)
def test_sites_follow_the_branch_that_runs(name: str, kind: str) -> None:
    """With guidance closed as well, each keeps the rows of cond."""
    row, pipe = pipelines.PIPELINES[name], gated.made(name)
    with (
        oracles.replayed(row, pipe, CLOSED, sites(row, pipe, kind)),
        oracles.filled(row, pipe, CLOSED, "hold", row.layout),
    ):
        truth = row.call(pipe, steps=STEPS)
    options = {"gate_step": GATE, "gates": ("guidance", kind)}
    run = gated.run(row, pipe, {"steps": STEPS}, "fixed_step", **options)
    assert oracles.distance(run.latents, truth) <= (0 if row.layout == "separate" else CLOSE)
