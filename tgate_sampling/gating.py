"""Attach a policy to a backbone, for a `with` block or until `detach`."""

from __future__ import annotations

import functools
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter, Call
from tgate_sampling.cache import Slot, signature
from tgate_sampling.cost import CostModel
from tgate_sampling.decision import ATTENTION_GATES, Decision, check_filling
from tgate_sampling.driver import Driver
from tgate_sampling.errors import (
    AlreadyGatedError,
    ConcurrentRunError,
    NeverEnteredWarning,
    NoRunError,
    OptionError,
    UnsupportedBackboneError,
)
from tgate_sampling.guidance import ESTIMATORS
from tgate_sampling.layer import Layer
from tgate_sampling.layout import SINGLE, Layout, as_layout, block, has_guidance
from tgate_sampling.policy import (
    DEFAULT_POLICY,
    DEFAULT_REFRESH,
    Policy,
    as_policy,
    describe,
)
from tgate_sampling.report import Report
from tgate_sampling.run import CallRecord, Event, Filling, Run, StepRecord
from tgate_sampling.signals import Measured, compare
from tgate_sampling.sites import SiteGroup
from tgate_sampling.steps import Outside, Position

T = TypeVar("T")

#: The gating each backbone carries. Weak: a forgotten backbone takes its gating along.
_ACTIVE: weakref.WeakKeyDictionary[nn.Module, Gating] = weakref.WeakKeyDictionary()


def gate(
    target: Any,
    policy: Policy | Callable[..., Any] | str | None = None,
    *,
    backbone: nn.Module | None = None,
    layout: str | Sequence[str] | None = None,
    compose: Sequence[str] = (),
    estimator: str | None = None,
    refresh: int | None = None,
    merge: str | None = None,
    **options: Any,
) -> Gating:
    """Gate a pipeline or a backbone for the length of a `with` block.

    Args:
        target: a diffusers pipeline, or the backbone itself for a loop of one's own.
        policy: a policy's name, a policy, or a function of the step. The default needs no number:
            see `tgate_sampling.policy.DEFAULT_POLICY`.
        backbone: the module to gate, where the target holds several.
        layout: how branches lie in a call's batch ("uncond_first", "cond_first", "single", or
            the branch of each block of rows); found by itself for pipelines.
        compose: layers that are active in the same backbone ("deepcache"), to insist on them; an
            active one is found without being named.
        estimator: how a closed guidance gate is filled: "hold" keeps guidance alive, "none" turns
            it off (as T-GATE).
        refresh: look at both branches again every so many steps after guidance has closed.
        merge: what becomes of a kept attention output when one branch goes: "cond", "mean", "both".
        **options: the policy's own.

    Raises:
        OptionError: an option is unknown or out of range; nothing has been touched.
        UnsupportedBackboneError: no adapter knows the backbone.
        AlreadyGatedError: the backbone carries a gating (raised on entering the block).

    Example:
        >>> import tgate_sampling as tg
        >>> from tgate_sampling.testing import tiny_unet, unet_inputs
        >>> unet = tiny_unet()
        >>> with tg.gate(unet, "fixed_step", gate_step=2, layout="uncond_first") as gating:
        ...     for t in gating.steps([901, 601, 301, 1]):
        ...         _ = unet(**unet_inputs(rows=2), timestep=t)
        >>> gating.report.closed["guidance"]
        (2, 3)
    """
    if policy is None:
        if options:
            raise OptionError(
                f"{', '.join(sorted(options))} without a policy: name the policy these belong to, "
                f"as in gate(pipe, 'fixed_step', gate_step=10)."
            )
        policy, refresh = DEFAULT_POLICY, DEFAULT_REFRESH if refresh is None else refresh
    return Gating(
        target,
        as_policy(policy, options),
        backbone=backbone,
        layout=layout,
        compose=compose,
        estimator=estimator,
        refresh=refresh,
        merge=merge,
    )


