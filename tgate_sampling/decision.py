"""What a policy says about one step, and which sayings are legal."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from tgate_sampling.errors import OptionError, PolicyError, nearest
from tgate_sampling.guidance import ESTIMATORS

Gate: TypeAlias = Literal["guidance", "cross", "self", "text", "block"]
Mode: TypeAlias = Literal["compute", "store", "reuse"]

GATES: Final[tuple[str, ...]] = ("guidance", "cross", "self", "text", "block")
ATTENTION_GATES: Final[tuple[str, ...]] = ("cross", "self", "text")
MERGES: Final[tuple[str, ...]] = ("cond", "mean", "both")

#: What `True` closes: the two gates of the paper. Self-attention still moves late in a run.
DEFAULT_GATES: Final[frozenset[str]] = frozenset({"guidance", "cross"})


@dataclass(frozen=True, slots=True)
class Decision:
    """Which gates are closed in one step, and how the gap is filled.

    Args:
        closed: names of closed gates, out of `GATES`.
        estimator: how a closed guidance gate fills in the missing branch; None takes the gating's.
        merge: how a kept attention output of two branches becomes one: `cond` keeps the rows that
            run, `mean` averages (arXiv 2404.02747), `both` keeps both; None takes the gating's.
        rows: the branch that runs while guidance is closed. `uncond` is the reference's choice.
        reason: one short clause for the report.
    """

    closed: frozenset[str] = frozenset()
    estimator: str | None = None
    merge: str | None = None
    rows: Literal["cond", "uncond"] = "cond"
    reason: str = ""

    def without(self, gates: Collection[str], reason: str) -> Decision:
        """The same decision with `gates` open again, saying why."""
        if not self.closed & set(gates):
            return self
        return replace(self, closed=self.closed - set(gates), reason=reason)


#: All a policy may answer: a decision, a set of gate names, or whether to close the default gates.
Answer: TypeAlias = "Decision | bool | Collection[str]"


def as_decision(answer: Answer, policy: str) -> Decision:
    """Turn a policy's answer into a `Decision`.

    >>> sorted(as_decision(True, "mine").closed)
    ['cross', 'guidance']
    >>> as_decision({"cross"}, "mine").closed
    frozenset({'cross'})

    Raises:
        PolicyError: the answer is none of a bool, gate names, or a `Decision`.
    """
    if isinstance(answer, Decision):
        decision = answer
    elif isinstance(answer, bool):
        decision = Decision(DEFAULT_GATES if answer else frozenset())
    elif isinstance(answer, Collection) and not isinstance(answer, (str, bytes)):
        decision = Decision(frozenset(answer))
    else:
        raise PolicyError(
            f"policy {policy!r} answered {answer!r} ({type(answer).__name__}): return True or "
            "False, a set of gate names, or a tgate_sampling.Decision."
        )
    for gate in decision.closed:
        if gate not in GATES:
            raise PolicyError(f"policy {policy!r} closed {gate!r}: {nearest(str(gate), GATES)}")
    check_filling(decision.estimator, decision.merge, rows=decision.rows)
    return decision


def check_filling(estimator: str | None, merge: str | None, *, rows: str = "cond") -> None:
    """Refuse estimators and merge rules that do not exist or cannot go together.

    Raises:
        OptionError: with the cure in the sentence.
    """
    if estimator is not None and estimator not in ESTIMATORS:
        raise OptionError(f"estimator={estimator!r} is unknown. {nearest(estimator, ESTIMATORS)}")
    if merge is not None and merge not in MERGES:
        raise OptionError(f"merge={merge!r} is unknown. {nearest(merge, MERGES)}")
    if merge == "mean" and estimator not in (None, "none"):
        # With the mean in both branches cond - uncond is exactly zero: `hold` would keep nothing.
        raise OptionError(
            f"merge='mean' cannot go with estimator={estimator!r}, because the mean makes both "
            "branches equal and so turns guidance off: use merge='cond', or estimator='none'."
        )
    if rows not in ("cond", "uncond"):
        raise OptionError(f"rows={rows!r} is unknown. {nearest(rows, ('cond', 'uncond'))}")
    if rows == "uncond" and estimator not in (None, "none"):
        raise OptionError(
            f"rows='uncond' cannot go with estimator={estimator!r}, which fills in uncond: "
            "use rows='cond', or estimator='none'."
        )
