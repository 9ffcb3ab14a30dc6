"""Carrying one decision out in one backbone call.

In order: `plan` chooses the branches that run, `set_modes` tells the sites, the backbone runs on
those rows, `collect` takes what was stored, `fill` completes the output. Where every branch has a
call of its own and nothing of this one need run, `answer` takes the backbone's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Call
from tgate_sampling.cache import signature
from tgate_sampling.compose import active_layers
from tgate_sampling.decision import Decision
from tgate_sampling.driver import Driver
from tgate_sampling.guidance import ESTIMATORS, Estimator, Look
from tgate_sampling.judge import judge, level_of, pair_of
from tgate_sampling.layout import (
    SEPARATE,
    SINGLE,
    Layout,
    has_guidance,
    in_call,
    row_wise,
    tensors_in,
)
from tgate_sampling.plan import Partner, Plan
from tgate_sampling.policy import Policy
from tgate_sampling.run import Filling, Run, StepRecord
from tgate_sampling.signals import Measurement, compare, of_samples
from tgate_sampling.sites import SiteGroup
from tgate_sampling.steps import Position

UNKNOWN_LAYOUT = (
    "the layout of the branches is unknown, so guidance stays open: pass layout='uncond_first' (or "
    "'cond_first', 'separate', 'single')"
)


class Carrier:
    """Carries decisions out on one backbone.

    Args:
        backbone: the gated module.
        groups: its gated sites by kind.
        policy: for the gates it may close and the signals it wants.
        filling: estimator and merge rule where a decision does not say.
        negative: the branch that a decision's `rows="uncond"` means on this backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        groups: Mapping[str, SiteGroup],
        policy: Policy,
        filling: Filling,
        *,
        negative: str = "uncond",
    ) -> None:
        self.backbone, self.groups = backbone, groups
        self.policy, self.filling = policy, filling
        self._negative = negative
        self._two_modes = False
        self._last_rows: tuple[Layout, int] | None = None
        self._partner: Partner | None = None

    def begin(self, *, compiled: bool) -> None:
        """A run begins.

        Args:
            compiled: the backbone is called through `torch.compile(backbone)`.
        """
        self._last_rows = self._partner = None
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
        self._partner = None
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
        asked = self._check_layout(run, call, layout)
        own = in_call(asked, where.call, call.context)
        slot = run.cache.slot(where.call)
        if slot.admit(signature(call.sample, len(own))):
            run.note("shape", "the call's shape changed, so what was kept is dropped")
        plan = Plan(run, step, where, call, driver, slot, own, own, call.sample.shape[0])
        plan.layers = active_layers(self.backbone)
        if asked == SEPARATE:
            plan.pairs = own == ("cond",)
            plan.partner = self._partner_of(plan)
        if "guidance" in step.decision.closed and self._can_estimate(plan):
            plan.branches = self._narrowed(plan)
        return plan

    def _partner_of(self, plan: Plan) -> Partner | None:
        """The cond call right before this uncond call, in the same evaluation."""
        partner, self._partner = self._partner, None
        if plan.layout != ("uncond",):
            return None
        plan.run.paired = True
        if partner is None:
            return None
        before, now = partner.where, plan.where
        same = before.run is now.run and before.step.index == now.step.index
        near = before.step.evaluation == now.step.evaluation and before.call == now.call - 1
        return partner if same and near and partner.output.shape[0] == plan.rows else None

    def _narrowed(self, plan: Plan) -> Layout:
        """What runs while guidance is closed."""
        decision = plan.step.decision
        if plan.partner is not None:
            if self._merge(decision) != "both":  # re-opening guidance opens attention too
                plan.slot.forget()
            return ()
        return (decision.rows if decision.rows == "cond" else self._negative,)

    def _check_layout(self, run: Run, call: Call, layout: Layout | None) -> Layout:
        rows = call.sample.shape[0]
        if layout is not None and rows % len(layout) == 0:
            return layout
        if layout is None:
            run.keep_open({"guidance"}, UNKNOWN_LAYOUT, kind="layout")
        elif "guidance" in run.gates:
            split = f"{rows} rows do not split into {'/'.join(layout)}"
            run.note("layout", f"{split}: guidance stays open")
        return SINGLE

    def _can_estimate(self, plan: Plan) -> bool:
        """Whether there is a missing branch in this call, and something to estimate it from."""
        if not has_guidance(plan.layout) and plan.partner is None:
            return False
        run, decision = plan.run, plan.step.decision
        if plan.partner is not None and decision.rows == "uncond":
            run.note(
                "rows",
                "rows='uncond' needs both branches in one call, and here each has its own: the "
                "conditional one runs",
            )
        if plan.slot.seen(plan.others) < ESTIMATORS[self._estimator(decision)].looks:
            run.note("estimate", "no guided evaluation to estimate from: guidance stays open")
            return False
        return True

    def _estimator(self, decision: Decision) -> str:
        return decision.estimator or self.filling.estimator

    def _merge(self, decision: Decision) -> str:
        return decision.merge or self.filling.merge

    def set_modes(self, plan: Plan) -> None:
        """Tell every site what to do in this call, and block layers when to run in full."""
        if not plan.ran:
            return
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
        if not plan.ran:
            return
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
                    branches = len(plan.branches)
                    worst = of_samples(compare(fresh, old.value), branches, plan.ran // branches)
                    plan.run.measured.append(Measurement(kind, site.name, worst))
                plan.slot.keep(site.name, fresh, plan.branches)
        if plan.slot.version != before:
            plan.run.watch_memory()

    def fill(self, plan: Plan, result: Any, output: torch.Tensor) -> torch.Tensor | None:
        """The output for all rows, or None if all rows ran.

        Args:
            plan: of the call.
            result: what the backbone returned.
            output: the predicted tensor in it, for the rows that ran.
        """
        decision = plan.step.decision
        if plan.ran < plan.rows:
            if decision.rows == "uncond":
                return torch.cat([output] * len(plan.layout))
            parts = {b: self._estimate(plan, output, b) for b in plan.others}
            return torch.cat([output if b == "cond" else parts[b] for b in plan.layout])
        if "guidance" not in plan.step.stored | decision.closed:
            return None
        if plan.pairs:
            # The caller may write into what it was given before the uncond call is made.
            self._partner = Partner(plan.where, result, output.clone())
        elif has_guidance(plan.layout) or plan.partner is not None:
            self._check_outputs(plan, result, output)
            served = [ESTIMATORS[name] for name in plan.run.estimators]
            if any(e.memory for e in served) or "guidance" in self.policy.signals:
                self._look(plan, served, output)
        return None

    def answer(self, plan: Plan) -> tuple[Any, torch.Tensor]:
        """What an uncond call that does not run is answered with.

        Returns:
            The cond call's result, as a pattern, and the estimated output.
        """
        partner = plan.partner
        assert partner is not None  # `plan` has seen to it
        return partner.result, self._estimate(plan, partner.output, "uncond")

    def _estimate(self, plan: Plan, cond: torch.Tensor, branch: str) -> torch.Tensor:
        estimator = ESTIMATORS[self._estimator(plan.step.decision)]
        return estimator.fill(cond, plan.slot.looks[branch], level_of(plan, [estimator]))

    def _check_outputs(self, plan: Plan, result: Any, output: torch.Tensor) -> None:
        """Of several predictions in one result only the first could be estimated."""
        whole = any(tensor is output for tensor in tensors_in(result))  # else a list of its rows
        if whole and row_wise(result, plan.rows) > 1:
            name = type(self.backbone).__name__
            plan.run.keep_open(
                {"guidance"},
                f"guidance stays open: {name} returns several predictions, and one could be "
                "estimated",
            )

    def _look(self, plan: Plan, served: Sequence[Estimator], output: torch.Tensor) -> None:
        """Remember what all branches said, and how well it would have been estimated."""
        level = level_of(plan, served)
        for branch in plan.others:
            cond, other = pair_of(plan, output, branch)
            if branch == "uncond" and plan.judges and "guidance" in self.policy.signals:
                estimator = ESTIMATORS[self._estimator(plan.step.decision)]
                ready = plan.slot.seen([branch]) >= max(1, estimator.looks)
                looks = plan.slot.looks[branch]
                guess = estimator.fill(cond, looks, level) if ready else cond
                plan.run.measured.append(judge(plan, cond, other, guess))
            # A copy: a view would keep the other branch alive, and the caller may write into it.
            kept = cond.clone() if any(e.keeps_cond for e in served) else None
            plan.slot.looks[branch].append(Look(cond - other, level, kept))
        plan.run.watch_memory()


def is_compiled(backbone: nn.Module) -> bool:
    """Whether any part of the backbone was compiled in place."""
    return any(m._compiled_call_impl is not None for m in backbone.modules())