def attach(target: Any, policy: Any = None, **options: Any) -> Gating:
    """`gate` without the block, for notebooks and servers: gated until `detach()`."""
    gating = gate(target, policy, **options)
    gating._attach()
    return gating


def active_gating(backbone: nn.Module) -> Gating | None:
    """The gating a backbone carries now, or None."""
    return _ACTIVE.get(backbone)


class Gating:
    """A policy at work on one backbone. Made by `gate` and `attach`.

    The order of events: `Gating` checks everything and touches nothing; entering swaps the sites'
    classes and hooks the backbone; each backbone call is located, decided, narrowed and filled;
    leaving undoes it exactly.
    """

    def __init__(
        self,
        target: Any,
        policy: Policy,
        *,
        backbone: nn.Module | None = None,
        layout: str | Sequence[str] | None = None,
        compose: Sequence[str] = (),
        estimator: str | None = None,
        refresh: int | None = None,
        merge: str | None = None,
    ) -> None:
        self._attached, self._entered = False, True  # an error below is no forgotten `with`
        self.policy = policy
        self._layout = as_layout(layout)
        self.filling = _filling(policy, estimator, merge, refresh)
        driver, self.backbone = _find(target, backbone)
        self.adapter = adapter_for(self.backbone)
        if reason := self.adapter.refuses(self.backbone):
            raise UnsupportedBackboneError(reason)
        self._drivers: list[Driver] = [driver]
        self._compose = tuple(manager().layers.get(name) for name in compose)
        for layer in self._compose:
            if layer.detect(self.backbone) is None:
                raise OptionError(layer.missing())
        self._cost = CostModel(self.adapter.blueprint(self.backbone))
        self._groups = self._make_groups()
        #: Reports of all runs, oldest first.
        self.runs: list[Report] = []
        #: What happened outside any run.
        self.events: list[Event] = []
        self._run: Run | None = None
        self._busy: int | None = None
        self._pending: _Pending | None = None
        self._last_rows: tuple[Layout, int] | None = None
        self._undo: list[Callable[[], None]] = []
        self._two_modes = False
        self._entered = False

    def _make_groups(self) -> dict[str, SiteGroup]:
        # A kind that can neither close nor be measured is not touched at all.
        wanted = set(self.policy.gates) | set(self.policy.signals)
        sites = [s for s in self.adapter.sites(self.backbone) if s.kind in wanted]
        kinds = [k for k in ATTENTION_GATES if any(s.kind == k for s in sites)]
        return {k: SiteGroup(k, [s for s in sites if s.kind == k]) for k in kinds}

    # -- what users see -------------------------------------------------------------------------

    @property
    def report(self) -> Report:
        """The last run's report; of the run in progress, if there is one.

        Raises:
            NoRunError: nothing has run yet.
        """
        if self._run is not None:
            return self._make_report(self._run, complete=False)
        if not self.runs:
            raise NoRunError(
                "no run to report yet: call the pipeline, or loop over gating.steps(timesteps), "
                "while the gating is attached."
            )
        return self.runs[-1]

    @property
    def cache_bytes(self) -> int:
        """Bytes held for the run in progress; 0 between runs."""
        return self._run.cache.bytes if self._run else 0

    def steps(
        self, timesteps: Iterable[T], *, sigmas: Sequence[float] | None = None
    ) -> Iterator[T]:
        """Drive a loop of one's own: iterate, and call the backbone in the body.

        The run ends with the loop, also by `break` or an exception, and at the next `steps()`.

        Args:
            timesteps: what the scheduler's loop runs over.
            sigmas: noise levels beside them, for policies that ask.

        Raises:
            OptionError: the gating is not attached, or sigmas do not match.
        """
        if not self._attached:
            raise OptionError("gating.steps() before entering: use it inside `with gate(...)`.")
        items = list(timesteps)
        driver: Any = manager().drivers.get("loop")(None)
        driver.begin(len(items), sigmas)
        return self._loop(items, driver)

    def _loop(self, items: list[T], driver: Any) -> Iterator[T]:
        self._end(complete=False)
        with self.driven_by(driver):
            for index, item in enumerate(items):
                driver.move(index)
                yield item

    def reset(self) -> None:
        """Abandon the run in progress, as after an exception that a server caught."""
        self._busy = None
        self._end(complete=False)

    def detach(self) -> None:
        """Leave the backbone as it was found. Harmless when it has happened already."""
        if not self._attached:
            return
        self._end(complete=False)
        while self._undo:
            self._undo.pop()()
        for driver in self._drivers:
            driver.close()
        if _ACTIVE.get(self.backbone) is self:
            del _ACTIVE[self.backbone]
        self._attached = False

    def __enter__(self) -> Self:
        if not self._attached:
            self._attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self._attached else "not attached"
        return f"<Gating {describe(self.policy)} on {type(self.backbone).__name__}, {state}>"

    def __del__(self) -> None:
        if not getattr(self, "_entered", True):
            warnings.warn(
                f"{describe(self.policy)}: gate(...) was never entered, so nothing was gated; "
                "write `with gate(...):`, or use attach(...).",
                NeverEnteredWarning,
                stacklevel=2,
            )

    # -- attaching ------------------------------------------------------------------------------

    def _attach(self) -> None:
        self._entered = True
        first = _ACTIVE.get(self.backbone)
        if first is not None:
            raise AlreadyGatedError(
                f"this {type(self.backbone).__name__} is gated already, by "
                f"{describe(first.policy)}: leave that `with` block or call its detach() first."
            )
        _ACTIVE[self.backbone] = self
        self._attached = True
        try:
            for group in self._groups.values():
                self._undo.append(group.detach)
                group.attach()
            before = _Hook(self._before)
            after = _Hook(self._after)
            # always_call: a forward that raises must still end our call.
            self._undo.append(
                self.backbone.register_forward_pre_hook(before, with_kwargs=True).remove
            )
            self._undo.append(
                self.backbone.register_forward_hook(
                    after, with_kwargs=True, always_call=True
                ).remove
            )
            self._undo.append(_ask_for_end(self.backbone, _Hook(self._pipeline_done)))
        except BaseException:
            self.detach()
            raise

    @contextmanager
    def driven_by(self, driver: Driver) -> Iterator[None]:
        """Let another driver tell the clock, as a wrapped sampler does during its run."""
        self._drivers.append(driver)
        try:
            yield
        except BaseException:
            self._end(complete=False)
            raise
        else:
            self._end(complete=True)
        finally:
            self._drivers.remove(driver)
            driver.close()

    def _pipeline_done(self, **_: Any) -> None:
        self._end(complete=self._run is not None and self._reached_end(self._run))

    @staticmethod
    def _reached_end(run: Run) -> bool:
        step = run.step
        total = step.context.total if step else None
        return step is not None and total is not None and step.index >= total - 1

    # -- one backbone call ----------------------------------------------------------------------

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if module is not self.backbone or torch.compiler.is_compiling():
            return None
        self._check_alone()
        self._busy = threading.get_ident()
        try:
            return self._narrow(args, kwargs)
        except BaseException:
            self._busy = None
            self._end(complete=False)
            raise

    def _check_alone(self) -> None:
        here = threading.get_ident()
        if self._busy == here:
            # A KeyboardInterrupt inside the forward: torch runs no hook for it.
            self.reset()
        if self._busy is not None:
            raise ConcurrentRunError(
                "the gated backbone was called while another call was still in it: run one "
                "pipeline at a time on a gated backbone, or give each thread its own."
            )
        if self._run is not None and self._run.thread != here:
            raise ConcurrentRunError(
                "the gated backbone was called from a second thread while a run was live in "
                "another: finish that run first, or call gating.reset() if it was abandoned."
            )

    def _narrow(self, args: Any, kwargs: Any) -> Any:
        """Before the forward: find the step, set the sites' modes, cut the rows."""
        call = self.adapter.read(self.backbone, args, kwargs)
        driver = self._drivers[-1]
        where = driver.locate(call)
        if isinstance(where, Outside) or (torch.is_grad_enabled() and call.sample.requires_grad):
            reason = where.reason if isinstance(where, Outside) else "autograd needs the full graph"
            self._stand_aside(reason)
            return None
        run = self._run_of(where)
        step = run.enter(where, self._step_finished)
        layout = self._find_layout(run, driver, call)
        plan = self._plan_call(run, step, where, call, layout)
        self._set_modes(run, step, plan)
        plan.key = self._cost.remember(args, kwargs, plan.rows)
        self._pending = plan
        if plan.ran == plan.rows:
            return None
        return self.adapter.take(
            args, kwargs, plan.rows, block(plan.layout, plan.branches[0], plan.rows)
        )

    def _after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        """After the forward: keep what will be read again, fill in what did not run."""
        if module is not self.backbone or torch.compiler.is_compiling() or self._busy is None:
            return None
        self._busy = None
        plan, self._pending = self._pending, None
        if plan is None:
            return None
        if result is None:  # the forward raised
            self._end(complete=False)
            return None
        run, step = plan.run, plan.step
        self._collect(plan)
        output = self.adapter.output(result)
        filled = self._fill(plan, output)
        step.calls.append(
            CallRecord(
                plan.key,
                plan.rows,
                plan.ran,
                plan.reused,
                frozenset().union(*(x.skipped(self.backbone) for x in plan.layers)),
            )
        )
        run.watch_memory()
        if plan.where.last:
            self._end(complete=True)
        return None if filled is None else self.adapter.with_output(result, filled)

    def _stand_aside(self, reason: str) -> None:
        for group in self._groups.values():
            group.set("compute")
        self._last_rows = None
        self._pending = None
        if self._run is not None:
            self._run.note("outside", reason)
        elif all(e.message != reason for e in self.events):
            self.events.append(Event("outside", None, reason))

    def _run_of(self, where: Position) -> Run:
        if self._run is not None and self._run.token is not where.run:
            self._end(complete=False)
        if self._run is None:
            gates = set(self.policy.gates) & ({"guidance"} | set(self._groups))
            self._run = Run(where.run, self.policy, self.filling, gates)
            self._last_rows = None
            self._two_modes = _is_compiled(self.backbone)
            manager().notify(self._run.silenced, "tgate_run_started", run=self._run)
        return self._run

    def _find_layout(self, run: Run, driver: Driver, call: Call) -> Layout:
        layout = self._layout or driver.layout(call)
        if "guidance" not in self.policy.gates:
            return layout if layout and call.sample.shape[0] % len(layout) == 0 else SINGLE
        if layout is None:
            run.note(
                "layout",
                "the layout of the branches is unknown, so guidance stays open: "
                "pass layout='uncond_first' (or 'cond_first', 'single')",
            )
            return SINGLE
        if call.sample.shape[0] % len(layout):
            run.note(
                "layout",
                f"{call.sample.shape[0]} rows do not split into {'/'.join(layout)}: "
                "guidance stays open for such calls",
            )
            return SINGLE
        return layout

    def _plan_call(
        self, run: Run, step: StepRecord, where: Position, call: Call, layout: Layout
    ) -> _Pending:
        decision = step.decision
        slot = run.cache.slot(where.call)
        if slot.admit(signature(call.sample, len(layout))):
            run.note("shape", "the call's shape changed, so what was kept is dropped")
        branches = layout
        closes = "guidance" in decision.closed and has_guidance(layout)
        if closes and self._can_estimate(run, slot, decision):
            branches = (decision.rows,)
        rows = call.sample.shape[0]
        plan = _Pending(run, step, where, slot, layout, branches, rows)
        plan.layers = [x for t in self._layer_types() if (x := t.detect(self.backbone))]
        return plan

    def _can_estimate(self, run: Run, slot: Slot, decision: Decision) -> bool:
        driver = self._drivers[-1]
        if reason := driver.opaque():
            run.note("guidance", f"guidance stays open: {reason}")
            return False
        if len(slot.deltas) < ESTIMATORS[self._estimator(decision)].looks:
            run.note("estimate", "no guided evaluation to estimate from: guidance stays open")
            return False
        return True

    def _estimator(self, decision: Decision) -> str:
        return decision.estimator or self.filling.estimator

    def _merge(self, decision: Decision) -> str:
        return decision.merge or self.filling.merge

    @staticmethod
    def _layer_types() -> tuple[type[Layer], ...]:
        return tuple(e.value for e in manager().layers.entries())

    def _set_modes(self, run: Run, step: StepRecord, plan: _Pending) -> None:
        must_store = False
        for kind, group in self._groups.items():
            if kind in step.decision.closed:
                missing = self._reuse(group, plan, self._merge(step.decision))
                must_store |= missing
            elif kind in step.stored or kind in self.policy.signals:
                group.set("store")
                must_store |= run.planned
            else:
                # Compiled code has a graph for each mode: storing for nothing saves a third one.
                group.set("store" if self._two_modes else "compute")
        now = (plan.branches, plan.ran)
        if plan.layers and (now != self._last_rows or must_store):
            for layer in plan.layers:
                layer.refresh()
        self._last_rows = now

    def _reuse(self, group: SiteGroup, plan: _Pending, merge: str) -> bool:
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

    def _collect(self, plan: _Pending) -> None:
        """Take what sites in mode `store` kept; measure it against what was kept before."""
        sites: list[tuple[str, str]] = []
        values: list[torch.Tensor] = []
        measure = plan.where.call == 0 and plan.where.step.evaluation == 0
        for kind, group in self._groups.items():
            wanted = kind in plan.step.stored or kind in plan.step.decision.closed
            measured = measure and kind in self.policy.signals
            for index, site in enumerate(group.sites):
                if group.mode(index) != "store":
                    continue
                fresh = group.collect(index)
                if fresh is None or not (wanted or measured):
                    continue
                old = plan.slot.kept.get(site.name)
                if measured and old is not None and old.branches == plan.branches:
                    sites.append((kind, site.name))
                    values.append(compare(fresh, old.tensor))
                plan.slot.keep(site.name, fresh, plan.branches)
        if values:
            plan.run.measured = Measured(sites, values, len(plan.branches))

    def _fill(self, plan: _Pending, output: torch.Tensor) -> torch.Tensor | None:
        """The output for all rows, or None if all rows ran."""
        decision = plan.step.decision
        if plan.ran == plan.rows:
            keeps = "guidance" in plan.step.stored or "guidance" in decision.closed
            looks = ESTIMATORS[self._estimator(decision)].looks
            if keeps and looks and has_guidance(plan.layout):
                rows = {b: output[block(plan.layout, b, plan.rows)] for b in plan.layout}
                plan.slot.deltas.append(rows["cond"] - rows["uncond"])
            return None
        if decision.rows == "uncond":
            return torch.cat([output] * len(plan.layout))
        fill = ESTIMATORS[self._estimator(decision)].fill
        parts = {"cond": output, "uncond": fill(output, plan.slot.deltas)}
        return torch.cat([parts[b] for b in plan.layout])

    # -- the end of a run -----------------------------------------------------------------------

    def _step_finished(self, step: StepRecord) -> None:
        assert self._run is not None
        manager().notify(
            self._run.silenced,
            "tgate_step_finished",
            run=self._run,
            step=step.context,
            decision=step.decision,
        )

    def _end(self, *, complete: bool) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        for group in self._groups.values():
            group.clear()
        self._pending = None
        report = self._make_report(run, complete=complete)
        run.end()
        self.runs.append(report)
        if run.step is not None:
            manager().notify(
                run.silenced,
                "tgate_step_finished",
                run=run,
                step=run.step.context,
                decision=run.step.decision,
            )
        manager().notify(run.silenced, "tgate_run_finished", run=run, report=report)

    def _make_report(self, run: Run, *, complete: bool) -> Report:
        return Report(
            policy=describe(self.policy),
            backbone=type(self.backbone).__name__,
            estimator=self.filling.estimator,
            merge=self.filling.merge,
            refresh=self.filling.refresh,
            steps=tuple(run.steps),
            events=tuple(run.events),
            seconds=time.perf_counter() - run.started,
            peak_cache_bytes=run.peak_bytes,
            complete=complete,
            cost=self._cost,
        )


