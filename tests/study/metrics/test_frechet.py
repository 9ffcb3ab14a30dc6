"""FID against Frechet distances worked out by hand, its bias, and what it refuses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgate_plugins.study.metrics import LEAST_IMAGES, features, fid, frechet_distance
from tgate_sampling.errors import OptionError
from tgate_zoo import scenes

Fid = Callable[[Any, Any], float]


def exact(mean: Any, covariance: Any, seed: int, n: int = 2000) -> Any:
    """(n, d) draws whose sample mean and unbiased covariance are these, to rounding."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    draws = np.random.default_rng(seed).standard_normal((n, len(mean)))
    draws -= draws.mean(0)
    whitened = np.linalg.solve(np.linalg.cholesky(draws.T @ draws / (n - 1)), draws.T).T
    return mean + whitened @ np.linalg.cholesky(covariance).T


def by_hand(mean_a: Any, cov_a: Any, mean_b: Any, cov_b: Any) -> float:
    """Of two features: tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)) for a 2 x 2 matrix M."""
    product = np.asarray(cov_a) @ np.asarray(cov_b)
    root = math.sqrt(np.trace(product) + 2 * math.sqrt(np.linalg.det(product)))
    shift = sum((a - b) ** 2 for a, b in zip(mean_a, mean_b, strict=True))
    return shift + float(np.trace(cov_a) + np.trace(cov_b)) - 2 * root


def moment_fid(a: Any, b: Any, ddof: int = 1, root: Callable[[Any], Any] | None = None) -> float:
    """A FID of the textbook formula, to plant offenders in."""
    from scipy.linalg import sqrtm

    cov_a, cov_b = (np.cov(x, rowvar=False, ddof=ddof) for x in (a, b))
    between = (root or sqrtm)(cov_a @ cov_b)
    return float(
        np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * np.real(between))
    )


# Covariances that do not commute: with ones that do, a wrong root would pass.
MEANS = ((1.0, -2.0), (0.5, 1.0))
COVARIANCES = (((2.0, 1.2), (1.2, 1.0)), ((1.0, -0.6), (-0.6, 3.0)))


def check_known(measure: Fid) -> None:
    a, b = (exact(m, c, seed) for seed, (m, c) in enumerate(zip(MEANS, COVARIANCES, strict=True)))
    hand = by_hand(MEANS[0], COVARIANCES[0], MEANS[1], COVARIANCES[1])
    assert measure(a, b) == pytest.approx(hand, abs=1e-6)


def test_fid_is_the_frechet_distance_worked_out_by_hand() -> None:
    check_known(fid)


def elementwise_root(matrix: Any) -> Any:
    return np.sqrt(np.abs(matrix))


@pytest.mark.parametrize(
    "offender",
    [
        pytest.param(lambda a, b: moment_fid(a, b, ddof=0), id="biased covariance"),
        pytest.param(lambda a, b: moment_fid(a, b, root=elementwise_root), id="elementwise root"),
        pytest.param(lambda a, b: math.sqrt(moment_fid(a, b)), id="not squared"),
        pytest.param(lambda a, b: moment_fid(a - a.mean(0), b - b.mean(0)), id="means forgotten"),
    ],
)
def test_the_hand_worked_answer_catches_a_wrong_fid(offender: Fid) -> None:
    check_known(moment_fid)
    with pytest.raises(AssertionError):
        check_known(offender)


def test_one_feature_has_the_distance_of_means_and_of_deviations() -> None:
    # d = 1: (m_a - m_b)^2 + (s_a - s_b)^2.
    a, b = exact([3.0], [[4.0]], 0), exact([1.0], [[0.25]], 1)
    assert fid(a, b) == pytest.approx((3 - 1) ** 2 + (2 - 0.5) ** 2, abs=1e-9)


def test_independent_features_add_up() -> None:
    means, deviations = np.linspace(-1, 1, 96), np.linspace(0.1, 2, 96)
    a = exact(means, np.diag(deviations**2), 0)
    b = exact(np.zeros(96), np.eye(96), 1)
    assert fid(a, b) == pytest.approx(np.sum(means**2 + (deviations - 1) ** 2), abs=1e-6)


def test_a_shift_costs_its_squared_length() -> None:
    a = np.random.default_rng(0).standard_normal((2000, 8))
    assert fid(a, a + 0.5) == pytest.approx(8 * 0.25, abs=1e-9)


def test_ninety_six_features_agree_with_the_matrix_square_root_of_scipy() -> None:
    generator = np.random.default_rng(0)
    a, b = (
        generator.standard_normal((2000, 96)) @ generator.standard_normal((96, 96)) / 10
        for _ in range(2)
    )
    assert fid(a, b) == pytest.approx(moment_fid(a, b), rel=1e-9)


