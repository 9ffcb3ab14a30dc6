"""Stacks: several policies, a gate each; what cannot go together is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tgate_sampling as tg
from tests import pipes
from tests.compose import toys
from tests.kload import sampling
from tgate_plugins.block import Block
from tgate_plugins.fixed_step import FixedStep
from tgate_plugins.interleave import Interleave
from tgate_sampling.compose import RULES, Stack
from tgate_sampling.errors import OptionError, UnknownNameError
from tgate_sampling.testing import tiny_denoiser

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

STEPS = 10

#: The first policy of a stack, gating from step g on.
FIRST: dict[str, Any] = {
    "interleave": lambda g: Interleave(every=2, warm_up=g),
    "fixed_step": lambda g: FixedStep(gate_step=g),
    "fixed_step, all gates": lambda g: FixedStep(gate_step=g, gates=("guidance", "cross", "self")),
    "tgate": lambda g: tg.get_policy("tgate", gate_step=g, sp_interval=2, fi_interval=2),
    "function": lambda g: tg.policy(name="past")(lambda step: step.index >= g),
}


def macs_of(run: Any) -> float:
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        run()
    return counter.get_total_flops() / 2


def assert_adds_up(report: tg.Report) -> None:
    """What the gates saved is what an ungated run would cost more, and nothing is counted twice."""
    assert report.macs is not None
    saved = sum(m.true for m in report.macs.saved.values())
    assert saved == pytest.approx(report.macs.ungated.true - report.macs.done.true, rel=1e-9)
    # A closed attention gate saves nothing where all its sites lie in skipped blocks.
    assert all(m.true >= 0 for m in report.macs.saved.values())
    assert report.macs.saved["guidance"].true > 0
    assert report.macs.saved["block"].true > 0
    assert set(report.macs.saved) == set(report.closed)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return pipes.pipeline(toys.deep_unet(layers_per_block=1), toys.scheduler("ddim"))


# -- every gate step ------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("name", FIRST)
def test_any_gate_step_goes_with_any_interval(pipe: Any, name: str, interval: int) -> None:
    """From the first to the last step: no crash, nothing missing, and MACs counted gate by gate."""
    for gate_step in range(1, STEPS):
        first = FIRST[name](gate_step)
        with tg.gate(pipe, first, compose=[Block(interval=interval)]) as gating:
            assert toys.generate(pipe, steps=STEPS).isfinite().all()
        assert gating.report.events == ()
        assert gating.report.complete
        if gate_step in (1, 5, STEPS - 1):  # counting takes longer than the run
            assert_adds_up(gating.report)
        assert "block" in gating.report.closed
        if name not in ("interleave", "tgate"):
            assert gating.report.closed["guidance"] == tuple(range(gate_step, STEPS))


@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("gate_step", [1, 3, 6])
def test_an_sdxl_unet_in_a_plain_loop(gate_step: int, interval: int) -> None:
    """The same where text and time ids travel with the rows."""
    unet, timesteps = toys.sdxl_unet(), torch.arange(900, 0, -130)
    block = Block(interval=interval)
    options: dict[str, Any] = {"layout": "uncond_first", "compose": [block]}
    with tg.gate(unet, "fixed_step", gate_step=gate_step, **options) as gating:
        assert toys.sdxl_loop(unet, timesteps, gating).isfinite().all()
    assert gating.report.closed["guidance"] == tuple(range(gate_step, len(timesteps)))
    assert gating.report.events == ()
    assert_adds_up(gating.report)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m"])
@pytest.mark.parametrize("interval", [2, 3])
def test_k_diffusion_samplers(name: str, interval: int) -> None:
    """A stack in `sample_heun` and `sample_dpmpp_2m`, by its name in `compose`."""
    sample = tg.wrap_sampler(name, "fixed_step", gate_step=4, compose=[Block(interval=interval)])
    sigmas = sampling.get_sigmas_karras(STEPS, 0.1, 12.0)
    with torch.no_grad():
        sample(tiny_denoiser(), torch.ones(1, 4, 8, 8), sigmas, disable=True)
    report = sample.report
    assert report.closed["guidance"] == report.closed["cross"] == tuple(range(4, STEPS))
    reused = {i for i in range(STEPS) if i % interval}
    assert set(report.closed["block"]) == reused - {3}  # step 3 stores attention
    assert report.events == ()
    assert_adds_up(report)


@pytest.mark.parametrize("name", ["interleave", "fixed_step, all gates", "tgate"])
def test_counted_macs_are_those_that_ran(name: str) -> None:
    """Within 1 % of torch's own counter, ungated and gated."""
    pipe = pipes.pipeline(toys.deep_unet(), toys.scheduler("ddim"))
    bare = macs_of(lambda: toys.generate(pipe, steps=STEPS))
    with tg.gate(pipe, FIRST[name](4), compose=["block"]) as gating:
        gated = macs_of(lambda: toys.generate(pipe, steps=STEPS))
    assert gating.report.macs is not None
    assert gating.report.macs.ungated.true == pytest.approx(bare, rel=0.01)
    assert gating.report.macs.done.true == pytest.approx(gated, rel=0.01)


