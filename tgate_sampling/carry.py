"""Carrying one decision out in one backbone call.

In order: `plan` chooses the branches that run, `set_modes` tells the sites, the backbone runs on
those rows, `collect` takes what was stored, `fill` completes the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tgate_sampling.adapter import Call
from tgate_sampling.cache import Slot, signature
from tgate_sampling.compose import active_layers
from tgate_sampling.decision import Decision
from tgate_sampling.driver import Driver
from tgate_sampling.guidance import ESTIMATORS, HIGH_GUIDANCE, Estimator, Look, to_denoised
from tgate_sampling.layer import Layer
from tgate_sampling.layout import SINGLE, Layout, block, has_guidance
from tgate_sampling.policy import Policy
from tgate_sampling.run import CallRecord, Filling, Run, StepRecord
from tgate_sampling.signals import Measurement, compare
from tgate_sampling.sites import SiteGroup
from tgate_sampling.steps import Position


@dataclass
class Plan:
    """One backbone call between its two hooks.

    Args:
        run, step, where: what it belongs to.
        call, driver: what was asked, and who tells where it stands.
        slot: what calls of this number keep.
        layout: the branches the caller asked for.
        branches: those that run.
        rows: how many rows the caller asked for.
        shape: key of the call's shapes, for counting.
        reused: names of the sites that are not computed, by kind.
        layers: block layers that are active.
    """

    run: Run
    step: StepRecord
    where: Position
    call: Call
    driver: Driver
    slot: Slot
    layout: Layout
    branches: Layout
    rows: int
    shape: str = ""
    reused: dict[str, frozenset[str]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    @property
    def ran(self) -> int:
        """How many rows run."""
        return self.rows * len(self.branches) // len(self.layout)

    @property
    def part(self) -> slice | None:
        """The rows that run, or None for all."""
        if self.ran == self.rows:
            return None
        return block(self.layout, self.branches[0], self.rows)

    @property
    def measures(self) -> bool:
        """Whether signals are taken in this call: the first of a step's first evaluation."""
        return self.where.call == 0 and self.where.step.evaluation == 0

    def skipped(self, backbone: nn.Module) -> frozenset[str]:
        """The topmost modules that this call did not run; asked after it."""
        blocks = self.reused.get("block", frozenset[str]())
        return blocks.union(*(x.skipped(backbone) for x in self.layers))

    def record(self, backbone: nn.Module) -> CallRecord:
        """What the call did, for the report."""
        sites = {k: names for k, names in self.reused.items() if k != "block"}
        return CallRecord(self.shape, self.rows, self.ran, sites, self.skipped(backbone))


