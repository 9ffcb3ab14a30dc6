"""What a policy may say, and what becomes of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgate_sampling import Decision
from tgate_sampling.decision import ATTENTION_GATES, GATES, MERGES, as_decision, check_filling
from tgate_sampling.errors import OptionError, PolicyError
from tgate_sampling.guidance import ESTIMATORS
from tgate_sampling.settle import Past, passed, settle, settle_all, to_store

quick = settings(max_examples=100, deadline=None, derandomize=True)

decisions = st.builds(Decision, st.frozensets(st.sampled_from(GATES)))
runs = st.lists(decisions, min_size=1, max_size=12)
refreshes = st.none() | st.integers(1, 4)
merges = st.sampled_from(MERGES)


# -- saying -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "closed"),
    [
        (True, {"guidance", "cross"}),
        (False, set()),
        ({"self"}, {"self"}),
        (("cross", "guidance"), {"cross", "guidance"}),
        ([], set()),
        (Decision(frozenset({"block"}), reason="mine"), {"block"}),
    ],
)
def test_an_answer_is_a_bool_names_or_a_decision(answer: Any, closed: set[str]) -> None:
    """All three become a Decision; a Decision stays itself."""
    made = as_decision(answer, "mine")
    assert made.closed == closed
    assert made is answer or not isinstance(answer, Decision)


@pytest.mark.parametrize("answer", [None, 1, 0.5, "cross", b"cross"])
def test_anything_else_is_an_error_that_names_the_policy(answer: Any) -> None:
    """Also a bare string: it would be read as its letters."""
    with pytest.raises(PolicyError, match=r"policy 'mine' answered .*a set of gate names"):
        as_decision(answer, "mine")


def test_an_unknown_gate_is_an_error_with_the_nearest() -> None:
    """A misspelt gate is not silently open."""
    with pytest.raises(PolicyError, match=r"'mine' closed 'corss': Did you mean 'cross'"):
        as_decision({"corss"}, "mine")


LEGAL = {
    (e, m, r)
    for e in (None, *ESTIMATORS)
    for m in (None, *MERGES)
    for r in ("cond", "uncond")
    if not ((m == "mean" or r == "uncond") and e not in (None, "none"))
}


@pytest.mark.parametrize("rows", ["cond", "uncond"])
@pytest.mark.parametrize("merge", [None, *MERGES])
@pytest.mark.parametrize("estimator", [None, *ESTIMATORS])
def test_what_fills_a_gap_must_fit_together(
    estimator: str | None, merge: str | None, rows: str
) -> None:
    """mean and the uncond rows go with no estimator but "none"; everything else is legal."""
    if (estimator, merge, rows) in LEGAL:
        check_filling(estimator, merge, rows=rows)
    else:
        with pytest.raises(OptionError, match=r"cannot go with estimator=.*estimator='none'"):
            check_filling(estimator, merge, rows=rows)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"estimator": "hodl", "merge": None}, "estimator='hodl'.*'hold'"),
        ({"estimator": None, "merge": "meen"}, "merge='meen'.*'mean'"),
        ({"estimator": None, "merge": None, "rows": "con"}, "rows='con'.*'cond'"),
    ],
)
def test_an_unknown_filling_is_named_with_the_nearest(options: Any, says: str) -> None:
    """Estimators, merge rules and branches."""
    with pytest.raises(OptionError, match=says):
        check_filling(**options)


def test_opening_gates_of_a_decision_says_why() -> None:
    """without() keeps the reason where it changes nothing."""
    decision = Decision(frozenset({"cross", "self"}), reason="wish")
    assert decision.without({"guidance"}, "why") is decision
    assert decision.without({"cross"}, "why") == Decision(frozenset({"self"}), reason="why")


# -- legality -----------------------------------------------------------------------------------


@given(runs, merges, refreshes)
@quick
def test_nothing_closes_in_the_first_step(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """Whatever the policy wants: there is nothing to reuse yet."""
    assert settle_all(wishes, merge=merge, refresh=refresh)[0].closed == frozenset()


@given(runs, merges, refreshes)
@quick
def test_legality_only_ever_opens(wishes: list[Decision], merge: str, refresh: int | None) -> None:
    """No gate is closed that the policy left open."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    assert all(s.closed <= w.closed for w, s in zip(wishes, settled, strict=True))


