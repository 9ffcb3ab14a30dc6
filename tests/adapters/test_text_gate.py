"""The text gate (an experiment): past it the text stream of joint blocks stands still, exactly."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_sampling.layout import tensors_in

pipelines = load_helper("backbones/pipelines.py")
pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS, GATE = 5, 2

#: Pipeline, and for its two-stream blocks which of their two outputs is the text.
STREAMS = {"sd3": 0, "flux": 0, "flux-true-cfg": 0, "qwen-image": 0, "chroma": 0}


@pytest.fixture(scope="module", params=sorted(STREAMS))
def row(request: pytest.FixtureRequest) -> Any:
    return pipelines.PIPELINES[request.param]


@pytest.fixture(scope="module")
def pipe(row: Any) -> Any:
    return row.build()


def blocks(pipe: Any) -> dict[str, Any]:
    found = dict(pipe.transformer.named_modules())
    return {
        n: m for n, m in found.items() if n.startswith("transformer_blocks.") and n.count(".") == 1
    }


@contextmanager
def listening(modules: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
    """What each module returned, call by call."""
    heard: dict[str, list[Any]] = defaultdict(list)

    def listen(name: str) -> Any:
        return lambda _, __, out: heard[name].append([t.clone() for t in tensors_in(out)])

    hooks = [module.register_forward_hook(listen(name)) for name, module in modules.items()]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def test_the_text_stream_stands_still_past_the_gate(row: Any, pipe: Any) -> None:
    """Every later step's text is that of the step before the gate, to the bit; before it moves."""
    text = STREAMS[row.name]
    gating = tg.gate(pipe, "fixed_step", gate_step=GATE, gates=("text",))
    with gating, listening(blocks(pipe)) as heard:
        row.call(pipe, steps=STEPS)
    assert gating.report.closed == {"text": tuple(range(GATE, STEPS))}
    for name, outputs in heard.items():
        if len(outputs[0]) < 2:  # SD3's last block ends the text stream
            continue
        calls = len(outputs) // STEPS
        streams = [
            torch.cat([o[text] for o in outputs[i * calls : (i + 1) * calls]]) for i in range(STEPS)
        ]
        assert all(torch.equal(streams[GATE - 1], s) for s in streams[GATE:]), name
        if name != "transformer_blocks.0" or row.name != "sd3":
            assert not torch.equal(streams[0], streams[GATE - 1]), name


def test_the_picture_still_reads_the_time(row: Any, pipe: Any) -> None:
    """The picture's stream goes on: its output differs in every step."""
    gating = tg.gate(pipe, "fixed_step", gate_step=GATE, gates=("text",))
    with gating, listening({"root": pipe.transformer}) as heard:
        row.call(pipe, steps=STEPS)
    calls = len(heard["root"]) // STEPS
    outputs = [heard["root"][i * calls][0] for i in range(STEPS)]
    assert all(not torch.equal(a, b) for a, b in pairwise(outputs))


def test_its_projections_and_feed_forward_are_not_computed(row: Any, pipe: Any) -> None:
    """Linear layers of the text stream run in the steps before the gate, and in none after."""
    inside = {
        name: module
        for name, module in pipe.transformer.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name.startswith("transformer_blocks.")
        and any(
            f".{part}" in name
            for part in ("add_q_proj", "add_k_proj", "add_v_proj", "ff_context", "txt_mlp")
        )
    }
    assert inside
    ran: Counter[str] = Counter()
    bare: Counter[str] = Counter()

    def count(into: Counter[str]) -> list[Any]:
        # Hooks on a skipped Linear itself would fire: inner ones (of a feed-forward) do not.
        return [
            m.register_forward_pre_hook(lambda _, __, n=n: into.update([n]))
            for n, m in inside.items()
        ]

    hooks = count(bare)
    row.call(pipe, steps=STEPS)
    for hook in hooks:
        hook.remove()
    hooks = count(ran)
    with tg.gate(pipe, "fixed_step", gate_step=GATE, gates=("text",)):
        row.call(pipe, steps=STEPS)
    for hook in hooks:
        hook.remove()
    assert {n: ran[n] * STEPS for n in bare} == {n: bare[n] * GATE for n in bare}


def test_guidance_and_text_close_together(row: Any, pipe: Any) -> None:
    """The kept stream is narrowed to the rows that run; MACs are saved by both, each for itself."""
    with tg.gate(pipe, "fixed_step", gate_step=GATE, gates=("guidance", "text")) as gating:
        first, second = (row.call(pipe, steps=STEPS) for _ in range(2))
    assert torch.equal(first, second)
    assert first.isfinite().all()
    spent = gating.report.macs
    assert spent is not None
    assert spent.saved["text"].true > 0
    assert ("guidance" in spent.saved) == (row.layout != "single")


def test_nothing_is_left_behind(row: Any, pipe: Any, kit: Any) -> None:
    """Linear layers and norms are of their own classes again; the pipeline answers as before."""
    before, bare = kit.snapshot(pipe.transformer), row.call(pipe, steps=STEPS)
    with tg.gate(pipe, "fixed_step", gate_step=GATE, gates=("guidance", "text")):
        row.call(pipe, steps=STEPS)
    assert kit.snapshot(pipe.transformer) == before
    assert torch.equal(row.call(pipe, steps=STEPS), bare)


def test_blocks_of_one_stream_are_left_alone() -> None:
    """Flux's single blocks mix text and picture: no site of theirs is a text site."""
    flux = pipelines.PIPELINES["flux"].build()
    gating = tg.gate(flux, "fixed_step", gate_step=GATE, gates=("text",))
    with gating:
        names = gating.adapter.sites(flux.transformer)
    assert names
    assert all(site.name.startswith("transformer_blocks.") for site in names)