class _Pending:
    """One backbone call between its two hooks."""

    def __init__(
        self,
        run: Run,
        step: StepRecord,
        where: Position,
        slot: Slot,
        layout: Layout,
        branches: Layout,
        rows: int,
    ) -> None:
        self.run, self.step, self.where, self.slot = run, step, where, slot
        self.layout, self.branches, self.rows = layout, branches, rows
        self.ran = rows * len(branches) // len(layout)
        self.reused: dict[str, frozenset[str]] = {}
        self.layers: list[Layer] = []
        self.key = ""


class _Hook:
    """A hook that stays out of graphs, copies and pickles."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return _no_hook

    def __reduce__(self) -> Any:
        return (_inert, ())


def _inert() -> Callable[..., None]:
    return _no_hook


def _no_hook(*_: Any, **__: Any) -> None:
    """What a copied backbone has in place of our hook."""


def _ask_for_end(backbone: nn.Module, done: _Hook) -> Callable[[], None]:
    """Ask diffusers to tell us when a pipeline is done; returns how to undo it.

    Every pipeline ends with `component._reset_stateful_cache()` on each component that has one. A
    backbone with one of its own (diffusers' CacheMixin) keeps it: its runs end at their last call.
    """
    name = "_reset_stateful_cache"
    if hasattr(backbone, name):
        return lambda: None
    backbone.__dict__[name] = done
    return functools.partial(backbone.__dict__.pop, name, None)


def _filling(
    policy: Policy, estimator: str | None, merge: str | None, refresh: int | None
) -> Filling:
    check_filling(estimator, merge)
    chosen = Filling(estimator or policy.estimator, merge or policy.merge, refresh)
    check_filling(chosen.estimator, chosen.merge, rows=policy.rows)
    if refresh is not None and (not isinstance(refresh, int) or refresh < 1):
        raise OptionError(f"refresh={refresh!r} must be a whole number of steps, 1 or more.")
    return chosen


def adapter_for(backbone: nn.Module) -> Adapter:
    """The adapter that knows this backbone's class or one of its bases.

    Raises:
        UnsupportedBackboneError: naming the class and the adapters there are.
    """
    by_model = {m: e for e in manager().adapters.entries() for m in e.models}
    for base in type(backbone).__mro__:
        if base.__name__ in by_model:
            return by_model[base.__name__].value()
    known = "; ".join(f"{e.name} ({', '.join(e.models)})" for e in manager().adapters.entries())
    raise UnsupportedBackboneError(
        f"no adapter knows {type(backbone).__name__}. There are: {known}. Register one with the "
        "hook tgate_register_adapters."
    )


def _known(module: Any) -> bool:
    try:
        adapter_for(unwrap(module))
    except UnsupportedBackboneError:
        return False
    return True


def _find(target: Any, backbone: nn.Module | None) -> tuple[Driver, nn.Module]:
    """The driver of a target and the backbone in it; outsiders' drivers are asked first."""
    for entry in reversed(manager().drivers.entries()):
        if entry.value.matches(target):
            found = backbone if backbone is not None else entry.value.backbone(target, _known)
            return entry.value(target), unwrap(found)
    raise UnsupportedBackboneError(
        f"{type(target).__name__} is neither a pipeline nor a backbone: pass a diffusers pipeline, "
        "or the module your loop calls."
    )


def unwrap(module: Any) -> Any:
    """The module inside `torch.compile(module)`."""
    return getattr(module, "_orig_mod", module)


def _is_compiled(backbone: nn.Module) -> bool:
    return any(m._compiled_call_impl is not None for m in backbone.modules())
