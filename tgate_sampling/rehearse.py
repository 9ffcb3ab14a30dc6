"""A run without a model: the same decisions, carried out on modules that know shapes alone.

A prediction takes the very way a run takes: legality, storing, narrowing, looks, blocks. Only the
backbone is another: for every site there is a module that answers with a tensor of the right shape
and no memory behind it, which takes microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Call, Site
from tgate_sampling.cache import Cache, bytes_behind
from tgate_sampling.carry import Carrier
from tgate_sampling.compose import Stack
from tgate_sampling.cost import CostModel
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.driver import Driver
from tgate_sampling.layout import Layout, map_tensors, tensors_in
from tgate_sampling.policy import Decider, Policy, describe
from tgate_sampling.report import Report
from tgate_sampling.run import Filling, Run
from tgate_sampling.signals import Signals
from tgate_sampling.sites import SiteGroup
from tgate_sampling.steps import Noise, Outside, Position, StepContext


class Standin(nn.Module):
    """Answers in the shape of the module it stands for, after calling what is inside.

    Args:
        answer: what the module returned to `rows` rows, on the meta device.
        rows: of the call that was recorded.
        inside: stand-ins of the sites within.
    """

    def __init__(self, answer: Any, rows: int, inside: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self._answer, self._recorded = answer, rows
        self.inside = nn.ModuleList(inside)

    def forward(self, rows: int) -> Any:
        for module in self.inside:
            module(rows)
        return map_tensors(lambda t: self._of(t, rows), self._answer)

    def _of(self, tensor: torch.Tensor, rows: int) -> torch.Tensor:
        if not tensor.ndim:
            return tensor
        leading, *rest = tensor.shape  # frames lie beside the batch: leading is a multiple of rows
        return tensor.new_empty(leading * rows // self._recorded, *rest)


@dataclass(frozen=True)
class Stage:
    """What all rehearsals on one backbone share.

    Args:
        name: the backbone's class.
        adapter: the name of the one that knows it.
        sites: what may be gated or measured, by kind.
        answers: what they answer, on the meta device.
        output: the backbone's predicted tensor.
        call: the call, every row of it.
        shape: its key in `cost`.
        layout: how branches lie in it.
        evaluations: backbone calls of each step.
        cost: counts the call.
        opaque: why guidance must stay open, or None.
    """

    name: str
    adapter: str
    sites: Mapping[str, Sequence[Site]]
    answers: Mapping[str, Any]
    output: torch.Tensor
    call: Call
    shape: str
    layout: Layout
    evaluations: Sequence[int]
    cost: CostModel
    opaque: str | None = None

    def play(self, policy: Policy, filling: Filling) -> tuple[Report, dict[str, int]]:
        """One whole run; its report, and the bytes each gate held when most were held."""
        root, groups = self._stand_ins()
        kinds = {site.name: kind for kind, group in groups.items() for site in group.sites}
        run = _WatchedRun(object(), policy, filling, groups, self.layout)
        run.kinds = kinds
        if self.opaque is not None:
            run.keep_open({"guidance"}, f"guidance stays open: {self.opaque}")
        carrier, driver = Carrier(root, groups, policy, filling), _Still(None)
        carrier.begin(compiled=False)
        for where in self._positions(run.token):
            step = run.enter(where, lambda _: None)
            plan = carrier.plan(run, step, where, self.call, driver, self.layout)
            carrier.set_modes(plan)
            plan.shape = self.shape
            output: torch.Tensor = root(plan.ran)
            carrier.collect(plan)
            carrier.fill(plan, output, output)
            step.calls.append(plan.record(root))
            run.measured.clear()  # without memory there is nothing to read
        report = self._report(run, filling)
        run.end()
        return report, run.held

    def _stand_ins(self) -> tuple[nn.Module, dict[str, SiteGroup]]:
        """The stand-in of the backbone, and its gated sites."""
        rows = self.call.sample.shape[0]
        blocks = [site.name for site in self.sites.get("block", ())]
        inside: dict[str, list[nn.Module]] = defaultdict(list)
        groups: dict[str, SiteGroup] = {}
        # Blocks last: by then what is inside them is known.
        for kind in sorted(self.sites, key=lambda kind: kind == "block"):
            made = []
            for site in self.sites[kind]:
                stand_in = Standin(self.answers.get(site.name), rows, inside.get(site.name, ()))
                made.append(Site(site.name, kind, stand_in))
                if site.name in self.answers:  # else the backbone never calls it
                    inside[_block_of(site.name, blocks) if kind != "block" else ""].append(stand_in)
            groups[kind] = SiteGroup(kind, made)
            groups[kind].attach()
        ordered = {kind: groups[kind] for kind in self.sites}
        return Standin(self.output, rows, inside[""]), ordered

    def _positions(self, token: object) -> list[Position]:
        total = len(self.evaluations)
        return [
            Position(token, StepContext(index, total, evaluation))
            for index, count in enumerate(self.evaluations)
            for evaluation in range(count)
        ]

    def _report(self, run: Run, filling: Filling) -> Report:
        return Report(
            policy=describe(run.policy),
            backbone=self.name,
            adapter=self.adapter,
            estimator=filling.estimator,
            merge=filling.merge,
            refresh=filling.refresh,
            steps=tuple(run.steps),
            events=tuple(run.events),
            seconds=0.0,
            peak_cache_bytes=run.peak_bytes,
            complete=True,
            cost=self.cost,
        )


def _block_of(name: str, blocks: Sequence[str]) -> str:
    """The block that a site lies in, or "" for none."""
    return next((b for b in blocks if name.startswith(f"{b}.")), "")


class _Still(Driver):
    """A driver of a run in which nothing moves."""

    def locate(self, call: Call) -> Outside:
        return Outside("a rehearsal says itself where it stands")


class _WatchedRun(Run):
    """A run that remembers whose bytes were held when most were held."""

    kinds: Mapping[str, str]
    held: dict[str, int] = {}  # noqa: RUF012  # replaced, never written into

    def watch_memory(self) -> None:
        before = self.peak_bytes
        super().watch_memory()
        if self.peak_bytes > before:
            self.held = held_by_gate(self.cache, self.kinds)


def held_by_gate(cache: Cache, kinds: Mapping[str, str]) -> dict[str, int]:
    """Bytes a cache holds for each gate; looks are held for guidance.

    Args:
        cache: of a run.
        kinds: the kind of each site in it.
    """
    tensors: dict[str, list[torch.Tensor]] = defaultdict(list)
    for slot in cache.slots.values():
        for name, kept in slot.kept.items():
            tensors[kinds[name]] += tensors_in(kept.value)
        for look in (x for looks in slot.looks.values() for x in looks):
            tensors["guidance"] += tensors_in((look.delta, look.cond))
    return {gate: bytes_behind(held) for gate, held in tensors.items()}


class _NoiseError(Exception):
    """A policy asked for a noise level, which is not known before a run."""


def _ask_noise() -> float:
    raise _NoiseError


def known_answers(policy: Policy, total: int) -> Sequence[Answer] | None:
    """What a policy will say in a run of `total` steps; None where only the run can show it."""
    if (plan := policy.plan(total)) is not None:
        return plan
    if policy.signals:
        return None
    decide, noise = policy.begin(), Noise(_ask_noise, _ask_noise)
    try:
        return [decide(StepContext(i, total, 0, noise), Signals()) for i in range(total)]
    except _NoiseError:
        return None


def foreseen(policy: Policy, total: int, *, closes: bool) -> tuple[Policy, bool]:
    """A policy whose answers need no model, and whether they are those the run will hear.

    Args:
        policy: the one to be foreseen.
        total: steps of the run.
        closes: what stands for answers that only the run can show: everything closed, or nothing.
    """
    if isinstance(policy, Stack):
        members = [foreseen(member, total, closes=closes) for member in policy.policies]
        return Stack(tuple(p for p, _ in members)), all(known for _, known in members)
    answers = known_answers(policy, total)
    if answers is None:
        closed = frozenset(policy.gates) if closes else frozenset[str]()
        return _Like(policy, [Decision(closed, rows=policy.runs)] * total), False
    return policy if policy.plan(total) is not None else _Like(policy, answers), True


class _Like(Policy):
    """Another policy's settings, with answers that are known."""

    def __init__(self, policy: Policy, answers: Sequence[Answer]) -> None:
        self.name = describe(policy)
        self._policy, self._answers = policy, answers
        for name in ("gates", "signals", "estimator", "merge", "runs", "warm_up", "branch"):
            setattr(self, name, getattr(policy, name))

    def begin(self) -> Decider:
        return lambda step, signals: self._answers[step.index]

    @property
    def measured(self) -> Any:
        """What the other one closes by measuring."""
        return self._policy.measured
