"""What holds for every run: of the step tracker, and of legality in `settle`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tgate_plugins.k_diffusion import StepTracker
from tgate_sampling.decision import ATTENTION_GATES, GATES, MERGES, Decision
from tgate_sampling.settle import Past, settle, settle_all, to_store

#: The same examples in each run, and no clock on a busy machine.
steady = settings(derandomize=True, deadline=None, database=None, max_examples=200)

#: Where in a step a sampler calls back.
WHEN = st.sampled_from(["before", "start", "end", "never"])

#: (step, evaluation) of a model call.
Place = tuple[int, int]


def walk(tracker: StepTracker, counts: Sequence[int], when: str, every: int = 1) -> list[Place]:
    """What a tracker says of a sampler that makes `counts` evaluations in its steps."""
    said = []
    for step, count in enumerate(counts):
        calls = when if step % every == 0 else "never"
        if calls == "before":
            tracker.callback(step)
        for evaluation in range(count):
            said.append(tracker.evaluation(lambda: _refuse()))
            if calls == "start" and evaluation == 0:
                tracker.callback(step)
        if calls == "end":
            tracker.callback(step)
    return said


def _refuse() -> float:
    raise AssertionError("the noise level was read, which may wait for a device")


def places(counts: Sequence[int]) -> list[Place]:
    """The truth of such a sampler."""
    return [(step, e) for step, count in enumerate(counts) for e in range(count)]


def counts(most: int) -> st.SearchStrategy[tuple[int, list[int]]]:
    """k, and a run of k evaluations a step; the last step may take fewer, down to one."""
    return st.integers(1, most).flatmap(
        lambda k: st.tuples(
            st.just(k),
            st.tuples(st.integers(0, 12), st.integers(1, k)).map(
                lambda run: [k] * run[0] + [run[1]]
            ),
        )
    )


@steady
@given(counts(4), WHEN)
def test_a_known_sampler_is_exact(run: tuple[int, list[int]], when: str) -> None:
    """Wherever it calls back, and without a look at the noise level."""
    known, made = run
    assert walk(StepTracker(known, None), made, when) == places(made)


@steady
@given(counts(4), st.integers(2, 5))
def test_a_known_sampler_with_previews_is_exact(run: tuple[int, list[int]], every: int) -> None:
    """It need not call back in each step."""
    known, made = run
    assert walk(StepTracker(known, None), made, "start", every) == places(made)


@steady
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), WHEN, st.integers(1, 4))
def test_a_sampler_known_step_by_step_is_exact(made: list[int], when: str, every: int) -> None:
    """As `dpm_fast`, whose groups of evaluations end in shorter ones."""
    assert walk(StepTracker(tuple(made), None), made, when, every) == places(made)


@steady
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12))
def test_a_callback_before_each_step_is_exact(made: list[int]) -> None:
    """Nothing else need be known of such a sampler."""
    assert walk(StepTracker(None, None), made, "before") == places(made)


@steady
@given(st.integers(1, 4), st.integers(2, 12), st.sampled_from(["start", "end"]))
def test_an_unknown_sampler_is_exact_from_its_second_callback(k: int, n: int, when: str) -> None:
    """By then its callbacks have taught how many evaluations a step takes."""
    tracker = StepTracker(None, [float(n - i) for i in range(n + 1)])
    said: list[Place] = []
    for step in range(n):
        for evaluation in range(k):
            # The worst case: Heun's correctors, at the next step's own level.
            level = float(n - step - (evaluation > 0))
            said.append(tracker.evaluation(lambda level=level: level))
            if when == "start" and evaluation == 0:
                tracker.callback(step)
        if when == "end":
            tracker.callback(step)
    known = k + 1 if when == "start" else 2 * k  # evaluations up to the second callback
    assert [s for s, _ in said[known:]] == [s for s, _ in places([k] * n)[known:]]


#: Anything at all: a callback with or without its step, or an evaluation at some level.
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("callback"), st.none() | st.integers(0, 20)),
        st.tuples(st.just("evaluation"), st.floats(0.0, 20.0)),
    ),
    max_size=60,
)


@steady
@given(
    st.none() | st.integers(1, 4) | st.lists(st.integers(1, 4), min_size=1).map(tuple),
    st.none() | st.lists(st.floats(0.0, 20.0), min_size=2).map(lambda s: sorted(s, reverse=True)),
    EVENTS,
)
def test_steps_never_go_back(known: Any, sigmas: Any, events: list[tuple[str, Any]]) -> None:
    """Whatever a sampler does; and the evaluations of each step are numbered 0, 1, 2, ..."""
    tracker = StepTracker(known, sigmas)
    said = list(_told(tracker, events))
    for (step, evaluation), (after, number) in pairwise(said):
        assert after >= step
        assert number == (evaluation + 1 if after == step else 0)
    assert [e for _, e in said[:1]] in ([], [0])


def _told(tracker: StepTracker, events: list[tuple[str, Any]]) -> Iterator[Place]:
    for kind, value in events:
        if kind == "callback":
            tracker.callback(value)
        else:
            yield tracker.evaluation(lambda value=value: value)


# -- legality -------------------------------------------------------------------------------------

WISHES = st.lists(
    st.sets(st.sampled_from(GATES)).map(lambda closed: Decision(frozenset(closed))), max_size=24
)
MERGE = st.sampled_from(MERGES)
REFRESH = st.none() | st.integers(1, 8)


@steady
@given(WISHES, MERGE, REFRESH)
def test_nothing_is_closed_in_the_first_step(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """Nothing is kept yet that could be read again."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    assert [d.closed for d in settled[:1]] == [frozenset() for _ in wishes[:1]]