def test_singular_covariances_have_their_distance() -> None:
    # Gaussians on two lines through 0 that meet at 60 degrees: tr (C_a C_b)^(1/2) is
    # s_a s_b |cos 60|, so the distance is 4 + 1 - 2 * 2 * 1 * 0.5 = 3.
    line = np.array([0.5, math.sqrt(0.75), 0.0])
    a = exact([0.0], [[4.0]], 0) * np.array([1.0, 0.0, 0.0])
    b = exact([0.0], [[1.0]], 1) * line
    assert fid(a, b) == pytest.approx(3.0, abs=1e-6)


def test_features_that_never_change_are_no_trouble() -> None:
    assert fid(np.ones((2000, 96)), np.zeros((2000, 96))) == pytest.approx(96.0)


def test_fewer_pictures_than_features_still_have_a_distance_of_gaussians() -> None:
    draws = np.random.default_rng(0).standard_normal((20, 64))
    covariance = np.cov(draws, rowvar=False)
    mean = np.zeros(64)
    assert frechet_distance(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-9)
    # C against 4 C: the roots commute, tr C (1 - 2)^2.
    assert frechet_distance(mean, covariance, mean, 4 * covariance) == pytest.approx(
        np.trace(covariance), rel=1e-6
    )


@st.composite
def feature_sets(draw: Any) -> tuple[Any, Any, Any]:
    """Two sets of features of one width, often rank-deficient, and a rotation."""
    d, rank = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    a, b = (
        draw(st.floats(0, 10)) * generator.standard_normal((2000, rank)) @ mix
        + generator.standard_normal(d)
        for mix in generator.standard_normal((2, rank, d))
    )
    rotation, _ = np.linalg.qr(generator.standard_normal((d, d)))
    return a, b, rotation


@settings(max_examples=40, deadline=None)
@given(sets=feature_sets())
def test_fid_is_zero_of_equal_sets_symmetric_and_blind_to_rotation(sets: Any) -> None:
    a, b, rotation = sets
    size = float(np.var(a, axis=0).sum() + np.var(b, axis=0).sum() + 1)
    assert fid(a, a) == pytest.approx(0, abs=1e-9 * size)
    assert fid(a, b) == pytest.approx(fid(b, a), abs=1e-6 * size)
    assert fid(a @ rotation, b @ rotation) == pytest.approx(fid(a, b), abs=1e-6 * size)
    assert fid(a, b) >= 0


@pytest.mark.parametrize(
    ("n", "d", "least"),
    [(LEAST_IMAGES - 1, 4, 2000), (2000, 200, 2001), (2000, 2048, 20_481), (5, 96, 2000)],
)
def test_too_few_pictures_are_refused_with_the_number_that_would_do(
    n: int, d: int, least: int
) -> None:
    draws = np.zeros((n, d), np.float32)
    with pytest.raises(OptionError, match=f"of {n} pictures and means something from {least} on"):
        fid(draws, draws)


@pytest.mark.parametrize(("n", "d"), [(2000, 4), (2001, 200)])
def test_the_least_number_of_pictures_is_enough(n: int, d: int) -> None:
    draws = np.random.default_rng(0).standard_normal((n, d))
    assert fid(draws, draws) == pytest.approx(0, abs=1e-9)


def test_the_second_set_is_held_to_the_same() -> None:
    with pytest.raises(OptionError, match="of 10 pictures"):
        fid(np.zeros((2000, 4)), np.zeros((10, 4)))


def test_features_of_two_kinds_are_refused() -> None:
    with pytest.raises(OptionError, match="features of one kind and got 4 and 5"):
        fid(np.zeros((2000, 4)), np.zeros((2000, 5)))


def test_pictures_in_place_of_features_are_refused() -> None:
    with pytest.raises(OptionError, match=r"call `features\(images\)`"):
        fid(np.zeros((2000, 4, 4, 3)), np.zeros((2000, 4, 4, 3)))


def test_a_feature_that_is_not_finite_is_refused() -> None:
    draws = np.zeros((2000, 4))
    draws[7, 2] = np.nan
    with pytest.raises(OptionError, match="not finite"):
        fid(draws, draws)


def test_the_bias_of_two_thousand_draws_is_what_the_docstring_says() -> None:
    found = []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        found.append(fid(*generator.standard_normal((2, 2000, 96))))
    assert np.mean(found) == pytest.approx(2.45, abs=0.01)
    assert np.mean(found) == pytest.approx(96 * 101 / 4000, rel=0.02)


@pytest.mark.skipif(not scenes.FONT_PATH.is_file(), reason=f"needs Debian's {scenes.FONT_PACKAGE}")
def test_the_bias_of_five_hundred_renders_is_what_the_docstring_says() -> None:
    glyphs, rng = scenes.load_glyphs(), random.Random(1)
    drawn = scenes.draw_scenes(1000, 1)
    renders = np.stack([scenes.render(scene, rng, glyphs) for scene in drawn])
    found = features(renders.astype(np.float32) / 255)
    # `fid` refuses so few. Ten splits deviate by 0.04.
    a, b = ((x.mean(0), np.cov(x, rowvar=False)) for x in (found[:500], found[500:]))
    assert frechet_distance(*a, *b) == pytest.approx(0.270, abs=0.12)