@given(runs, merges, st.integers(1, 4))
@quick
def test_refresh_bounds_how_long_guidance_goes_unseen(
    wishes: list[Decision], merge: str, refresh: int
) -> None:
    """Guidance is never closed in `refresh` steps running."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    closed = ["guidance" in d.closed for d in settled]
    assert all(not all(closed[i : i + refresh]) for i in range(len(closed) - refresh + 1))


@given(runs, refreshes, st.sampled_from(["cond", "mean"]))
@quick
def test_a_look_at_both_branches_computes_attention_of_both(
    wishes: list[Decision], refresh: int | None, merge: str
) -> None:
    """Where guidance re-opens, no attention and no block is reused, unless both are kept."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    for before, now in itertools.pairwise(settled):
        if "guidance" in before.closed and "guidance" not in now.closed:
            assert not now.closed & {*ATTENTION_GATES, "block"}


@given(runs, refreshes)
@quick
def test_with_both_kept_attention_may_stay_closed(
    wishes: list[Decision], refresh: int | None
) -> None:
    """merge="both" re-opens guidance alone."""
    settled = settle_all(wishes, merge="both", refresh=refresh)[1:]
    assert all(
        s.closed & set(ATTENTION_GATES) == w.closed & set(ATTENTION_GATES)
        for w, s in zip(wishes[1:], settled, strict=True)
    )


@given(runs, merges, refreshes)
@quick
def test_a_plan_settles_as_it_would_live(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """Step by step or all at once: the same decisions, but for blocks in a step that stores."""
    past, live = Past(), []
    for index, wish in enumerate(wishes):
        live.append(settle(wish, past, index=index, merge=merge, refresh=refresh))
        past = passed(past, live[-1], index=index)
    planned = settle_all(wishes, merge=merge, refresh=refresh)
    assert [d.closed - {"block"} for d in live] == [d.closed - {"block"} for d in planned]


@given(runs, merges, st.integers(1, 2))
@quick
def test_whatever_is_reused_was_stored_after_it_was_last_computed(
    wishes: list[Decision], merge: str, memory: int
) -> None:
    """Of a planned run: the last open step before a closed one stores."""
    settled = settle_all(wishes, merge=merge)
    stored = to_store(settled, memory=memory)
    for index, decision in enumerate(settled):
        for gate in decision.closed:
            last = max(i for i in range(index) if gate not in settled[i].closed)
            assert gate in stored[last]
    assert all(not s & d.closed for s, d in zip(stored, settled, strict=True))


def test_a_rising_noise_level_opens_all() -> None:
    """Restart sampling: one step in full, with its reason."""
    wish = Decision(frozenset(GATES))
    decision = settle(wish, Past(3, 1, True), index=3, merge="both", rises=True)
    assert decision.closed == frozenset()
    assert "rises" in decision.reason


@pytest.mark.parametrize(
    ("wish", "past", "reason"),
    [
        (Decision(frozenset({"cross"}), reason="wish"), Past(), "first step"),
        (Decision(frozenset({"cross"}), reason="wish"), Past(2, 0, True), "wish"),
        (Decision(frozenset({"cross"})), Past(2, 0, True), "guidance re-opens"),
        (Decision(frozenset({"cross"}), reason="wish"), Past(2, 1, False), "wish"),
    ],
)
def test_every_decision_says_why(wish: Decision, past: Past, reason: str) -> None:
    """The report's reason is the policy's, or the rule that overruled it."""
    assert settle(wish, past, index=2, merge="cond").reason.startswith(reason)