class Carrier:
    """Carries decisions out on one backbone.

    Args:
        backbone: the gated module.
        groups: its gated sites by kind.
        policy: for the gates it may close and the signals it wants.
        filling: estimator and merge rule where a decision does not say.
    """

    def __init__(
        self,
        backbone: nn.Module,
        groups: Mapping[str, SiteGroup],
        policy: Policy,
        filling: Filling,
    ) -> None:
        self.backbone, self.groups = backbone, groups
        self.policy, self.filling = policy, filling
        self._two_modes = False
        self._last_rows: tuple[Layout, int] | None = None

    def begin(self, *, compiled: bool) -> None:
        """A run begins.

        Args:
            compiled: the backbone is called through `torch.compile(backbone)`.
        """
        self._last_rows = None
        self._two_modes = compiled or is_compiled(self.backbone)

    def rest(self) -> None:
        """The call is over: whoever calls a site between calls of the run finds it computing."""
        for group in self.groups.values():
            group.set("compute")

    def stand_aside(self) -> None:
        """The next call computes everything and keeps nothing."""
        self.rest()
        self._last_rows = None

    def clear(self) -> None:
        """No site holds anything."""
        for group in self.groups.values():
            group.clear()

    def plan(
        self,
        run: Run,
        step: StepRecord,
        where: Position,
        call: Call,
        driver: Driver,
        layout: Layout | None,
    ) -> Plan:
        """Choose the branches that run."""
        layout = self._check_layout(run, call, layout)
        slot = run.cache.slot(where.call)
        if slot.admit(signature(call.sample, len(layout))):
            run.note("shape", "the call's shape changed, so what was kept is dropped")
        branches = layout
        closes = "guidance" in step.decision.closed and has_guidance(layout)
        if closes and self._can_estimate(run, slot, step.decision, driver):
            branches = (step.decision.rows,)
        layers, rows = active_layers(self.backbone), call.sample.shape[0]
        return Plan(run, step, where, call, driver, slot, layout, branches, rows, layers=layers)

    def _check_layout(self, run: Run, call: Call, layout: Layout | None) -> Layout:
        rows = call.sample.shape[0]
        if layout is not None and rows % len(layout) == 0:
            return layout
        if "guidance" in self.policy.gates:
            run.note(
                "layout",
                "the layout of the branches is unknown, so guidance stays open: pass "
                "layout='uncond_first' (or 'cond_first', 'single')"
                if layout is None
                else f"{rows} rows do not split into {'/'.join(layout)}: guidance stays open",
            )
        return SINGLE

    def _can_estimate(self, run: Run, slot: Slot, decision: Decision, driver: Driver) -> bool:
        if reason := driver.opaque():
            run.note("guidance", f"guidance stays open: {reason}")
            return False
        if len(slot.looks) < ESTIMATORS[self._estimator(decision)].looks:
            run.note("estimate", "no guided evaluation to estimate from: guidance stays open")
            return False
        return True

    def _estimator(self, decision: Decision) -> str:
        return decision.estimator or self.filling.estimator

    def _merge(self, decision: Decision) -> str:
        return decision.merge or self.filling.merge

    def set_modes(self, plan: Plan) -> None:
        """Tell every site what to do in this call, and block layers when to run in full."""
        step, must_store = plan.step, False
        for kind, group in self.groups.items():
            if kind in step.decision.closed:
                must_store |= self._reuse(group, plan, self._merge(step.decision))
            elif kind in step.stored or kind in self.policy.signals:
                group.set("store")
                must_store |= plan.run.planned
            else:
                # Compiled code has a graph for each mode: storing for nothing saves a third one.
                group.set("store" if self._two_modes else "compute")
        now = (plan.branches, plan.ran)
        if plan.layers and (now != self._last_rows or must_store):
            for layer in plan.layers:
                layer.refresh()
        self._last_rows = now

    def _reuse(self, group: SiteGroup, plan: Plan, merge: str) -> bool:
        """Hand each site what it shall return; True if one has nothing and must store."""
        wanted = (id(plan.slot), plan.slot.version, plan.branches, merge)
        if group.loaded == wanted and group.set("reuse"):
            plan.reused[group.kind] = group.names
            return False
        reused = set()
        for index, site in enumerate(group.sites):
            kept = plan.slot.fit(site.name, plan.branches, merge)
            group.put(index, kept)
            group.set_one(index, "store" if kept is None else "reuse")
            if kept is not None:
                reused.add(site.name)
        plan.reused[group.kind] = frozenset(reused)
        missing = len(group.sites) - len(reused)
        group.loaded = None if missing else wanted
        if missing:
            plan.run.note(
                f"missing {group.kind}",
                f"{missing} {group.kind} sites had nothing to reuse and were computed",
            )
        return bool(missing)

    def collect(self, plan: Plan) -> None:
        """Take what sites in mode `store` kept; measure it against what was kept before."""
        before = plan.slot.version
        # Where blocks were left out only some sites were called: their mean would be another one.
        signals = self.policy.signals
        whole = bool(signals) and plan.measures and not plan.skipped(self.backbone)
        for kind, group in self.groups.items():
            wanted = kind in plan.step.stored or kind in plan.step.decision.closed
            measured = whole and kind in signals
            for index, site in enumerate(group.sites):
                if group.mode(index) != "store":
                    continue
                fresh = group.collect(index)
                if fresh is None or not (wanted or measured):
                    continue
                old = plan.slot.kept.get(site.name)
                if measured and old is not None and old.branches == plan.branches:
                    values, branches = compare(fresh, old.value), len(plan.branches)
                    plan.run.measured.append(Measurement(kind, site.name, values, branches))
                plan.slot.keep(site.name, fresh, plan.branches)
        if plan.slot.version != before:
            plan.run.watch_memory()

    def fill(self, plan: Plan, output: torch.Tensor) -> torch.Tensor | None:
        """The output for all rows, or None if all rows ran."""
        decision = plan.step.decision
        estimator = ESTIMATORS[self._estimator(decision)]
        if plan.ran == plan.rows:
            keeps = "guidance" in plan.step.stored or "guidance" in decision.closed
            served = [ESTIMATORS[name] for name in plan.run.estimators]
            wanted = any(e.memory for e in served) or "guidance" in self.policy.signals
            if keeps and wanted and has_guidance(plan.layout):
                self._look(plan, estimator, served, output)
            return None
        if decision.rows == "uncond":
            return torch.cat([output] * len(plan.layout))
        uncond = estimator.fill(output, plan.slot.looks, _level(plan, [estimator]))
        parts = {"cond": output, "uncond": uncond}
        return torch.cat([parts[b] for b in plan.layout])

    def _look(
        self,
        plan: Plan,
        estimator: Estimator,
        served: Sequence[Estimator],
        output: torch.Tensor,
    ) -> None:
        """Remember what both branches said, and how well it would have been estimated."""
        level = _level(plan, served)
        parts = [block(plan.layout, b, plan.rows) for b in ("cond", "uncond")]
        cond, uncond = (output[p] for p in parts)
        if plan.measures and "guidance" in self.policy.signals:
            ready = len(plan.slot.looks) >= max(1, estimator.looks)
            guess = estimator.fill(cond, plan.slot.looks, level) if ready else cond
            plan.run.measured.append(_judge(plan, cond, uncond, guess))
        # A copy: a view would keep the other branch alive, and the caller may write into its rows.
        kept = cond.clone() if any(e.keeps_cond for e in served) else None
        plan.slot.looks.append(Look(cond - uncond, level, kept))
        plan.run.watch_memory()


