"""Estimators are small pure functions, and each is exact where its assumption holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tgate_sampling import guidance
from tgate_sampling.guidance import ESTIMATORS, Look

SHAPE = (2, 3, 4, 4)
NAMES = tuple(ESTIMATORS)

seeds = st.integers(0, 2**16)
#: Log noise levels, from well above SD's largest to well below its smallest.
levels = st.floats(-4.0, 4.0)
distances = st.floats(0.05, 2.0)
quick = settings(max_examples=60, deadline=None, derandomize=True)


def draws(seed: int, count: int, shape: Sequence[int] = SHAPE) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=made) for _ in range(count)]


def two_looks(seed: int, first: float | None, second: float | None) -> list[Look]:
    d0, d1, c0, c1 = draws(seed, 4)
    return [Look(d0, first, c0), Look(d1, second, c1)]


# -- none and hold --------------------------------------------------------------------------------


@given(seeds, levels)
@quick
def test_none_turns_guidance_off(seed: int, level: float) -> None:
    """Uncond is cond itself, so cond - uncond is exactly zero."""
    (cond,) = draws(seed, 1)
    uncond = ESTIMATORS["none"].fill(cond, (), level)
    assert torch.equal(cond - uncond, torch.zeros(SHAPE))


@given(seeds, levels, levels)
@quick
def test_hold_keeps_the_last_delta(seed: int, before: float, level: float) -> None:
    """Uncond = cond - d1, whatever the levels say and whatever was seen before."""
    cond, looks = draws(seed + 1, 1)[0], two_looks(seed, before, None)
    assert torch.equal(ESTIMATORS["hold"].fill(cond, looks, level), cond - looks[1].delta)


# -- decay ----------------------------------------------------------------------------------------


@given(seeds, levels, distances)
@quick
def test_decay_shrinks_delta_with_the_noise(seed: int, level: float, below: float) -> None:
    """delta = d1 (sigma / sigma1) ** DECAY once the noise has fallen."""
    cond, (look, *_) = draws(seed + 1, 1)[0], two_looks(seed, level + below, None)
    shrunk = cond - guidance.decay(cond, [look], level)
    ratio = math.exp(level) / math.exp(level + below)
    torch.testing.assert_close(shrunk, look.delta * ratio**guidance.DECAY, rtol=1e-4, atol=1e-5)


@given(seeds, levels, distances)
@quick
def test_decay_never_grows_delta(seed: int, level: float, above: float) -> None:
    """At or above the level of its look it is `hold`."""
    cond, (look, *_) = draws(seed + 1, 1)[0], two_looks(seed, level, None)
    for now in (level, level + above):
        assert torch.equal(guidance.decay(cond, [look], now), cond - look.delta)


@pytest.mark.parametrize(("then", "now"), [(None, 1.0), (1.0, None), (None, None)])
def test_decay_holds_where_levels_are_unknown(then: float | None, now: float | None) -> None:
    """Without both levels there is no ratio."""
    cond, (look, *_) = draws(1, 1)[0], two_looks(0, then, None)
    assert torch.equal(guidance.decay(cond, [look], now), cond - look.delta)


# -- forecast -------------------------------------------------------------------------------------


@given(seeds, levels, distances, st.floats(0.0, 1.0))
@quick
def test_forecast_goes_on_by_the_believed_share(
    seed: int, level: float, apart: float, reach: float
) -> None:
    """delta = d1 + BELIEF r (d1 - d0), with r the distance in units of that between the looks."""
    cond, looks = draws(seed + 1, 1)[0], two_looks(seed, level, level - apart)
    found = cond - guidance.forecast(cond, looks, level - apart - reach * apart)
    d0, d1 = looks[0].delta, looks[1].delta
    torch.testing.assert_close(
        found, d1 + guidance.BELIEF * reach * (d1 - d0), rtol=1e-4, atol=1e-4
    )


@given(seeds, levels, distances, st.floats(0.0, 1.0))
@quick
def test_forecast_with_full_belief_is_exact_on_a_line(
    seed: int, level: float, apart: float, reach: float
) -> None:
    """Where delta is affine in log sigma, and within reach, nothing is lost."""
    cond, start, slope = draws(seed, 3)

    def delta(at: float) -> torch.Tensor:
        return start + at * slope

    second = level - apart
    looks = [Look(delta(level), level), Look(delta(second), second)]
    now = second - reach * apart
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance, "BELIEF", 1.0)
        found = guidance.forecast(cond, looks, now)
    torch.testing.assert_close(found, cond - delta(now), rtol=1e-4, atol=1e-4)


@given(seeds, levels, distances, st.floats(0.0, 50.0))
@quick
def test_forecast_reaches_no_further_than_it_has_seen(
    seed: int, level: float, apart: float, beyond: float
) -> None:
    """Beyond REACH the estimate stays what it is at REACH."""
    cond, looks = draws(seed + 1, 1)[0], two_looks(seed, level, level - apart)
    end = level - apart - guidance.REACH * apart
    far = guidance.forecast(cond, looks, end - beyond)
    torch.testing.assert_close(far, guidance.forecast(cond, looks, end), rtol=1e-4, atol=1e-4)


@given(seeds, levels, distances, distances)
@quick
def test_forecast_never_goes_back(seed: int, level: float, apart: float, above: float) -> None:
    """On the near side of its last look it is `hold`."""
    cond, looks = draws(seed + 1, 1)[0], two_looks(seed, level, level - apart)
    assert torch.equal(guidance.forecast(cond, looks, level - apart + above), cond - looks[1].delta)


@pytest.mark.parametrize(
    ("first", "second", "now"),
    [(1.0, 1.0, 0.0), (None, 1.0, 0.0), (2.0, None, 0.0), (2.0, 1.0, None)],
    ids=["equal", "first unknown", "second unknown", "now unknown"],
)
def test_forecast_holds_where_there_is_no_line(
    first: float | None, second: float | None, now: float | None
) -> None:
    """Equal or unknown levels leave the last delta."""
    cond, looks = draws(1, 1)[0], two_looks(0, first, second)
    assert torch.equal(guidance.forecast(cond, looks, now), cond - looks[1].delta)


def test_forecast_holds_after_one_look() -> None:
    """One point makes no line."""
    cond, (look, *_) = draws(1, 1)[0], two_looks(0, 1.0, 0.5)
    assert torch.equal(guidance.forecast(cond, [look], 0.0), cond - look.delta)


# -- linear ---------------------------------------------------------------------------------------


def turning(seed: int, slopes: Sequence[float]) -> tuple[list[Look], torch.Tensor, torch.Tensor]:
    """Looks between which delta changes by b times what cond does; the next cond and its uncond."""
    shape = (len(slopes), *SHAPE[1:])
    c0, c1, c2, d0 = draws(seed, 4, shape)
    b = torch.tensor(slopes).view(-1, 1, 1, 1)
    looks = [Look(d0, None, c0), Look(d0 + b * (c1 - c0), None, c1)]
    return looks, c2, c2 - (d0 + b * (c2 - c0))


@given(seeds, st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=3))
@quick
def test_linear_recovers_each_sample_s_slope(seed: int, slopes: list[float]) -> None:
    """With delta changes b times those of cond, uncond is exact but for the ridge of 0.1 %."""
    looks, cond, uncond = turning(seed, slopes)
    found = guidance.linear(cond, looks, None)
    torch.testing.assert_close(found, uncond, rtol=0, atol=8 * guidance.RIDGE)


@given(seeds, st.floats(1.1, 100.0), st.sampled_from([-1, 1]))
@quick
def test_linear_believes_no_slope_above_one(seed: int, size: float, sign: int) -> None:
    """|b| is at most 1: a steeper fit is taken for noise."""
    looks, cond, _ = turning(seed, [sign * size])
    (_, c1), d1 = (look.cond for look in looks), looks[1].delta
    assert c1 is not None
    torch.testing.assert_close(
        guidance.linear(cond, looks, None), cond - d1 - sign * (cond - c1), rtol=1e-5, atol=1e-4
    )


@given(seeds, st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3))
@quick
def test_a_sample_s_slope_is_its_own(seed: int, slopes: list[float]) -> None:
    """A sample's estimate is the same alone and beside any neighbours."""
    looks, cond, _ = turning(seed, slopes)
    alone = [
        Look(look.delta[:1], None, look.cond[:1] if look.cond is not None else None)
        for look in looks
    ]
    together = guidance.linear(cond, looks, None)[:1]
    torch.testing.assert_close(guidance.linear(cond[:1], alone, None), together)


