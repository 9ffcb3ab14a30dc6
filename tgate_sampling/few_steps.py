"""Runs of few steps: which attention gates still pay for themselves.

A distilled model takes four steps, and often has its guidance as an input, so that only attention
is left to save. A gate that closes at step i of n saves its share of a forward (n - i) / n times:
little where it closes late, and the less tested the earlier it closes. T-GATE (arXiv 2404.02747)
gates LCMs at step 1 or 2 of 4, cross-attention alone, self-attention computed in every step.

The rule binds policies that measure: they ask for what they see, and cannot know how little is
left. A policy with a plan, and one that looks at the step alone, said a step, and is obeyed.
Guidance always pays: closed for the last of eight steps it still saves a sixteenth of the run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from tgate_sampling.decision import Decision

#: Runs of at most so many steps are few-step runs.
FEW: Final = 8
#: What saves less than this share of a run's MACs is not worth its risk.
WORTH: Final = 0.03
#: Cross-attention's share of a forward's MACs, about: counted on the meta device it is 4.0 % in
#: SD-1.5, 8.2 % in SDXL and 10.6 % in PixArt. A constant, because counting would cost more seconds
#: than the gate can save in such a run.
SHARE: Final = 0.08


def kept_open(
    decision: Decision, obeyed: Collection[str], *, index: int, total: int | None
) -> dict[str, str]:
    """The closed gates of a decision that should stay open, and why.

    1. Self-attention and deep blocks stay open: between so few steps they move too far.
    2. Cross-attention may begin to close half way through, T-GATE's more careful setting, and
       where what is left to save is worth it: steps 2 of 4, 3 of 6, 4 and 5 of 8.

    Args:
        decision: what legality has left of the policy's wish.
        obeyed: gates that the rule leaves alone: those closed in the step before, which may stay
            so, and those that no policy measures.
        index: the step, from 0.
        total: steps of the run; None where the sampler finds out as it goes.

    >>> list(kept_open(Decision(frozenset({"cross", "guidance"})), (), index=3, total=4))
    ['cross']
    >>> list(kept_open(Decision(frozenset({"cross", "guidance"})), (), index=2, total=4))
    []
    """
    if total is None or total > FEW:
        return {}
    asked = sorted(decision.closed - {"guidance"} - set(obeyed))
    reasons = {gate: _reason(gate, index, total) for gate in asked}
    return {gate: reason for gate, reason in reasons.items() if reason}


def _reason(gate: str, index: int, total: int) -> str:
    """Why `gate` should not begin to close now, or an empty string."""
    cure = f"; to close it all the same name the step, as in fixed_step(gate_step={index})"
    if gate in ("self", "block"):
        return f"{gate} stays open: between {total} steps its outputs move too far{cure}"
    if 2 * index < total:
        return f"{gate} stays open before half of {total} steps{cure}"
    left = SHARE * (total - index) / total
    if left < WORTH - 1e-9:
        return (
            f"{gate} stays open: from step {index} of {total} on it would save some {left:.0%} of "
            f"the run, and below {WORTH:.0%} is not worth it{cure}"
        )
    return ""
