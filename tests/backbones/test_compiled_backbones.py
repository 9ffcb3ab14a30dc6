"""torch.compile: whole graphs, at most one a decision, none new for the next picture; as eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper

gated = load_helper("backbones/gated.py")
oracles, pipelines = gated.oracles, gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS = 6

HOLD: dict[str, Any] = {"policy": "fixed_step", "gate_step": 2}
GUIDANCE: dict[str, Any] = {**HOLD, "gates": ("guidance",)}
LOOKS: dict[str, Any] = {"policy": "interleave"}
TGATE: dict[str, Any] = {
    "policy": "tgate",
    "gate_step": 3,
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


def whole(row: Any, pipe: Any, backend: Backend) -> None:
    """As `pipe.transformer = torch.compile(pipe.transformer)`."""
    compiled = torch.compile(row.denoiser(pipe), fullgraph=True, backend=backend)
    setattr(pipe, row.backbone, compiled)


def in_place(row: Any, pipe: Any, backend: Backend) -> None:
    """As `pipe.transformer.compile()`."""
    row.denoiser(pipe).compile(fullgraph=True, backend=backend)


Way = Callable[[Any, Any, Backend], None]


def case(name: str, options: dict[str, Any], graphs: int, way: Way, order: str) -> Any:
    """A parameter set with a readable name; `graphs` is how many distinct decisions there are."""
    label = f"{name}-{options['policy']}-{len(options)}-{way.__name__}-{order}"
    return pytest.param(name, options, graphs, way, order, id=label)


#: A decision is a graph by what sites do and how many rows run: open and closed are two of each;
#: calls of one branch each have the same rows, so that guidance alone changes nothing inside.
CASES = [
    case("sd3", HOLD, 2, whole, "before"),
    case("sd3", LOOKS, 2, in_place, "after"),
    case("pixart-sigma", HOLD, 2, whole, "after"),
    case("pixart-sigma", TGATE, 4, in_place, "before"),
    case("sdxl", HOLD, 2, in_place, "before"),
    case("wan", GUIDANCE, 1, whole, "before"),
    case("wan", HOLD, 2, whole, "before"),
    case("wan", HOLD, 2, in_place, "after"),
    case("wan", TGATE, 4, whole, "after"),
]


@pytest.mark.parametrize(("name", "options", "graphs", "way", "order"), CASES)
def test_a_compiled_run_is_the_eager_one(
    name: str, options: dict[str, Any], graphs: int, way: Way, order: str
) -> None:
    """Bit-equal, whole graphs, as many as there are decisions, and none new for the next run."""
    row = pipelines.PIPELINES[name]
    eager, pipe, backend = gated.made(name), gated.fresh(name), Backend()
    with tg.gate(eager, **options) as gating:
        expected = row.call(eager, steps=STEPS)
    rows = gating.report.rows
    if order == "before":
        way(row, pipe, backend)
    gating = tg.attach(pipe, **options)
    if order == "after":
        way(row, pipe, backend)
    pictures, counts = [], []
    for _ in range(2):
        pictures.append(row.call(pipe, steps=STEPS))
        counts.append(backend.graphs)
    gating.detach()
    assert all(torch.equal(picture, expected) for picture in pictures)
    assert torch._dynamo.utils.counters["graph_break"] == {}
    assert [report.rows for report in gating.runs] == [rows, rows]
    assert counts == [graphs, graphs]


def test_a_compiled_backbone_is_the_bare_one_after_detaching() -> None:
    """The bare pipeline's latents, with whole graphs, also where calls were skipped."""
    row, pipe, backend = pipelines.PIPELINES["wan"], gated.fresh("wan"), Backend()
    bare = row.call(pipe, steps=3)
    in_place(row, pipe, backend)
    with tg.gate(pipe, "fixed_step", gate_step=1):
        row.call(pipe, steps=3)
    assert torch.equal(row.call(pipe, steps=3), bare)
    assert torch._dynamo.utils.counters["graph_break"] == {}


def test_a_gating_that_counts_inside_the_graph_is_found_out() -> None:
    """A step number read by compiled code makes a graph for every step, and the count notices."""
    row, pipe, backend = pipelines.PIPELINES["sd3"], gated.fresh("sd3"), Backend()
    backbone = row.denoiser(pipe)
    own, backbone.step = type(backbone).forward, 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        result = own(backbone, *args, **kwargs)
        return (result[0] + 0.0 * backbone.step,)

    backbone.forward = forward
    backbone.register_forward_hook(lambda *_: setattr(backbone, "step", backbone.step + 1))
    in_place(row, pipe, backend)
    row.call(pipe, steps=3)
    assert backend.graphs == 3
