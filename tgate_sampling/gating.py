"""Attach a policy to a backbone, for a `with` block or until `detach`."""

from __future__ import annotations

import functools
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.backbones import adapter_for, find
from tgate_sampling.carry import Carrier
from tgate_sampling.compose import compose as combine
from tgate_sampling.cost import CostModel
from tgate_sampling.decision import GATES
from tgate_sampling.driver import Driver
from tgate_sampling.errors import (
    AlreadyGatedError,
    ConcurrentRunError,
    NeverEnteredWarning,
    NoRunError,
    OptionError,
    UnsupportedBackboneError,
)
from tgate_sampling.hooks import as_hook, ask_for_end, copies_stay_bare, hear_contexts
from tgate_sampling.layout import SEPARATE, Layout, as_layout
from tgate_sampling.plan import Plan
from tgate_sampling.policy import Policy, choose_policy, describe
from tgate_sampling.report import Report
from tgate_sampling.run import Event, Run, StepRecord, choose_filling
from tgate_sampling.sites import SiteGroup, find_sites
from tgate_sampling.skip import Skipper
from tgate_sampling.steps import Outside, Position

T = TypeVar("T")

LATE = (
    "a call after the run's last one ran ungated: the pipeline makes more calls in its last step "
    "than its driver knows of"
)

AUTOGRAD = (
    "a call that needs a gradient ran ungated, since autograd needs the full graph: sample under "
    "torch.no_grad() to have it gated"
)

#: The gating each backbone carries. Weak at both ends: the backbone's hooks keep its gating alive,
#: and a forgotten backbone takes it along.
_ACTIVE: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Gating]] = weakref.WeakKeyDictionary()