def test_linear_holds_where_cond_stood_still() -> None:
    """No movement, no slope."""
    cond, d0, d1, c = draws(0, 4)
    found = guidance.linear(cond, [Look(d0, None, c), Look(d1, None, c)], None)
    assert torch.equal(found, cond - d1)


@pytest.mark.parametrize("seen", [1, 2])
def test_linear_holds_without_two_conditional_outputs(seen: int) -> None:
    """One look, or looks that did not keep cond."""
    cond, d0, d1, c = draws(0, 4)
    looks = [Look(d0), Look(d1, None, c)][-seen:]
    assert torch.equal(guidance.linear(cond, looks, None), cond - d1)


@pytest.mark.parametrize("size", [1e-4, 300.0])
def test_linear_fits_half_precision_in_float32(size: float) -> None:
    """Sums of squares that float16 cannot hold still give the slope."""
    looks, cond, uncond = turning(3, [0.5, -0.5])
    halves = [
        Look((size * x.delta).half(), None, None if x.cond is None else (size * x.cond).half())
        for x in looks
    ]
    found = guidance.linear((size * cond).half(), halves, None)
    torch.testing.assert_close(found.float(), size * uncond, rtol=0, atol=1e-2 * size)


def drifting(
    seed: int, slope: float, kept: float, *, rows: int = 2
) -> tuple[list[Look], torch.Tensor, torch.Tensor]:
    """Three looks a level apart; what cond does not explain goes on by the share `kept`.

    The drift is made orthogonal to the movement of cond, so that the fits do not mix.
    """
    c0, c1, c2, c3, d0, free = draws(seed, 6, (rows, *SHAPE[1:]))
    moves = torch.stack([c1 - c0, c2 - c1], 1).flatten(2).mT.double()  # (rows, N, 2)
    along, _ = torch.linalg.qr(moves)
    plain = free.flatten(1).double()[..., None]
    free = (plain - along @ (along.mT @ plain)).float().view_as(free)
    d1 = d0 + slope * (c1 - c0) + free
    d2 = d1 + slope * (c2 - c1) + kept * free
    looks = [Look(d, float(3 - i), c) for i, (d, c) in enumerate(((d0, c0), (d1, c1), (d2, c2)))]
    return looks, c3, kept * free


