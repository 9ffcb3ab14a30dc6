"""Random stacks on random runs: never a stale read, never a crash, and a clean model afterwards."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

import tgate_sampling as tg
from tests import pipes
from tests.compose import toys
from tests.compose.shadow import Shadow, marked_texts
from tgate_plugins.block import Block
from tgate_sampling.errors import OptionError
from tgate_sampling.policy import Policy

pytestmark = [pytest.mark.filterwarnings(text) for text in pipes.WARNINGS]

SCHEDULERS = ("ddim", "euler", "dpmpp_2m", "heun", "pndm")
GATES = ("guidance", "cross", "self")

#: Attention in deep blocks too, so that skipping them leaves sites uncalled.
UNET = toys.deep_unet(layers_per_block=1)


@dataclass(frozen=True)
class Scripted(Policy):
    """Closes what it was told to, step by step; the last word holds on."""

    script: tuple[frozenset[str], ...]
    planned: bool
    gates: Collection[str] = (*GATES, "block")
    name = "scripted"

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> frozenset[str]:
        return self.script[min(step.index, len(self.script) - 1)]

    def plan(self, total: int) -> Sequence[frozenset[str]] | None:
        context = tg.StepContext.at
        return (
            [self.decide(context(i), tg.Signals()) for i in range(total)] if self.planned else None
        )


@dataclass(frozen=True)
class Call:
    """One call of a pipeline; `fails_at` is the backbone call that raises, where, and with what."""

    scheduler: str
    steps: int
    prompts: int
    guided: bool
    fails_at: int | None = None
    fails_in: str = "conv_out"
    error: type[BaseException] = RuntimeError


@dataclass(frozen=True)
class Case:
    """Policies, gate options, two calls, and the interval of DeepCache's helper, if it is there."""

    policy: Policy
    compose: tuple[Policy, ...]
    options: dict[str, Any]
    calls: tuple[Call, Call]
    helper: int | None = None


# -- what is drawn --------------------------------------------------------------------------------

some_gates = st.lists(st.sampled_from(GATES), min_size=1, unique=True).map(tuple)
small = st.integers(1, 4)


def named(name: str, **options: Any) -> st.SearchStrategy[Policy]:
    return st.builds(functools.partial(tg.get_policy, name), **options)


layered = st.one_of(
    named("fixed_step", gate_step=small, gates=some_gates),
    named("fixed_step", fraction=st.floats(0.1, 1.0), gates=some_gates),
    named("fixed_step", sigma=st.floats(0.5, 15.0), gates=some_gates),
    named("interleave", every=small, warm_up=small, gates=some_gates),
    named("tgate", gate_step=small, sp_interval=small, fi_interval=small, warm_up=small),
    named("convergence", threshold=st.floats(0.05, 5.0), patience=small, gates=some_gates),
    named("cosine_delta", min_cosine=st.floats(-1, 0.9), max_delta=st.just(2.0), gates=some_gates),
    named("adaptive_guidance", threshold=st.floats(-1, 0.99), look_every=small, gates=some_gates),
    named("error_controlled", tolerance=st.floats(0.01, 5.0), every=small, gates=some_gates),
    named("budgeted", speedup=st.floats(1.05, 1.9), warm_up=small, gates=some_gates),
    named("guidance_interval", start=st.floats(0, 0.4), stop=st.floats(0.5, 1), gates=some_gates),
)
scripts = st.lists(st.frozensets(st.sampled_from((*GATES, "block"))), min_size=1, max_size=7)
scripted = st.builds(Scripted, script=scripts.map(tuple), planned=st.booleans())
blocks = st.builds(
    Block,
    interval=small,
    branch=st.integers(0, 5),
    center=st.one_of(st.none(), st.floats(0, 1)),
)
stacks = st.one_of(
    st.tuples(scripted, st.just(())),
    st.tuples(layered, st.just(())),
    st.tuples(layered, blocks.map(lambda b: (b,))),
    st.tuples(blocks, layered.map(lambda p: (p,))),
)
options = st.fixed_dictionaries(
    {},
    optional={
        "estimator": st.sampled_from(["none", "hold", "decay", "forecast", "linear"]),
        "refresh": small,
        "merge": st.sampled_from(["cond", "both", "mean"]),
    },
)
calls = st.builds(
    Call,
    scheduler=st.sampled_from(SCHEDULERS),
    steps=st.integers(3, 7),
    prompts=st.integers(1, 2),
    guided=st.sampled_from([True, True, True, False]),
    fails_at=st.one_of(st.none(), st.integers(0, 8)),
    fails_in=st.sampled_from(["conv_in", "mid_block", "conv_out"]),
    error=st.sampled_from([RuntimeError, KeyboardInterrupt]),
)
cases = st.builds(
    lambda stack, options, first, second, helper: Case(*stack, options, (first, second), helper),
    stacks,
    options,
    calls,
    calls,
    st.sampled_from([None, None, None, 2, 3]),
)