def gate(
    target: Any,
    policy: Policy | Callable[..., Any] | str | None = None,
    *,
    backbone: nn.Module | None = None,
    layout: str | Sequence[str] | None = None,
    compose: Sequence[str | Policy] = (),
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
        layout: how branches lie in a call's batch ("uncond_first", "cond_first", "single",
            "separate" for one call a branch with cond first, or the branch of each block of rows);
            found by itself for pipelines.
        compose: what else skips work: further policies, by name or as values ("block"), each
            closing gates of its own; or layers of others ("deepcache"), to insist that they are
            active. An active layer is found without being named.
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
    return Gating(
        target,
        choose_policy(policy, options),
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
    carried = _ACTIVE.get(backbone)
    return carried() if carried is not None else None


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
        compose: Sequence[str | Policy] = (),
        estimator: str | None = None,
        refresh: int | None = None,
        merge: str | None = None,
    ) -> None:
        self._attached, self._entered = False, True  # an error below is no forgotten `with`
        self._layout = as_layout(layout)
        driver, self.backbone = find(target, backbone)
        self.adapter = adapter_for(self.backbone)
        self.policy = policy = combine(policy, compose, self.backbone)
        self.filling = choose_filling(policy, estimator, merge, refresh)
        if reason := self.adapter.refuses(self.backbone):
            raise UnsupportedBackboneError(reason)
        self._drivers: list[Driver] = [driver]
        self._cost = CostModel(self.adapter.blueprint(self.backbone))
        found = find_sites(self.adapter, self.backbone, policy)
        self._groups = {kind: SiteGroup(kind, sites) for kind, sites in found.items()}
        self._carrier = Carrier(
            self.backbone,
            self._groups,
            policy,
            self.filling,
            negative=self.adapter.negative(self.backbone),
        )
        apart = driver.separate(self.backbone) if layout is None else self._layout == SEPARATE
        self._skipper = Skipper(self.backbone) if apart and "guidance" in policy.gates else None
        self._context: str | None = None
        self._ended: object = None
        #: Reports of all runs, oldest first.
        self.runs: list[Report] = []
        #: What happened outside any run.
        self.events: list[Event] = []
        self._run: Run | None = None
        self._busy: int | None = None
        self._outside = False
        self._plan: Plan | None = None
        self._undo: list[Callable[[], None]] = []
        self._entered = False

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
        self._forget_loops()
        with self.driven_by(driver):
            for index, item in enumerate(items):
                driver.move(index)
                yield item

    def _forget_loops(self) -> None:
        """Loops that were broken off, and whose iterators somebody still holds."""
        for stale in self._drivers[1:]:
            stale.close()
        del self._drivers[1:]

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
        self._forget_loops()
        self._drivers[0].close()
        if active_gating(self.backbone) is self:
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
        first = active_gating(self.backbone)
        if first is not None:
            raise AlreadyGatedError(
                f"this {type(self.backbone).__name__} is gated already, by "
                f"{describe(first.policy)}: leave that `with` block or call its detach() first."
            )
        _ACTIVE[self.backbone] = weakref.ref(self)
        self._attached = True
        try:
            for group in self._groups.values():
                self._undo.append(group.detach)
                group.attach()
            before = as_hook(self._before)
            after = as_hook(self._after)
            # always_call: a forward that raises must still end our call.
            self._undo.append(
                self.backbone.register_forward_pre_hook(before, with_kwargs=True).remove
            )
            self._undo.append(
                self.backbone.register_forward_hook(
                    after, with_kwargs=True, always_call=True
                ).remove
            )
            if self._skipper is not None:
                self._undo.append(self._skipper.detach)
                self._skipper.attach()
            self._undo.append(hear_contexts(self.backbone, self._hear))
            self._undo.append(ask_for_end(self.backbone, as_hook(self._pipeline_done)))
            self._undo.append(copies_stay_bare(self.backbone))
        except BaseException:
            self.detach()
            raise

    @contextmanager
    def driven_by(self, driver: Driver) -> Iterator[None]:
        """Let another driver tell the clock, as a wrapped sampler does during its run."""
        self._drivers.append(driver)
        complete = False
        try:
            yield
            complete = True
        finally:
            if self._busy == threading.get_ident():  # interrupted inside the forward
                self._busy = None
            if self._drivers[-1] is driver:  # an abandoned loop must not end the next one's run
                self._end(complete=complete)
                self._drivers.pop()
            driver.close()

    def _pipeline_done(self, *_: Any, **__: Any) -> None:
        if self._outside:  # another pipeline on this backbone, in the middle of our run
            return
        # Another expert may have made the last steps (Wan 2.2).
        done = self._run is not None and self._reached_end(self._run)
        self._end(complete=done or self._drivers[-1].finished())

    @staticmethod
    def _reached_end(run: Run) -> bool:
        step = run.step
        total = step.context.total if step else None
        return step is not None and total is not None and step.index >= total - 1

    # -- one backbone call ----------------------------------------------------------------------

    def _hear(self, context: str | None) -> None:
        """The caller has named the calls that follow, or stopped naming them."""
        self._context = context

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
                "pipeline at a time on a gated backbone, give each thread its own, or call "
                "gating.reset() if that call was interrupted."
            )
        if self._run is not None and self._run.thread != here:
            raise ConcurrentRunError(
                "the gated backbone was called from a second thread while a run was live in "
                "another: finish that run first, or call gating.reset() if it was abandoned."
            )

    def _narrow(self, args: Any, kwargs: Any) -> Any:
        """Before the forward: find the step, set the sites' modes, cut the rows."""
        call = replace(self.adapter.read(self.backbone, args, kwargs), context=self._context)
        driver = self._drivers[-1]
        where = driver.locate(call)
        if isinstance(where, Outside) or (torch.is_grad_enabled() and call.sample.requires_grad):
            reason = where.reason if isinstance(where, Outside) else AUTOGRAD
            self._stand_aside(reason)
            return None
        if self._run is None and where.run is self._ended:
            self._stand_aside(LATE)
            return None
        self._outside = False
        call = replace(call, context=driver.context(call))
        layout = self._layout or driver.layout(call)
        run = self._run_of(where, layout)
        step = run.enter(where, functools.partial(self._step_finished, run))
        plan = self._carrier.plan(run, step, where, call, driver, layout)
        self._carrier.set_modes(plan)
        plan.shape = self._cost.remember(args, kwargs, plan.rows)
        self._plan = plan
        if not plan.ran:
            assert self._skipper is not None  # only pairs can leave a whole call out
            pattern, output = self._carrier.answer(plan)
            self._skipper.answer(self.adapter.with_output(pattern, output))
            return None
        return plan.part and self.adapter.take(self.backbone, args, kwargs, plan.rows, plan.part)

    def _after(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
        """After the forward: keep what will be read again, fill in what did not run."""
        if module is not self.backbone or torch.compiler.is_compiling():
            return None
        if self._busy != threading.get_ident():  # a call that `_before` refused
            return None
        self._busy = None
        plan, self._plan = self._plan, None
        if plan is None:
            return None
        if result is None:  # the forward raised
            self._end(complete=False)
            return None
        filled = None
        if plan.ran:
            self._carrier.collect(plan)
            self._carrier.rest()
            filled = self._carrier.fill(plan, result, self.adapter.output(result))
        elif self._skipper is not None:
            self._skipper.rest()
        plan.step.calls.append(plan.record(self.backbone))
        if plan.where.last and self._last_of_step(plan):
            self._end(complete=True)
        return None if filled is None else self.adapter.with_output(result, filled)

    def _stand_aside(self, reason: str) -> None:
        self._carrier.stand_aside()
        self._plan, self._outside = None, True
        if self._run is not None:
            self._run.note("outside", reason)
        elif all(e.message != reason for e in self.events):
            self.events.append(Event("outside", None, reason))

    def _run_of(self, where: Position, layout: Layout | None) -> Run:
        if self._run is not None and self._run.token is not where.run:
            self._end(complete=False)
        if self._run is None:
            self._run = Run(where.run, self.policy, self.filling, self._groups, layout)
            self._keep_open(self._run)
            self._carrier.begin(compiled=self._drivers[0].compiled(self.backbone))
            manager().notify(self._run.silenced, "tgate_run_started", run=self._run)
        return self._run

    def _keep_open(self, run: Run) -> None:
        """What the pipeline or the backbone forbids."""
        driver = self._drivers[-1]
        if reason := driver.aside():
            run.keep_open(GATES, f"nothing is gated: {reason}", kind="aside")
        elif reason := driver.opaque() or self.adapter.opaque(self.backbone):
            run.keep_open({"guidance"}, f"guidance stays open: {reason}")
        if run.gates and (remark := driver.remark(self.backbone)):
            run.tell("remark", remark)

    # -- the end of a run -----------------------------------------------------------------------

    @staticmethod
    def _last_of_step(plan: Plan) -> bool:
        """Whether all calls have been made: as many as the driver says, or as were made before."""
        if plan.where.calls is not None:
            return plan.where.call >= plan.where.calls - 1
        usual = plan.run.usual_call
        return plan.where.call >= usual if usual is not None else not plan.pairs

    @staticmethod
    def _step_finished(run: Run, step: StepRecord) -> None:
        manager().notify(
            run.silenced,
            "tgate_step_finished",
            run=run,
            step=step.context,
            decision=step.decision,
        )

    def _end(self, *, complete: bool) -> None:
        if self._skipper is not None:  # an interrupt may have left an answer nobody fetched
            self._skipper.rest()
        run, self._run = self._run, None
        if run is None:
            return
        self._carrier.clear()
        self._plan, self._ended = None, run.token
        report = self._make_report(run, complete=complete)
        run.end()
        self.runs.append(report)
        if run.step is not None:
            self._step_finished(run, run.step)
        manager().notify(run.silenced, "tgate_run_finished", run=run, report=report)

    def _make_report(self, run: Run, *, complete: bool) -> Report:
        return Report(
            policy=describe(self.policy),
            backbone=type(self.backbone).__name__,
            adapter=self.adapter.name,
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