def _judge(
    plan: Plan, cond: torch.Tensor, uncond: torch.Tensor, guess: torch.Tensor
) -> Measurement:
    """The error `guess` would have made in the guided output, and cos(cond, uncond).

    The cosine is of the denoised predictions where the driver knows how the output is to be read
    (arXiv 2312.12487 measures it so), of the raw outputs elsewhere.
    """
    scale = plan.driver.guidance_scale() or HIGH_GUIDANCE
    guided = cond + (scale - 1) * (cond - uncond)
    error = (scale - 1) * (guess - uncond).flatten(1).float().norm(dim=1)
    error = error / guided.flatten(1).float().norm(dim=1).clamp_min(1e-12)  # (B,)
    prediction, sigma = plan.driver.prediction_type(), None
    if prediction is not None:
        sigma = plan.where.step.sigma
    if prediction is None or sigma is None:
        return Measurement("guidance", "raw", _pair(error, compare(cond, uncond)))
    sample = plan.call.sample[block(plan.layout, "cond", plan.rows)]
    both = [to_denoised(sample, y, sigma, prediction) for y in (cond, uncond)]
    return Measurement("guidance", "denoised", _pair(error, compare(*both)))


def _pair(error: torch.Tensor, compared: torch.Tensor) -> torch.Tensor:
    return torch.stack([error, compared[:, 1]], 1)  # (B, 2)


def _level(plan: Plan, estimators: Sequence[Estimator]) -> float | None:
    """Log sigma of this evaluation, where an estimator asks for it."""
    sigma = plan.where.step.sigma if any(e.reads_level for e in estimators) else None
    return math.log(sigma) if sigma is not None and sigma > 0 else None


def is_compiled(backbone: nn.Module) -> bool:
    """Whether any part of the backbone was compiled in place."""
    return any(m._compiled_call_impl is not None for m in backbone.modules())
