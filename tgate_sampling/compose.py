"""Composition: several policies at once, and what cannot go together.

Gates have an order: guidance outside, blocks next, attention inside. Policies of one stack each
close gates of their own; layers (DeepCache's helper) are other people's and are told when rows
change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.decision import Answer, Decision, as_decision
from tgate_sampling.errors import OptionError, UnknownNameError, nearest
from tgate_sampling.layer import Layer
from tgate_sampling.policy import Decider, Policy, as_policy, describe, get_policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Rule:
    """Whether two things go together.

    Args:
        first, second: gates, layers or estimators.
        verdict: "yes", "refreshes" (legal; the second runs in full where the first changes rows)
            or "no".
        reason: why, in a clause.
    """

    first: str
    second: str
    verdict: str
    reason: str


#: What is legal, as `tgate-sampling compose` prints it; the code that refuses quotes the reasons.
RULES: Final[tuple[Rule, ...]] = (
    Rule("guidance", "cross", "yes", "what is kept is narrowed to the branch that runs"),
    Rule("guidance", "self", "yes", "what is kept is narrowed to the branch that runs"),
    Rule("guidance", "block", "refreshes", "a look at both branches needs deep features of both"),
    Rule("cross", "block", "refreshes", "a step that stores attention must call every site"),
    Rule("guidance", "deepcache", "refreshes", "its features are of as many rows as last ran"),
    Rule("cross", "deepcache", "refreshes", "a step that stores attention must call every site"),
    Rule("block", "deepcache", "no", "both skip the same blocks"),
    Rule("guidance", "guidance", "no", "two policies cannot both own one gate"),
    Rule(
        "merge=mean", "estimator=hold", "no", "the mean makes both branches equal: guidance is off"
    ),
    Rule("any gate", "diffusers cache", "no", "it counts calls and keeps rows that a gate changes"),
)


@dataclass(frozen=True)
class Stack(Policy):
    """Several policies, each with gates of its own; guidance's owner says how it is filled.

    Raises:
        OptionError: two of them close the same gate.
    """

    policies: tuple[Policy, ...] = field(repr=False)  # its name says them

    def __post_init__(self) -> None:
        owners: dict[str, Policy] = {}
        for policy in self.policies:
            for gate in policy.gates:
                if gate in owners:
                    raise OptionError(
                        f"{describe(owners[gate])} and {describe(policy)} both close {gate!r}: "
                        "leave it to one of them, as in gates=('guidance',)."
                    )
                owners[gate] = policy

    @property
    def name(self) -> str:
        """The members, joined."""
        return " + ".join(describe(p) for p in self.policies)

    @property
    def gates(self) -> Collection[str]:  # type: ignore[override]  # derived, not stored
        """All gates of all members."""
        return frozenset(g for p in self.policies for g in p.gates)

    @property
    def signals(self) -> Collection[str]:  # type: ignore[override]  # derived, not stored
        """All signals any member wants."""
        return frozenset(s for p in self.policies for s in p.signals)

    @property
    def measured(self) -> Collection[str]:
        """The gates that members close by what they measure."""
        return frozenset(g for p in self.policies for g in p.measured)

    @property
    def branch(self) -> int:  # type: ignore[override]  # derived, not stored
        """The block gate's branch."""
        return max(p.branch for p in self.policies)

    @property
    def _guide(self) -> Policy:
        """The member that owns guidance: how a gap is filled is its to say."""
        return next((p for p in self.policies if "guidance" in p.gates), self.policies[0])

    @property
    def estimator(self) -> str:  # type: ignore[override]  # derived, not stored
        """The estimator of the member that owns guidance."""
        return self._guide.estimator

    @property
    def merge(self) -> str:  # type: ignore[override]  # derived, not stored
        """The merge rule of the member that owns guidance."""
        return self._guide.merge

    @property
    def runs(self) -> Literal["cond", "uncond"]:  # type: ignore[override]  # derived, not stored
        """The branch that runs, as the member that owns guidance says."""
        return self._guide.runs

    def begin(self) -> Decider:
        deciders = [(describe(p), p.begin()) for p in self.policies]

        def decide(step: StepContext, signals: Signals) -> Answer:
            return join(as_decision(ask(step, signals), name) for name, ask in deciders)

        return decide

    def plan(self, total: int) -> Sequence[Answer] | None:
        plans = [p.plan(total) for p in self.policies]
        known = [p for p in plans if p is not None]
        if len(known) < len(plans):
            return None
        return [join(as_decision(a, self.name) for a in step) for step in zip(*known, strict=True)]


def join(decisions: Any) -> Decision:
    """One decision that closes what any of several closes.

    >>> sorted(join([Decision(frozenset({"guidance"})), Decision(frozenset({"block"}))]).closed)
    ['block', 'guidance']
    """
    members = list(decisions)
    closed = frozenset(g for d in members for g in d.closed)
    reasons = [d.reason for d in members if d.reason]
    guide = next((d for d in members if "guidance" in d.closed), members[0])
    return Decision(closed, guide.estimator, guide.merge, guide.rows, "; ".join(reasons))


def compose(
    policy: Policy,
    others: str | Policy | Sequence[str | Policy | Callable[..., Any]],
    backbone: nn.Module,
) -> Policy:
    """`policy` together with what `compose=` names.

    Args:
        policy: the first.
        others: names of layers or policies, or policies; one of them alone is taken too.
        backbone: to see whether a named layer is active.

    Raises:
        OptionError: a layer is not active, or two things cannot go together.
    """
    layers, policies = manager().layers, manager().policies
    stacked: list[Policy] = [policy]
    # One name is one thing, not a sequence of letters.
    for other in (others,) if isinstance(others, (str, Policy)) else others:
        if isinstance(other, str) and other in layers:
            if layers.get(other).detect(backbone) is None:
                raise OptionError(layers.get(other).missing())
        elif isinstance(other, str) and other not in policies:
            known = [*layers, *policies]
            raise UnknownNameError(f"compose={other!r} is unknown. {nearest(other, known)}")
        else:
            stacked.append(get_policy(other) if isinstance(other, str) else as_policy(other, {}))
    joined = policy if len(stacked) == 1 else Stack(tuple(stacked))
    if "block" in joined.gates and (active := active_layers(backbone)):
        raise OptionError(
            f"the block gate and {active[0].name} cannot go together: both skip the same blocks. "
            f"Disable {active[0].name}, or leave 'block' out."
        )
    return joined


def active_layers(backbone: nn.Module) -> list[Layer]:
    """The layers of others that are active on this backbone now."""
    found = (entry.value.detect(backbone) for entry in manager().layers.entries())
    return [layer for layer in found if layer is not None]
