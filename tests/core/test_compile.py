"""Promise 7: under torch.compile a gated run has no graph break and one graph a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.testing import tiny_unet

#: One block down, one up: what takes time here is tracing.
SMALL: dict[str, Any] = {
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "mid_block_type": None,
}

HOLD: dict[str, Any] = {"policy": "fixed_step", "gate_step": 2}
TGATE: dict[str, Any] = {
    "policy": "tgate",
    "gate_step": 5,
    "sp_interval": 2,
    "fi_interval": 2,
    "warm_up": 0,
}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


class Backend:
    """Runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


def compile_whole(pipe: Any, backend: Backend) -> None:
    pipe.unet = torch.compile(pipe.unet, fullgraph=True, backend=backend)


def compile_in_place(pipe: Any, backend: Backend) -> None:
    pipe.unet.compile(fullgraph=True, backend=backend)


@pytest.mark.parametrize(
    ("compiles", "order", "options"),
    [
        (compile_whole, "before", HOLD),
        (compile_whole, "after", TGATE),
        (compile_in_place, "before", TGATE),
        (compile_in_place, "after", HOLD),
    ],
    ids=lambda v: v if isinstance(v, str) else getattr(v, "__name__", None) or v["policy"],
)
def test_a_compiled_run_is_the_eager_one(
    kit: Any, compiles: Any, order: str, options: dict[str, Any]
) -> None:
    """Bit-equal, whole graphs, at most four of them, and none new for the second image."""
    eager = kit.make_pipe(tiny_unet(**SMALL))
    with tg.gate(eager, **options):
        expected = [kit.call(eager, seed=seed, steps=8) for seed in (0, 1)]
    pipe, backend = kit.make_pipe(tiny_unet(**SMALL)), Backend()
    if order == "before":
        compiles(pipe, backend)
    gating = tg.attach(pipe, **options)
    if order == "after":
        compiles(pipe, backend)
    graphs, images = [], []
    for seed in (0, 1):
        images.append(kit.call(pipe, seed=seed, steps=8))
        graphs.append(backend.graphs)
    gating.detach()
    assert all(torch.equal(a, b) for a, b in zip(images, expected, strict=True))
    assert torch._dynamo.utils.counters["graph_break"] == {}
    assert 2 <= graphs[0] <= 4
    assert graphs[1] == graphs[0]
    assert gating.runs[0].rows == gating.runs[1].rows


def test_a_compiled_backbone_in_a_loop_of_one_s_own(kit: Any) -> None:
    """gate(torch.compile(unet)) finds the module inside, and needs two graphs."""
    unet, backend = tiny_unet(**SMALL), Backend()
    options = {**HOLD, "layout": "uncond_first"}
    with tg.gate(unet, **options) as gating:
        expected = kit.walk(unet, [901, 601, 301, 1], gating=gating)
    compiled = torch.compile(unet, fullgraph=True, backend=backend)
    times = torch.tensor([901, 601, 301, 1])  # a Python number would be a graph each
    with tg.gate(compiled, **options) as gating:
        out = kit.walk(compiled, times, gating=gating)
    assert torch.equal(out, expected)
    assert backend.graphs == 2
    assert gating.report.rows == (6, 8)