# -- what is done with it -------------------------------------------------------------------------


@functools.cache
def pipeline(scheduler: str) -> Any:
    return pipes.pipeline(UNET, toys.scheduler(scheduler))


class Interrupt:
    """Raises in the backbone's forward at one of its calls."""

    def __init__(self, call: Call) -> None:
        self._left, self._error = call.fails_at, call.error

    def __call__(self, *_: Any) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise self._error("stop")


def perform(call: Call) -> torch.Tensor | None:
    """The call's latents, or None if it was interrupted."""
    hook = UNET.get_submodule(call.fails_in).register_forward_pre_hook(Interrupt(call))
    try:
        return toys.generate(
            pipeline(call.scheduler),
            steps=call.steps,
            embeds=marked_texts(call.prompts, seed=call.prompts),
            guidance_scale=4.0 if call.guided else 1.0,
        )
    except (RuntimeError, KeyboardInterrupt) as error:
        assert error.args == ("stop",)  # noqa: PT017  # any other is a crash of ours
        return None
    finally:
        hook.remove()


@functools.cache
def bare(scheduler: str) -> torch.Tensor:
    latents = perform(Call(scheduler, 3, 1, True))
    assert latents is not None
    return latents


@contextmanager
def deepcache(scheduler: str, interval: int | None) -> Iterator[None]:
    """DeepCache's helper enabled; also takes away the forwards that it leaves behind."""
    if interval is None:
        yield
        return
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper(pipeline(scheduler))
    helper.set_params(cache_interval=interval)
    helper.enable()
    try:
        yield
    finally:
        helper.disable()
        for module in UNET.modules():
            module.__dict__.pop("forward", None)


def gate(case: Case, scheduler: str) -> tg.Gating:
    return tg.gate(pipeline(scheduler), case.policy, compose=case.compose, **case.options)


FULL, ALL = frozenset[str](), frozenset({"guidance", "cross", "self", "block"})
CALL = Call("ddim", 6, 1, True)


@given(cases)
@settings(max_examples=180, deadline=None, derandomize=True)
@example(  # a site in a skipped block was not called, and what it had been handed was kept as new
    Case(
        Scripted((FULL, frozenset({"cross"}), frozenset({"guidance", "block"}), ALL), False),
        (),
        {},
        (CALL, CALL),
    )
)
@example(
    Case(
        Scripted((FULL, ALL, ALL, frozenset({"block"}), frozenset({"cross"})), False),
        (),
        {"merge": "both"},
        (CALL, CALL),
    )
)
def test_never_a_stale_read_never_a_crash_and_a_clean_model(kit: Any, case: Case) -> None:
    """What a site returns without computing is what itself last computed, in this run, these rows.

    Two calls under one gating, of any size and either interrupted anywhere; the second is what it
    would be alone, and the model is afterwards bitwise the one before.
    """
    first, second = case.calls
    second = replace(second, scheduler=first.scheduler)  # a gating is of one pipeline
    expected, before = bare(first.scheduler), kit.snapshot(UNET)
    results = []
    with deepcache(first.scheduler, case.helper):
        try:
            gating = gate(case, first.scheduler)
        except OptionError:  # mean with an estimator, and the like: refused before anything happens
            event("refused")
            return
        with gating, Shadow(gating, UNET) as shadow:
            for call in (first, second):
                with shadow.run():
                    results.append(perform(call))
                if results[-1] is None:
                    gating.reset()
                assert gating.cache_bytes == 0
                assert shadow.holding == []
    assert kit.snapshot(UNET) == before
    assert torch.equal(bare.__wrapped__(first.scheduler), expected)
    with deepcache(first.scheduler, case.helper), gate(case, first.scheduler):
        alone = perform(second)
    assert (alone is None) is (results[1] is None)
    assert alone is None or torch.equal(alone, results[1])
    event("reads" if shadow.reads else "no reads")
    event("interrupted" if None in results else "whole")


def test_the_shadow_sees_reads_and_would_see_a_stale_one() -> None:
    """It checks every closed site and estimate; a kept value that is replaced is found out."""
    pipe = pipeline("ddim")
    with (
        tg.gate(pipe, "fixed_step", gate_step=2, gates=GATES) as gating,
        Shadow(gating, UNET) as shadow,
    ):
        with shadow.run():
            perform(CALL)
        closed = CALL.steps - 2
        assert shadow.reads == closed * (len(shadow.sites) + 1)  # one row each, and one look

        hook = shadow.sites[0][1].register_forward_hook(lambda _, __, out: out + 1)
        with shadow.run(), pytest.raises(AssertionError):
            perform(CALL)
        hook.remove()
