"""Foreign methods are counted by what really ran, and ours come to what their reports say."""

from __future__ import annotations

import pytest

from tests.conftest import load_helper

pytest.importorskip("diffusers", minversion="0.42")

from tgate_plugins.methods.counting import macs_of
from tgate_plugins.methods.spec import parse

homes = load_helper("methods/homes.py")
trial = load_helper("methods/tried.py")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    "text",
    [
        "ours:policy=fixed_step,gate_step=3",
        "ours:policy=interleave",
        "ours:policy=block",
        "ours:policy=interleave,compose=block",
        "tgate:gate_step=3",
    ],
)
@pytest.mark.parametrize("name", ["emoji-sd", "sdxl"])
def test_what_is_counted_is_what_our_reports_say(name: str, text: str) -> None:
    """Guidance, attention and block gates: to a thousandth, and the rows exactly."""
    home, pipe = homes.HOMES[name], trial.pipe_of(name)
    with parse(text).apply(pipe, home.setting) as how:
        macs, rows = macs_of(pipe, lambda: home.picture(pipe, how))
    report = how.report()
    assert report is not None
    assert report.macs is not None
    assert macs == pytest.approx(report.macs.done.true, rel=1e-3)
    assert rows == report.rows[0]
    assert macs < 0.9 * report.macs.ungated.true


@pytest.mark.parametrize("name", ["emoji-sd", "sdxl", "pixart_sigma"])
@pytest.mark.parametrize("steps", [1, 4])
def test_an_ungated_run_is_so_many_rows(name: str, steps: int) -> None:
    """Two rows a step, each as dear as one row of a run without guidance; the VAE is not in it."""
    home, pipe = homes.HOMES[name], trial.pipe_of(name)
    one = parse("fewer_steps:steps=1")
    with one.apply(pipe, homes.Setting(1, 1.0)) as how:
        row, rows = macs_of(pipe, lambda: home.picture(pipe, how))
    assert rows == 1
    with parse(f"fewer_steps:steps={steps}").apply(pipe, home.setting) as how:
        macs, rows = macs_of(pipe, lambda: home.picture(pipe, how))
    assert rows == 2 * steps
    assert macs == pytest.approx(rows * row, rel=1e-6)


def test_decoding_a_picture_is_not_counted() -> None:
    """Only what happens inside the backbone's forwards is."""
    pipe = trial.pipe_of("emoji-sd")
    arguments = {"prompt": homes.PROMPT, "num_inference_steps": 1, "guidance_scale": 4.0}
    latent, decoded = (
        macs_of(pipe, lambda kind=kind: pipe(output_type=kind, **arguments))
        for kind in ("latent", "np")
    )
    assert latent == decoded


def test_deepcache_is_counted_by_what_it_ran() -> None:
    """With interval 3 two steps of six are full; the rest cost some, and much less."""
    pytest.importorskip("DeepCache", reason="pip install --no-deps DeepCache")
    share = trial.tried("emoji-sd", "deepcache:interval=3").macs
    assert 2 / 6 < share < 0.5


def test_an_error_leaves_no_counter_behind() -> None:
    """The hook is gone, and the next count is right."""
    home, pipe = homes.HOMES["sd"], trial.pipe_of("sd")
    hooks = dict(pipe.unet.conv_in._forward_pre_hooks)
    with pytest.raises(trial.TroubleError), trial.trouble(pipe):
        macs_of(pipe, lambda: home.picture(pipe, home.bare))
    assert dict(pipe.unet.conv_in._forward_pre_hooks) == hooks
    assert macs_of(pipe, lambda: home.picture(pipe, home.bare)) == trial.bare("sd")[1:]
