"""PSNR, SSIM, MS-SSIM and the three shifts with known answers."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest

from tgate_plugins.study.metrics import levels, ms_ssim, paired, scales, shifts
from tgate_plugins.study.metrics.multiscale import PUBLISHED, weights
from tgate_sampling.errors import OptionError

KEYS = {"psnr", "ssim", "ms_ssim", "brightness", "chroma", "sharpness"}


def noise(n: int = 3, side: int = 32, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((n, side, side, 3), dtype=np.float32)


def flat(level: float, side: int = 32, n: int = 1) -> Any:
    return np.full((n, side, side, 3), level, np.float32)


def chequered(side: int, amplitude: float) -> Any:
    """Grey with a chessboard of one pixel a field, which halving the picture erases."""
    board = np.indices((side, side)).sum(0) % 2 * 2 - 1
    return (0.5 + amplitude * board[None, :, :, None] * np.ones(3)).astype(np.float32)


def test_equal_pictures_are_infinitely_near() -> None:
    found = paired(noise(), noise())
    assert found.keys() == KEYS
    assert found["psnr"].tolist() == [math.inf] * 3
    assert found["ssim"] == pytest.approx(np.ones(3))
    assert found["ms_ssim"].tolist() == [1.0] * 3
    assert [found[k].tolist() for k in ("brightness", "chroma", "sharpness")] == [[0.0] * 3] * 3


def test_every_value_is_a_picture_of_its_own_in_order() -> None:
    reference = noise(4)
    images = reference.copy()
    images[2] = 1 - images[2]
    found = paired(images, reference)
    assert {name: value.shape for name, value in found.items()} == dict.fromkeys(KEYS, (4,))
    assert all(value.dtype == np.float64 for value in found.values())
    for name in ("psnr", "ssim", "ms_ssim"):
        assert np.argmin(found[name]) == 2
    alone = paired(images[2:3], reference[2:3])
    assert {k: v[2] for k, v in found.items()} == pytest.approx({k: v[0] for k, v in alone.items()})


def test_psnr_of_a_uniform_error_is_known() -> None:
    assert paired(flat(0.6), flat(0.5))["psnr"] == pytest.approx(20.0, abs=1e-4)


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b, c = 0.4, 0.6, 1e-4  # (2 a b + c) / (a^2 + b^2 + c), c = 0.01^2
    assert paired(flat(a), flat(b))["ssim"] == pytest.approx((2 * a * b + c) / (a * a + b * b + c))


@pytest.mark.parametrize("side", [22, 32, 44, 99, 176])
def test_ms_ssim_of_flat_pictures_is_the_luminance_term_at_the_coarsest_scale(side: int) -> None:
    a, b, c = 0.4, 0.6, 1e-4
    count = scales(side, side)
    exponent = PUBLISHED[count - 1] / (1 if count == 5 else sum(PUBLISHED[:count]))
    luminance = (2 * a * b + c) / (a * a + b * b + c)
    assert ms_ssim(flat(a, side), flat(b, side)) == pytest.approx(
        luminance**exponent, abs=1e-6 if side <= 64 else 3e-4
    )


@pytest.mark.parametrize("side", [32, 64, 176])
def test_ms_ssim_of_a_lost_chessboard_is_the_contrast_term_at_the_finest_scale(side: int) -> None:
    """The coarser scales see two equal grey pictures, so only the first one's term is left."""
    amplitude, c = 0.1, 9e-4
    exponent = PUBLISHED[0] / (1 if side == 176 else sum(PUBLISHED[: scales(side, side)]))
    contrast = c / (amplitude**2 + c)
    found = ms_ssim(chequered(side, amplitude), flat(0.5, side))
    assert found == pytest.approx(contrast**exponent, abs=1e-3)
    # One scale alone calls these pictures strangers; the planted offender is SSIM in its name.
    assert paired(chequered(side, amplitude), flat(0.5, side))["ssim"][0] < 0.1 < found[0]