@given(seeds, st.floats(-0.9, 0.9), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@quick
def test_linear_trusts_a_drift_by_how_it_went_on(
    seed: int, slope: float, kept: float, reach: float
) -> None:
    """delta = d2 + b (c - c2) + TRUST p r u, with p the share the drift kept at the last look."""
    looks, cond, drift = drifting(seed, slope, kept)
    found = cond - guidance.linear(cond, looks, 1.0 - reach)
    assert looks[2].cond is not None
    wanted = looks[2].delta + slope * (cond - looks[2].cond) + guidance.TRUST * kept * reach * drift
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.05)


@given(seeds, st.floats(-0.9, 0.9), st.floats(-3.0, -0.01))
@quick
def test_linear_does_not_trust_a_drift_that_turned_back(
    seed: int, slope: float, kept: float
) -> None:
    """A negative share is none: what is left is the fit of the last two looks."""
    looks, cond, _ = drifting(seed, slope, kept)
    found = guidance.linear(cond, looks, 0.5)
    torch.testing.assert_close(found, guidance.linear(cond, looks[1:], 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("unknown", [0, 1, 2, "now"])
def test_linear_asks_no_drift_where_a_level_is_unknown(unknown: int | str) -> None:
    """It then rests on its last two looks alone."""
    looks, cond, _ = drifting(5, 0.5, 0.8)
    plain = guidance.linear(cond, looks[1:], 0.5)
    assert not torch.equal(guidance.linear(cond, looks, 0.5), plain)
    now = None if unknown == "now" else 0.5
    looks = [
        Look(look.delta, None if i == unknown else look.level, look.cond)
        for i, look in enumerate(looks)
    ]
    assert torch.equal(guidance.linear(cond, looks, now), plain)


# -- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_the_dtype_in_is_the_dtype_out(name: str, dtype: torch.dtype) -> None:
    """Whatever is computed in between, pipelines get what they gave."""
    cond, d0, d1, c0, c1 = (x.to(dtype) for x in draws(0, 5))
    looks = [Look(d0, 1.0, c0), Look(d1, 0.5, c1)]
    found = ESTIMATORS[name].fill(cond, looks, 0.2)
    assert (found.dtype, found.shape) == (dtype, cond.shape)
    assert found.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@given(seed=seeds, first=levels, second=levels, now=levels)
@quick
def test_an_estimate_is_finite_and_leaves_its_inputs_alone(
    name: str, seed: int, first: float, second: float, now: float
) -> None:
    """Any levels, in any order; looks serve again, so they are only read."""
    cond, looks = draws(seed + 1, 1)[0], two_looks(seed, first, second)
    given_ = [cond, *(t for look in looks for t in (look.delta, look.cond) if t is not None)]
    copies = [t.clone() for t in given_]
    assert ESTIMATORS[name].fill(cond, looks, now).isfinite().all()
    assert all(map(torch.equal, given_, copies))


@pytest.mark.parametrize("name", NAMES)
def test_an_estimator_uses_what_it_says(name: str) -> None:
    """Fewer looks than `memory`, a level, a kept cond matter exactly where it declares them."""
    estimator = ESTIMATORS[name]
    looks, cond, _ = drifting(0, 0.5, 0.9)  # levels 3, 2, 1
    older = Look(draws(5, 1)[0], 4.0, draws(6, 1)[0])
    found = estimator.fill(cond, looks, 0.2)
    assert torch.equal(estimator.fill(cond, [older, *looks], 0.2), found)
    newest = looks[len(looks) - estimator.memory :]
    assert torch.equal(estimator.fill(cond, newest, 0.2), found)
    assert torch.equal(estimator.fill(cond, looks, 0.1), found) is not estimator.reads_level
    bare = [Look(look.delta, look.level) for look in looks]
    assert torch.equal(estimator.fill(cond, bare, 0.2), found) is not estimator.keeps_cond


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_denoised_is_the_clean_sample(prediction: str, sigma: float) -> None:
    """x = sqrt(a) x0 + sqrt(1 - a) noise is undone from either prediction."""
    clean, noise = (x.double() for x in draws(0, 2))
    a = 1 / (1 + sigma**2)
    sample = a**0.5 * clean + (1 - a) ** 0.5 * noise
    output = {
        "epsilon": noise,
        "v_prediction": a**0.5 * noise - (1 - a) ** 0.5 * clean,
        "sample": clean,
    }[prediction]
    found = guidance.to_denoised(sample, output, sigma, prediction)
    torch.testing.assert_close(found, clean, rtol=1e-9, atol=1e-9)