@steady
@given(WISHES, MERGE, REFRESH)
def test_what_closes_in_a_plan_was_stored_in_the_step_before(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """And what is closed is not stored: there is nothing fresh to keep."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    store = to_store(settled)
    assert len(store) == len(wishes)
    for index, (now, after) in enumerate(pairwise(settled)):
        assert after.closed - now.closed == store[index]
        assert not store[index] & now.closed
    assert [*store[-1:]] == [frozenset() for _ in wishes[:1]]


@steady
@given(WISHES, MERGE, st.integers(1, 8))
def test_refresh_bounds_the_distance_between_looks(
    wishes: list[Decision], merge: str, refresh: int
) -> None:
    """In any `refresh` steps in a row there is one with both branches."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    looks = [i for i, d in enumerate(settled) if "guidance" not in d.closed]
    assert all(b - a <= refresh for a, b in pairwise([*looks, len(settled)]))


@steady
@given(WISHES, MERGE, REFRESH)
def test_a_step_that_opens_guidance_again_opens_attention(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """Unless both branches were kept: with one, there is nothing to give the other."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    for now, after in pairwise(settled):
        opens = "guidance" in now.closed and "guidance" not in after.closed
        assert not (opens and merge != "both" and after.closed & set(ATTENTION_GATES))


@steady
@given(WISHES, MERGE, REFRESH)
def test_no_more_is_closed_than_was_wished(
    wishes: list[Decision], merge: str, refresh: int | None
) -> None:
    """Legality only opens."""
    settled = settle_all(wishes, merge=merge, refresh=refresh)
    assert all(d.closed <= w.closed for d, w in zip(settled, wishes, strict=True))


@steady
@given(
    st.sets(st.sampled_from(GATES)),
    st.builds(Past, st.integers(0, 9), st.none() | st.integers(0, 9), st.booleans()),
    MERGE,
    REFRESH,
)
def test_a_rise_opens_every_gate(
    wish: set[str], past: Past, merge: str, refresh: int | None
) -> None:
    """Whatever has been before, and whatever is wished."""
    decision = Decision(frozenset(wish))
    held = settle(decision, past, index=10, merge=merge, refresh=refresh, rises=True)
    assert held.closed == frozenset()