def test_ms_ssim_of_opposite_pictures_is_zero_and_not_a_number_of_a_negative_power() -> None:
    assert ms_ssim(chequered(32, 0.4), 1 - chequered(32, 0.4)) == pytest.approx(0.0)


def test_as_many_scales_as_leave_a_window_of_eleven_pixels() -> None:
    assert [scales(s, s) for s in (1, 21, 22, 43, 44, 98, 99, 175, 176, 1024)] == [
        *(1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
    ]
    assert scales(512, 32) == scales(32, 512) == 2


@pytest.mark.parametrize("side", [22, 44, 99])
def test_torchmetrics_takes_every_number_of_scales_that_fits(side: int) -> None:
    assert 0 < ms_ssim(0.9 * noise(1, side), noise(1, side))[0] < 1


@pytest.mark.parametrize("side", [32, 99])
def test_equal_pictures_have_an_ms_ssim_of_one_and_no_others(side: int) -> None:
    pictures = np.concatenate([flat(0.5, side), flat(0.5, side)])
    other = pictures.copy()
    other[1, : side // 2] = 0.45
    assert (ms_ssim(other, pictures) == 1.0).tolist() == [True, False]


def test_float32_of_larger_pictures_is_near_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    images, reference = noise(2, 80), np.clip(noise(2, 80) + 0.1 * noise(2, 80, 1), 0, 1)
    quick = ms_ssim(images, reference)
    monkeypatch.setattr("tgate_plugins.study.metrics.multiscale.EXACT", 10**6)
    exact = ms_ssim(images, reference)
    assert not np.array_equal(quick, exact)
    assert quick == pytest.approx(exact, abs=1e-5)


def test_five_scales_weigh_as_published_and_fewer_sum_to_one() -> None:
    assert weights(5) == PUBLISHED
    assert [sum(weights(n)) for n in (2, 3, 4)] == pytest.approx([1.0] * 3)
    assert weights(2)[1] / weights(2)[0] == pytest.approx(PUBLISHED[1] / PUBLISHED[0])


def test_pictures_too_small_for_two_scales_have_no_ms_ssim() -> None:
    assert paired(noise(2, 21), noise(2, 21)).keys() == KEYS - {"ms_ssim"}
    with pytest.raises(OptionError, match=r"two scales need 22 px and the pictures are 21 x 21 px"):
        ms_ssim(noise(2, 21), noise(2, 21))


def test_many_pictures_are_measured_in_pieces_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = noise(5, 32, 0), noise(5, 32, 1)
    whole = ms_ssim(a, b)
    monkeypatch.setattr("tgate_plugins.study.metrics.pictures.PIECE", 2 * 32 * 32)
    assert ms_ssim(a, b) == pytest.approx(whole, abs=1e-6)


def test_without_torchmetrics_ms_ssim_alone_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert paired(noise(), noise()).keys() == KEYS - {"ms_ssim"}


def test_levels_of_a_picture_of_one_colour_are_known() -> None:
    """Of red (0.9, 0.3, 0.3): grey 0.5, distance from it sqrt(0.4^2 + 2 * 0.2^2), no step."""
    red = np.broadcast_to(np.float32([0.9, 0.3, 0.3]), (1, 8, 8, 3))
    found = {name: value[0] for name, value in levels(red).items()}
    assert found == pytest.approx(
        {"brightness": 0.5, "chroma": math.sqrt(0.24), "sharpness": 0.0}, abs=1e-6
    )


def test_sharpness_is_the_mean_step_down_and_across() -> None:
    stripes = flat(0.0, 8)
    stripes[:, :, 4:] = 0.7  # one step of 0.7 in seven, across
    assert levels(stripes)["sharpness"] == pytest.approx(0.1)
    assert levels(stripes.transpose(0, 2, 1, 3))["sharpness"] == pytest.approx(0.1)
    board = chequered(8, 0.1)  # a step of 0.2 everywhere, both ways
    assert levels(board)["sharpness"] == pytest.approx(0.4)


def test_a_tenth_darker_greyer_and_flatter_is_minus_a_tenth() -> None:
    pictures = noise()
    found = shifts(pictures * np.float32(0.9), pictures)
    assert {name: v.tolist() for name, v in found.items()} == {
        name: pytest.approx([-0.1] * 3, abs=1e-6) for name in ("brightness", "chroma", "sharpness")
    }


def test_each_complaint_is_told_from_the_others() -> None:
    pictures = 0.25 + 0.5 * noise(2)
    grey = pictures.mean(3, keepdims=True)
    mean = pictures.mean((1, 2), keepdims=True)
    faded = {k: v[0] for k, v in shifts(grey + 0.5 * (pictures - grey), pictures).items()}
    assert faded == pytest.approx({"brightness": 0, "chroma": -0.5, "sharpness": 0}, abs=1e-5)
    darker = {k: v[0] for k, v in shifts(pictures - np.float32(0.1), pictures).items()}
    assert darker["brightness"] == pytest.approx(-0.2, abs=0.01)
    assert [darker["chroma"], darker["sharpness"]] == pytest.approx([0, 0], abs=1e-5)
    blurred = {k: v[0] for k, v in shifts(mean + 0.5 * (pictures - mean), pictures).items()}
    assert [blurred["brightness"], blurred["sharpness"]] == pytest.approx([0, -0.5], abs=1e-5)


def test_a_shift_from_nothing_is_unknown_and_from_nothing_to_nothing_none() -> None:
    black, grey, colours = flat(0.0), flat(0.5), noise(1)
    found = shifts(np.concatenate([colours, black, black]), np.concatenate([black, black, grey]))
    assert np.isnan(found["brightness"]).tolist() == [True, False, False]
    assert found["brightness"][1:].tolist() == [0.0, -1.0]
    assert np.isnan(found["chroma"]).tolist() == [True, False, False]
    assert found["sharpness"][1:].tolist() == [0.0, 0.0]


def test_pixels_that_hold_rounding_only_have_no_chroma_to_shift() -> None:
    """Grey in float32 is not quite grey; a ratio of two roundings would be any number."""
    grey = np.repeat(noise(2, 16)[..., :1], 3, axis=3)
    rounding = grey * np.float32([1, 1 + 1e-6, 1])
    assert shifts(rounding.clip(0, 1), grey)["chroma"].tolist() == [0.0, 0.0]


def test_a_row_of_pixels_has_a_sharpness() -> None:
    assert levels(np.float32([[[[0.0] * 3, [1.0] * 3]]]))["sharpness"].tolist() == [1.0]


def test_no_picture_at_all_has_no_values() -> None:
    assert {v.shape for v in paired(noise(0), noise(0)).values()} == {(0,)}


@pytest.mark.parametrize(
    ("images", "reference", "sentence"),
    [
        (noise(2), noise(3), r"got \(2, 32, 32, 3\) and \(3, 32, 32, 3\); give the pictures of"),
        (noise(1, 32), noise(1, 16), "in the same order and size"),
        (noise(1)[0], noise(1)[0], r"got \(32, 32, 3\); stack pictures"),
        (noise(1).transpose(0, 3, 1, 2), noise(1), r"images of shape \(N, height, width, 3\)"),
        (255 * noise(1), noise(1), "divide 8-bit pictures by 255"),
        (noise(1), 2 * noise(1) - 1, r"reference pictures in \[0, 1\] and got -"),
        (np.where(np.arange(2)[:, None, None, None], np.nan, noise(2)), noise(2), "number 1 of 2"),
    ],
)
def test_what_are_no_pairs_of_pictures_is_refused(
    images: Any, reference: Any, sentence: str
) -> None:
    with pytest.raises(OptionError, match=sentence):
        paired(images, reference)