# -- who makes way for whom -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "interval", "closed"),
    [
        # Step 2 is the last before attention closes: it stores, so its blocks run.
        (FixedStep(gate_step=3), 5, {"guidance": "...#######", "cross": "...#######",
                                     "block": ".#.##.####"}),
        # Guidance alone stores no attention: blocks make way for nothing.
        (FixedStep(gate_step=3, gates=("guidance",)), 5, {"guidance": "...#######",
                                                           "block": ".####.####"}),
        # A look needs deep features of both branches: blocks run in steps 4, 6 and 8.
        (Interleave(), 3, {"guidance": "...#.#.#.#", "block": ".##..#.#.."}),
        (Interleave(every=3), 2, {"guidance": "...##.#.##", "block": ".#.#.....#"}),
    ],
    ids=["attention is stored", "guidance alone", "looks", "looks in skipped steps"],
)  # fmt: skip
def test_blocks_make_way(pipe: Any, first: Any, interval: int, closed: dict[str, str]) -> None:
    """`#` is closed: a step that stores attention or re-opens guidance runs its blocks."""
    with tg.gate(pipe, first, compose=[Block(interval=interval)]) as gating:
        toys.generate(pipe, steps=STEPS)
    marks = {g: tuple(i for i, mark in enumerate(row) if mark == "#") for g, row in closed.items()}
    assert gating.report.closed == marks
    assert gating.report.events == ()


def test_a_look_in_a_stack_costs_no_look() -> None:
    """Rows are those of the guidance policy alone; blocks save within the rows that run."""
    pipe, rows = pipes.pipeline(toys.deep_unet(), toys.scheduler("ddim")), []
    for compose in ([], ["block"]):
        with tg.gate(pipe, "interleave", compose=compose) as gating:
            toys.generate(pipe, steps=STEPS)
        rows.append(gating.report.rows)
    assert rows[0] == rows[1]


def test_the_order_of_members_changes_no_pattern(pipe: Any) -> None:
    """Each owns its gates, whoever comes first."""
    closed = []
    for first, second in ((FixedStep(gate_step=4), Block()), (Block(), FixedStep(gate_step=4))):
        with tg.gate(pipe, first, compose=[second]) as gating:
            toys.generate(pipe, steps=STEPS)
        closed.append(gating.report.closed)
    assert closed[0] == closed[1]


def test_three_members(pipe: Any) -> None:
    """Guidance, attention and blocks, each by a policy of its own."""
    members = [FixedStep(fraction=0.5, gates=("cross", "self")), Block(interval=2)]
    with tg.gate(pipe, Interleave(), compose=members) as gating:
        toys.generate(pipe, steps=STEPS)
    assert set(gating.report.closed) == {"guidance", "cross", "self", "block"}
    assert_adds_up(gating.report)
    assert gating.report.policy == (
        "interleave() + fixed_step(fraction=0.5, gates=('cross', 'self')) + block(interval=2)"
    )


