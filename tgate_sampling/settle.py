"""Legality: what becomes of a policy's wish in the light of what the run has done so far.

Pure functions on small frozen values, so that a planned policy's whole run can be settled before
it starts, with the same rules as a live one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tgate_sampling.decision import ATTENTION_GATES, GATES, Decision

FIRST_STEP = "first step: nothing is kept yet"
RISES = "noise level rises: everything is computed anew"
REOPENED = "guidance re-opens, so all else needs both branches again"


@dataclass(frozen=True, slots=True)
class Past:
    """What legality must know of the steps before.

    Args:
        steps: how many steps this run has completed.
        last_guided: index of the last step with guidance open.
        guidance_closed: whether guidance was closed in the step before.
    """

    steps: int = 0
    last_guided: int | None = None
    guidance_closed: bool = False


def settle(
    wish: Decision,
    past: Past,
    *,
    index: int,
    merge: str,
    refresh: int | None = None,
    rises: bool = False,
) -> Decision:
    """The decision that holds in step `index`.

    1. Nothing closes in a run's first step, nor where the noise level rises.
    2. `refresh=k` re-opens guidance k steps after it was last open.
    3. A step that re-opens guidance also opens attention and blocks, unless both are kept.

    >>> settle(Decision(frozenset({"cross"})), Past(), index=0, merge="cond").closed
    frozenset()
    """
    if past.steps == 0:
        return wish.without(GATES, FIRST_STEP)
    if rises:
        return wish.without(GATES, RISES)
    unseen = index - past.last_guided if past.last_guided is not None else 0
    if refresh is not None and unseen >= refresh:
        wish = wish.without({"guidance"}, f"refresh={refresh}: a look at both branches")
    if past.guidance_closed and "guidance" not in wish.closed and merge != "both":
        wish = wish.without((*ATTENTION_GATES, "block"), wish.reason or REOPENED)
    return wish


def passed(past: Past, decision: Decision, *, index: int) -> Past:
    """The past after step `index` was carried out as `decision`."""
    closed = "guidance" in decision.closed
    return Past(past.steps + 1, past.last_guided if closed else index, closed)


def settle_all(
    wishes: Sequence[Decision], *, merge: str, refresh: int | None = None
) -> list[Decision]:
    """`settle` over a whole planned run, from its first step."""
    past, settled = Past(), []
    for index, wish in enumerate(wishes):
        decision = settle(wish, past, index=index, merge=merge, refresh=refresh)
        past = passed(past, decision, index=index)
        settled.append(decision)
    return [_whole(d, stored) for d, stored in zip(settled, to_store(settled), strict=True)]


def _whole(decision: Decision, stored: frozenset[str]) -> Decision:
    """A step that stores attention runs its blocks: sites inside a skipped one are not called."""
    if stored & set(ATTENTION_GATES):
        return decision.without({"block"}, decision.reason or "attention is stored")
    return decision


def to_store(settled: Sequence[Decision], *, memory: int = 1) -> list[frozenset[str]]:
    """The gates each planned step must store for.

    Attention is stored by the last open step before a closed one; guidance is looked at by the
    last `memory` of them, since an estimator may rest on several looks.

    >>> g = Decision(frozenset({"cross", "guidance"}))
    >>> [sorted(s) for s in to_store([Decision(), Decision(), g, g], memory=2)]
    [['guidance'], ['cross', 'guidance'], [], []]
    """
    stored: list[set[str]] = [set() for _ in settled]
    for gate in {g for d in settled for g in d.closed}:
        wanted = 0
        for index in range(len(settled) - 1, -1, -1):
            if gate in settled[index].closed:
                wanted = memory if gate == "guidance" else 1
            elif wanted:
                stored[index].add(gate)
                wanted -= 1
    return [frozenset(s) for s in stored]
