"""Promise 9: the MACs in a report are those that were done, and every gate's saving is its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tgate_sampling as tg
from tgate_plugins.tgate import TGate
from tgate_sampling.cost import CostModel, Macs, total
from tgate_sampling.report import spend
from tgate_sampling.run import CallRecord
from tgate_sampling.settle import settle_all
from tgate_sampling.testing import tiny_unet

GATE, STEPS = 10, 25

PRODUCTS = ("bmm", "baddbmm")

#: Configuration of runwayml/stable-diffusion-v1-5's UNet; the rest are the class's defaults.
SD15: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}


@contextmanager
def counted(into: list[Macs]) -> Iterator[None]:
    """Count what really runs, attention's own products included."""
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # the math kernel is made of operators one can see
        yield
    operators = counter.get_flop_counts()["Global"]
    everything = sum(operators.values())
    products = sum(n for op, n in operators.items() if str(op).split(".")[-1] in PRODUCTS)
    into.append(Macs(everything / 2, (everything - products) / 2))


SETTINGS: dict[str, dict[str, Any]] = {
    "hold": {"policy": "fixed_step", "gate_step": GATE, "estimator": "hold"},
    "none": {"policy": "fixed_step", "gate_step": GATE, "estimator": "none"},
    "refresh": {"policy": "fixed_step", "gate_step": GATE, "refresh": 2},
    "all gates": {
        "policy": "fixed_step",
        "gate_step": GATE,
        "gates": ("guidance", "cross", "self"),
    },
    "cross only": {"policy": "fixed_step", "gate_step": GATE, "gates": ("cross",)},
    "tgate": {"policy": "tgate", "gate_step": GATE, "sp_interval": 5, "fi_interval": 2},
    "interleave": {"policy": "interleave"},
    "never": {"policy": "never"},
}


@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_a_report_s_macs_are_those_that_ran(kit: Any, setting: str) -> None:
    """`done` and `ungated` are what torch's flop counter counts around the real runs."""
    pipe, runs = kit.make_pipe(), list[Macs]()
    with counted(runs):
        kit.call(pipe, steps=STEPS)
    with tg.gate(pipe, **SETTINGS[setting]) as gating, counted(runs):
        kit.call(pipe, steps=STEPS)
    ungated, done = runs
    spent = gating.report.macs
    assert spent is not None
    assert (spent.ungated.true, spent.ungated.layers) == pytest.approx(
        (ungated.true, ungated.layers)
    )
    assert (spent.done.true, spent.done.layers) == pytest.approx((done.true, done.layers))
    assert total(spent.saved.values()).true == pytest.approx(ungated.true - done.true)


@pytest.mark.parametrize(
    ("gates", "saved"),
    [(("guidance",), {"guidance"}), (("cross",), {"cross"}), (("self",), {"self"})],
)
def test_each_gate_alone_saves_what_the_report_says_of_it(
    kit: Any, gates: tuple[str, ...], saved: set[str]
) -> None:
    """A run with one gate spends less by exactly that gate's entry."""
    pipe, runs = kit.make_pipe(), list[Macs]()
    with counted(runs):
        kit.call(pipe)
    with tg.gate(pipe, "fixed_step", gate_step=2, gates=gates) as gating, counted(runs):
        kit.call(pipe)
    spent = gating.report.macs
    assert spent is not None
    assert set(spent.saved) == saved
    assert spent.saved[gates[0]].true == pytest.approx(runs[0].true - runs[1].true)


def test_macs_in_a_custom_loop_are_those_that_ran(kit: Any) -> None:
    """The same for `gating.steps`, with a batch of three."""
    unet, runs = tiny_unet(), list[Macs]()
    times = list(range(STEPS, 0, -1))
    options = {"gate_step": GATE, "layout": "uncond_first"}
    with tg.gate(unet, "fixed_step", **options) as gating, counted(runs):
        kit.walk(unet, times, rows=6, gating=gating)
    spent = gating.report.macs
    assert spent is not None
    assert spent.done.true == pytest.approx(runs[0].true)


def test_reports_of_other_sizes_keep_their_own_count(kit: Any) -> None:
    """Two images of two sizes: each report counts its own shapes, also when read late."""
    pipe, runs = kit.make_pipe(), list[Macs]()
    gating = tg.attach(pipe, "fixed_step", gate_step=3)
    for size in (16, 24):
        with counted(runs):
            kit.call(pipe, size=size)
    gating.detach()
    spent = [r.macs for r in gating.runs]
    assert [s.done.true for s in spent if s] == pytest.approx([r.true for r in runs])


def test_counting_waits_until_somebody_asks(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No backbone is built on the meta device while a pipeline runs."""
    monkeypatch.setattr("tgate_sampling.cost.count", pytest.fail)
    pipe = kit.make_pipe()
    with tg.gate(pipe, "fixed_step", gate_step=3) as gating:
        kit.call(pipe)
    assert gating.report.rows == (9, 12)


def sd15() -> CostModel:
    """SD-1.5 without weights."""

    def build() -> Any:
        with torch.device("meta"):
            return diffusers.UNet2DConditionModel(**SD15).eval()

    return CostModel(build)


def sd15_call(cost: CostModel) -> str:
    """The shapes of its forward: two branches, 64x64 latents, 77 tokens."""
    return cost.remember(
        (torch.empty(2, 4, 64, 64, device="meta"), torch.tensor(1)),
        {"encoder_hidden_states": torch.empty(2, 77, 768, device="meta")},
        2,
    )


@pytest.fixture(scope="module")
def published() -> tuple[CostModel, str]:
    """One count of SD-1.5 for the tests below; some seconds."""
    cost = sd15()
    return cost, sd15_call(cost)


def names(cost: CostModel, key: str, ending: str) -> frozenset[str]:
    footprint = cost.footprint(key)
    assert footprint is not None
    return frozenset(n for n in footprint.modules if n.endswith(ending))


def test_sd15_s_forward_costs_what_is_published(published: tuple[CostModel, str]) -> None:
    """0.8033 TMAC a forward of two branches; 0.6772 as the literature counts (README of T-GATE)."""
    cost, key = published
    footprint = cost.footprint(key)
    assert footprint is not None
    whole = footprint.whole * 2
    assert (whole.true / 1e12, whole.layers / 1e12) == pytest.approx((0.8033, 0.6772), abs=5e-5)


@pytest.mark.parametrize(
    ("gate_step", "layers", "true"),
    [(10, 11.637, 13.817), (5, 9.873, 11.728), (25, 16.931, 20.082)],
)
def test_sd15_under_t_gate_costs_what_is_published(
    published: tuple[CostModel, str], gate_step: int, layers: float, true: float
) -> None:
    """25 steps under T-GATE's first schedule, in TMAC, from a plan and the report's arithmetic."""
    cost, key = published
    policy = TGate(gate_step=gate_step, sp_interval=1, fi_interval=1, warm_up=0)
    cross = names(cost, key, ".attn2")
    calls = [
        CallRecord(key, 2, 1, {"cross": cross}) if d.closed else CallRecord(key, 2, 2, {})
        for d in settle_all(policy.plan(STEPS), merge="mean")  # type: ignore[arg-type]
    ]
    spent = [s for c in calls if (s := spend(c, cost)) is not None]
    done = total(s.done for s in spent)
    assert (done.layers / 1e12, done.true / 1e12) == pytest.approx((layers, true), abs=5e-4)
    assert len(cross) == 16
    saved = total(m for s in spent for m in s.saved.values())
    assert (done + saved).true == pytest.approx(total(s.ungated for s in spent).true)