# -- the first member fills -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        Interleave(),
        FixedStep(gate_step=3),
        tg.get_policy("tgate", gate_step=3),
        tg.get_policy("guidance_interval"),
    ],
    ids=lambda policy: policy.name,
)
def test_the_first_member_says_how_guidance_is_filled(pipe: Any, first: Any) -> None:
    """Its estimator, its merge rule, the rows it runs; the user's word stands above both."""
    stack = Stack((first, Block()))
    assert (stack.estimator, stack.merge, stack.runs) == (
        first.estimator,
        first.merge,
        first.runs,
    )
    with tg.gate(pipe, first, compose=["block"]) as gating:
        toys.generate(pipe, steps=STEPS)
    assert (gating.report.estimator, gating.report.merge) == (first.estimator, first.merge)


def test_tgate_in_a_stack_still_follows_the_negative_prompt() -> None:
    """With blocks that always run, a stack is its first member."""
    pipe = pipes.pipeline(toys.deep_unet(), toys.scheduler("ddim"))
    results = []
    for compose in ([], [Block(interval=1)]):
        with tg.gate(pipe, "tgate", gate_step=4, compose=compose):
            results.append(toys.generate(pipe, steps=STEPS))
    assert torch.equal(*results)


# -- refused --------------------------------------------------------------------------------------


def test_two_policies_for_one_gate_are_refused(pipe: Any) -> None:
    """Naming both, the gate, and what to write instead."""
    with pytest.raises(
        OptionError,
        match=r"interleave\(\) and fixed_step\(gate_step=4\) both close 'guidance': leave it",
    ):
        tg.gate(pipe, "interleave", compose=[FixedStep(gate_step=4)])
    with pytest.raises(OptionError, match="both close 'block'"):
        tg.gate(pipe, "block", compose=["block"])


def test_the_block_gate_beside_deepcache_is_refused() -> None:
    """Both skip the same blocks."""
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper
    pipe = pipes.pipeline(toys.deep_unet(), toys.scheduler("ddim"))
    helper = helper(pipe)
    helper.set_params(cache_interval=3)
    helper.enable()
    sentence = "the block gate and deepcache cannot go together: both skip the same blocks"
    for policy, compose in (("block", []), ("interleave", ["block"]), ("block", ["deepcache"])):
        with pytest.raises(OptionError, match=sentence):
            tg.gate(pipe, policy, compose=compose)
    helper.disable()
    tg.gate(pipe, "interleave", compose=["block"]).__enter__().detach()


def test_a_layer_that_is_not_enabled_is_refused(pipe: Any) -> None:
    """With the lines that enable it."""
    with pytest.raises(OptionError, match=r"call helper\.set_params\(cache_interval=3\)"):
        tg.gate(pipe, "interleave", compose=["deepcache"])


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("blok", "block"), ("deepcash", "deepcache"), ("interleaf", "interleave")],
)
def test_an_unknown_name_brings_the_nearest(pipe: Any, typed: str, nearest: str) -> None:
    """Of layers and policies together."""
    with pytest.raises(UnknownNameError, match=f"compose='{typed}' is unknown.*{nearest}"):
        tg.gate(pipe, "fixed_step", gate_step=3, compose=[typed])


@pytest.mark.parametrize("one", ["block", Block()])
def test_one_name_needs_no_list(pipe: Any, one: Any) -> None:
    """compose="block" is not five letters."""
    gating = tg.attach(pipe, "interleave", compose=one)
    assert gating.policy == Stack((Interleave(), Block()))
    gating.detach()


def test_every_rule_that_says_no_is_enforced(pipe: Any) -> None:
    """The table that is printed and the code that refuses tell the same."""
    refused = {(r.first, r.second) for r in RULES if r.verdict == "no"}
    assert {("block", "deepcache"), ("guidance", "guidance")} <= refused
    assert ("merge=mean", "estimator=hold") in refused
    with pytest.raises(OptionError):
        tg.gate(pipe, "fixed_step", gate_step=2, merge="mean", estimator="hold")
