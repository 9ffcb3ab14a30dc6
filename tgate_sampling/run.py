"""One sampling run, from noise to latent: it owns decisions, caches and trace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from tgate_sampling.cache import Cache
from tgate_sampling.decision import GATES, Answer, Decision, as_decision, check_filling
from tgate_sampling.errors import OptionError, PolicyError, TGateError
from tgate_sampling.few_steps import kept_open
from tgate_sampling.guidance import ESTIMATORS
from tgate_sampling.layout import SEPARATE, Layout, has_guidance
from tgate_sampling.policy import Decider, Policy, describe
from tgate_sampling.settle import Past, passed, settle, settle_all, to_store
from tgate_sampling.signals import Measurement, Signals, read
from tgate_sampling.steps import Position, StepContext


@dataclass(frozen=True, slots=True)
class Filling:
    """How this gating fills what a closed gate leaves out, where a decision does not say."""

    estimator: str
    merge: str
    refresh: int | None


def choose_filling(
    policy: Policy, estimator: str | None, merge: str | None, refresh: int | None
) -> Filling:
    """What the user said, and the policy's choice where they said nothing.

    Raises:
        OptionError: something is unknown, out of range, or cannot go with another.
    """
    check_filling(estimator, merge)
    chosen = Filling(estimator or policy.estimator, merge or policy.merge, refresh)
    check_filling(chosen.estimator, chosen.merge, rows=policy.runs)
    whole = isinstance(refresh, int) and not isinstance(refresh, bool)
    if refresh is not None and (not whole or refresh < 1):
        raise OptionError(f"refresh={refresh!r} must be a whole number of steps, 1 or more.")
    return chosen


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was computed in full because it was not known, or that a user should know."""

    kind: str
    step: int | None
    message: str


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What one backbone call did.

    Args:
        shape: key of its shapes, for counting.
        rows: rows the caller asked for.
        ran: rows that ran.
        reused: names of the sites that were not computed, by kind.
        skipped: topmost modules a block layer did not run.
    """

    shape: str
    rows: int
    ran: int
    reused: Mapping[str, frozenset[str]]
    skipped: frozenset[str] = frozenset()


@dataclass
class StepRecord:
    """What one step decided and did."""

    context: StepContext
    decision: Decision
    stored: frozenset[str]
    evaluations: int = 1
    calls: list[CallRecord] = field(default_factory=list)

    @property
    def index(self) -> int:
        return self.context.index


class Run:
    """The state of one run; made by the gating, read by observers.

    Args:
        token: the object that identifies the run (a driver's).
        policy: who decides.
        filling: the gating's estimator, merge rule and refresh.
        kinds: kinds of sites there are on this backbone.
        layout: how branches lie in the run's first call; None where that is unknown.
    """

    def __init__(
        self,
        token: object,
        policy: Policy,
        filling: Filling,
        kinds: Collection[str],
        layout: Layout | None = None,
    ) -> None:
        self.token = token
        self.policy = policy
        self.filling = filling
        self.gates = frozenset(policy.gates) & {"guidance", *kinds}
        self.thread = threading.get_ident()
        self.cache = Cache()
        self.peak_bytes = 0
        self.steps: list[StepRecord] = []
        self.events: list[Event] = []
        self.silenced: set[object] = set()
        self.measured: list[Measurement] = []
        #: Whether an uncond call with its cond call before it was met.
        self.paired = False
        #: Number of the last call in the evaluation before this one, once there was one.
        self.usual_call: int | None = None
        self._latest_call = -1
        #: Those that looks must serve; a plan's are known before it starts.
        self.estimators = {filling.estimator}
        self.started = time.perf_counter()
        self._name = describe(policy)
        self._decide: Decider = policy.begin()
        self._past = Past()
        self._signals = Signals()
        self._plan: list[Decision] | None = None
        self._store: list[frozenset[str]] = []
        self._news: dict[str, str] = {}  # to be noted once the step they belong to has begun
        self._separate = layout == SEPARATE
        if layout is not None and not has_guidance(layout):
            self.keep_open({"guidance"}, nothing_to_close(layout))

    @property
    def step(self) -> StepRecord | None:
        """The step in progress."""
        return self.steps[-1] if self.steps else None

    @property
    def planned(self) -> bool:
        """Whether the step in progress was known before the run began."""
        return self._plan is not None and self.steps[-1].index < len(self._plan)

    def note(self, kind: str, message: str) -> None:
        """Record an event, once a run for each kind."""
        if all(e.kind != kind for e in self.events):
            step = self.step.index if self.step else None
            self.events.append(Event(kind, step, message))

    def tell(self, kind: str, message: str) -> None:
        """`note` it, or once the first step has begun."""
        if self.step is None:
            self._news[kind] = message
        else:
            self.note(kind, message)

    def enter(self, position: Position, finished: Callable[[StepRecord], None]) -> StepRecord:
        """The record for this call's step; decides if it is the step's first evaluation.

        Args:
            position: where the call stands.
            finished: told about the step before, when a new one begins.
        """
        if position.call == 0 and self._latest_call >= 0:
            self.usual_call = self._latest_call
        self._latest_call = position.call
        current = self.step
        if current is not None and current.index == position.step.index:
            current.evaluations = max(current.evaluations, position.step.evaluation + 1)
            return current
        if current is not None:
            if self._separate and not self.paired:
                self.keep_open({"guidance"}, nothing_to_close(("cond",)))
            self._past = passed(self._past, current.decision, index=current.index)
            finished(current)
        decision, stored = self._next(position)
        self.steps.append(StepRecord(position.step, decision, stored))
        while self._news:
            self.note(*self._news.popitem())
        return self.steps[-1]

    def keep_open(self, gates: Collection[str], reason: str, *, kind: str = "guidance") -> None:
        """For the rest of this run these gates are not there, for a reason that the report says."""
        if not self.gates & set(gates):
            return
        self.gates -= set(gates)
        self.tell(kind, reason)
        if self._plan is not None:
            self._plan = [d.without(gates, d.reason) for d in self._plan]

    def _next(self, position: Position) -> tuple[Decision, frozenset[str]]:
        step = position.step
        if not self.steps and step.total is not None:
            self._make_plan(step.total)
        if self._plan is not None and step.index < len(self._plan) and not position.rises:
            return self._plan[step.index], self._store[step.index]
        fresh = Signals()
        if self.measured:
            fresh = self._signals = read(self.measured, self._signals)
            self.measured = []
        decision = settle(
            self._ask(step, fresh),
            self._past,
            index=step.index,
            merge=self.filling.merge,
            refresh=self.filling.refresh,
            rises=position.rises,
        )
        decision = self._worth_closing(decision, step)
        self._expect(decision)
        # Guidance is looked at from the start: an estimator may rest on several looks.
        early = step.index < self.policy.warm_up - 1
        still_open = self.gates - decision.closed
        return decision, still_open & {"guidance"} if early else still_open

    def _worth_closing(self, decision: Decision, step: StepContext) -> Decision:
        """The decision without gates that do not pay for themselves in so few steps."""
        obeyed = self.gates - set(self.policy.measured)
        if self.step is not None:
            obeyed |= self.step.decision.closed
        kept = kept_open(decision, obeyed, index=step.index, total=step.total)
        self._news |= {f"few steps {gate}": reason for gate, reason in kept.items()}
        return decision.without(kept, decision.reason or "few steps")

    def _expect(self, decision: Decision) -> None:
        """Looks serve the estimators that are known; a new one has nothing to rest on yet."""
        name = decision.estimator
        if name is None or name in self.estimators:
            return
        self.estimators.add(name)
        if "guidance" in decision.closed and ESTIMATORS[name].memory:
            self.note(
                "estimator",
                f"estimator={name!r} was first named in the step that uses it, and acts as 'hold' "
                "until guidance has been looked at again: name it in gate(..., estimator=...)",
            )

    def _make_plan(self, total: int) -> None:
        answers = self.policy.plan(total)
        if answers is None:
            return
        wishes = [self._legal(a) for a in answers]
        self._plan = settle_all(wishes, merge=self.filling.merge, refresh=self.filling.refresh)
        self.estimators |= {d.estimator for d in self._plan if d.estimator}
        memory = max(ESTIMATORS[name].memory for name in self.estimators)
        self._store = to_store(self._plan, memory=memory)

    def _ask(self, step: StepContext, signals: Signals) -> Decision:
        try:
            return self._legal(self._decide(step, signals))
        except TGateError:
            raise
        except Exception as error:
            error.add_note(f"raised by policy {self._name!r} at step {step.index}")
            raise

    def _legal(self, answer: Answer) -> Decision:
        wish = as_decision(answer, self._name)
        estimator = wish.estimator or self.filling.estimator
        check_filling(estimator, wish.merge or self.filling.merge, rows=wish.rows)
        undeclared = wish.closed - set(self.policy.gates)
        if undeclared:
            raise PolicyError(
                f"policy {self._name!r} closed {', '.join(sorted(undeclared))}, and declares only "
                f"{', '.join(sorted(self.policy.gates))}: add it to the policy's gates."
            )
        return wish.without(
            [g for g in GATES if g not in self.gates], wish.reason or "not gated on this backbone"
        )

    def watch_memory(self) -> None:
        """Remember the most bytes ever held."""
        self.peak_bytes = max(self.peak_bytes, self.cache.bytes)

    def end(self) -> None:
        """Let go of every tensor."""
        self.cache.clear()
        self.measured = []


def nothing_to_close(layout: Layout) -> str:
    """Why the guidance gate has nothing to close where branches lie like this."""
    if len(layout) == 1:
        return (
            "the guidance gate has nothing to close: this run has one branch, without "
            "classifier-free guidance or with guidance as an input of the model"
        )
    return (
        f"the guidance gate has nothing to close: of the branches {'/'.join(layout)} none can be "
        "estimated; it needs cond and uncond alone"
    )
