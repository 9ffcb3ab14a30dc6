"""PSNR and SSIM with known answers, and their mean and worst."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tgate_plugins.cli.metrics import Image, Spread, finite, psnr, spread, ssim


def picture(seed: int, side: int = 16) -> Image:
    return np.random.default_rng(seed).random((side, side, 3), dtype=np.float32)


@pytest.mark.parametrize(("error", "decibel"), [(0.1, 20.0), (0.01, 40.0), (1.0, 0.0)])
def test_psnr_of_a_uniform_error_is_known(error: float, decibel: float) -> None:
    black = np.zeros((8, 8, 3), np.float32)
    assert psnr(black + np.float32(error), black) == pytest.approx(decibel, abs=1e-4)


def test_psnr_is_infinite_for_equal_pictures_and_only_then() -> None:
    one = picture(0)
    other = one.copy()
    other[0, 0, 0] += 1e-3
    assert psnr(one, one) == math.inf
    assert 0 < psnr(other, one) < math.inf


def test_ssim_is_one_for_equal_pictures_and_less_for_others() -> None:
    assert ssim(picture(0), picture(0)) == pytest.approx(1.0)
    assert ssim(picture(0), picture(1)) < 0.2


def test_ssim_of_two_flat_pictures_is_the_luminance_term() -> None:
    # With no variance SSIM = (2 a b + c) / (a^2 + b^2 + c), c = 0.01^2 (Wang et al. 2004).
    a, b, c = 0.4, 0.6, 1e-4
    flat = [np.full((9, 9, 3), level, np.float32) for level in (a, b)]
    assert ssim(*flat) == pytest.approx((2 * a * b + c) / (a * a + b * b + c), abs=1e-5)


@pytest.mark.parametrize("side", [3, 4, 6, 7])
def test_ssim_takes_pictures_smaller_than_its_window(side: int) -> None:
    assert ssim(picture(0, side), picture(0, side)) == pytest.approx(1.0)


def test_identical_pictures_are_counted_and_left_out_of_the_mean() -> None:
    assert spread([20.0, 30.0, math.inf]) == Spread(25.0, 20.0, 1)


def test_all_identical_is_infinite_and_null_in_json() -> None:
    every = spread([math.inf, math.inf])
    assert every == Spread(math.inf, math.inf, 2)
    assert every is not None
    assert every.to_dict() == {"mean": None, "worst": None}


def test_nothing_has_no_spread() -> None:
    assert spread([]) is None


def test_json_gets_finite_numbers_or_null() -> None:
    assert [finite(v) for v in (1.0, math.inf, -math.inf, math.nan, None)] == [1.0, *[None] * 4]
