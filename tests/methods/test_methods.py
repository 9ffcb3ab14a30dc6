"""What single methods claim: the baselines, ours, and other people's beside themselves."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.conftest import load_helper

pytest.importorskip("diffusers", minversion="0.42")

import tgate_sampling as tg
from tgate_plugins.methods import mag_cache
from tgate_plugins.methods._pipes import backbone_of
from tgate_plugins.methods.spec import label, parse
from tgate_plugins.methods.tgate_reference import LOADERS
from tgate_sampling.method import Setting

homes = load_helper("methods/homes.py")
trial = load_helper("methods/tried.py")
relative_l2 = load_helper("golden_io.py").relative_l2

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: Float32 accuracy, as for tests/plugins/test_tgate_package.py.
TOLERANCE = 1e-5


def run(name: str, text: str, **more: Any) -> torch.Tensor:
    """The first picture of a method."""
    home, pipe = homes.HOMES[name], trial.pipe_of(name)
    with parse(text).apply(pipe, home.setting) as how:
        made: torch.Tensor = home.picture(pipe, how, **more)
    return made


def rows_of(name: str, text: str) -> list[int]:
    """The rows of each backbone call under a method."""
    backbone, rows = backbone_of(trial.pipe_of(name)), list[int]()
    first = getattr(backbone, "conv_in", None) or backbone.pos_embed
    handle = first.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    run(name, text)
    handle.remove()
    return rows


def test_importing_the_methods_imports_no_one_else() -> None:
    """Neither diffusers nor a compared package, nor the command line's own needs."""
    foreign = ("diffusers", "transformers", "tgate", "DeepCache", "tomesd", "cache_dit", "typer")
    code = (
        "import sys; from tgate_sampling._manager import manager; assert manager().methods;"
        f"print([m for m in {foreign!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ungated_is_the_bare_pipeline() -> None:
    """Bitwise."""
    assert torch.equal(run("sd", "ungated"), trial.bare("sd")[0])


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_fewer_steps_call_the_backbone_so_often(steps: int) -> None:
    """Once a step, with both branches; more than the ungated run are refused."""
    assert rows_of("sd", f"fewer_steps:steps={steps}") == [2] * steps
    refused = parse("fewer_steps:steps=7").refuses(trial.pipe_of("sd"), homes.SETTING)
    assert refused == "steps=7 is no fewer than the 6 of the ungated run."


@pytest.mark.parametrize("name", ["sd", "sdxl", "pixart_alpha", "pixart_sigma"])
@pytest.mark.parametrize("options", ["gate_step=3", "gate_step=4,sp_interval=2,fi_interval=3"])
def test_our_reference_mode_is_the_package(name: str, options: str) -> None:
    """`tgate` and `tgate_package` make the same latents; another gate step makes others."""
    pytest.importorskip("tgate", reason="pip install --no-deps tgate==1.0.0")
    theirs = run(name, f"tgate_package:{options}")
    assert relative_l2(run(name, f"tgate:{options}"), theirs) <= TOLERANCE
    assert relative_l2(run(name, "tgate:gate_step=5"), theirs) > 100 * TOLERANCE


def test_the_package_runs_distilled_sdxl() -> None:
    """With `lcm=True`, where it has a loader that hears it; both modes agree there, too."""
    pytest.importorskip("tgate", reason="pip install --no-deps tgate==1.0.0")
    ours, theirs = (run("lcm_sdxl", f"{m}:gate_step=2") for m in ("tgate", "tgate_package"))
    assert relative_l2(ours, theirs) <= TOLERANCE
    assert not torch.equal(theirs, trial.bare("lcm_sdxl")[0])


def test_the_package_is_called_with_what_a_subclass_adds() -> None:
    """A pipeline whose own call fills in arguments has them filled in here; others are left."""
    pytest.importorskip("tgate", reason="pip install --no-deps tgate==1.0.0")
    home = homes.HOMES["sd"]
    pipe, other = home.make(), home.make()
    base = type(pipe)
    fewer = {"__call__": lambda self, **given: base.__call__(self, **given | {"height": 32})}
    pipe.__class__ = type(base.__name__, (base,), fewer)
    with parse("tgate_package:gate_step=3").apply(pipe, home.setting) as how:
        made = home.picture(pipe, how, latents=None)
        beside = home.picture(other, home.bare)
    assert made.shape[-2:] == (4, 8)
    assert torch.equal(beside, trial.bare("sd")[0])


def test_the_package_has_the_loaders_that_are_named() -> None:
    """A misspelt one would be a failure at run time."""
    package = pytest.importorskip("tgate", reason="pip install --no-deps tgate==1.0.0")
    assert all(hasattr(package, loader) for loader in LOADERS.values())


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_diffusers_callback_cuts_guidance_where_our_gate_closes(name: str) -> None:
    """Two rows up to the gate and one after it; the same latents as our guidance gate alone."""
    assert rows_of(name, "cfg_cutoff:fraction=0.4") == [2, 2, 2, 1, 1, 1]
    ours = "ours:policy=fixed_step,fraction=0.4,gates=guidance,estimator=none"
    assert relative_l2(run(name, ours), run(name, "cfg_cutoff:fraction=0.4")) <= TOLERANCE


def test_the_cut_is_counted_in_steps_of_a_second_order_scheduler() -> None:
    """Heun makes two evaluations a step: guidance lasts to the end of the third step."""
    import diffusers

    pipe = trial.pipe_of("sd")
    before = pipe.scheduler
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(before.config)
    try:
        assert rows_of("sd", "cfg_cutoff:fraction=0.4") == [2] * 6 + [1] * 5
    finally:
        pipe.scheduler = before


def test_deepcache_is_the_package_s_own_helper() -> None:
    """The same latents as by its own three lines; another interval makes others."""
    package = pytest.importorskip("DeepCache", reason="pip install --no-deps DeepCache")
    home = homes.HOMES["sd"]
    pipe = home.make()
    helper = package.DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=3, cache_branch_id=0)
    helper.enable()
    theirs = home.picture(pipe, home.bare)
    assert torch.equal(run("sd", "deepcache:interval=3"), theirs)
    assert not torch.equal(run("sd", "deepcache:interval=2"), theirs)


def test_deepcache_needs_a_middle_block() -> None:
    """Its helper would fail on a UNet without one, as small ones are."""
    pipe = homes.HOMES["sd"].make()
    pipe.unet.mid_block = None
    assert parse("deepcache").refuses(pipe, homes.SETTING) == (
        "DeepCache wraps a UNet's middle block, and the one of this StableDiffusionPipeline has "
        "none."
    )


def test_tomesd_merges_what_the_package_merges() -> None:
    """The same latents as by its own patch, with its generator at the same seed."""
    package = pytest.importorskip("tomesd", reason="pip install --no-deps tomesd==0.1.3")
    home = homes.HOMES["sd"]
    pipe = home.make()
    package.apply_patch(pipe, ratio=0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = home.picture(pipe, home.bare)
    assert torch.equal(run("sd", "tomesd:ratio=0.5"), theirs)


@pytest.mark.parametrize("text", ["pab", "first_block_cache:threshold=0.5", "taylorseer"])
def test_caches_of_diffusers_skip_more_when_told_to(text: str) -> None:
    """They are at work, on a transformer without `enable_cache`; a longer reuse computes less."""
    more = {"pab": "pab:spatial=4", "taylorseer": "taylorseer:warm_up=1"}
    macs = [trial.tried("pixart_sigma", t).macs for t in (text, more.get(text, "ungated"))]
    assert macs[0] < 1
    if text in more:
        assert macs[1] < macs[0]


def test_faster_cache_runs_the_conditional_branch_alone() -> None:
    """In the run's second half, all but one call in five."""
    assert rows_of("pixart_sigma", "faster_cache") == [2, 2, 2, 1, 1, 2]


def test_mag_cache_is_calibrated_with_what_diffusers_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our ratios are those of its own calibrating run, whose pictures skip nothing."""
    from diffusers.hooks import MagCacheConfig, apply_mag_cache

    home = homes.HOMES["pixart_sigma"]
    ours = mag_cache.MagCache().calibrate(home.make(), home.setting)
    assert capsys.readouterr().out == ""
    pipe = home.make()
    config = MagCacheConfig(calibrate=True, num_inference_steps=home.setting.steps)
    apply_mag_cache(pipe.transformer, config)
    pipe(
        prompt="",
        num_inference_steps=home.setting.steps,
        guidance_scale=home.setting.guidance_scale,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    assert str(ours) in capsys.readouterr().out
    assert len(ours) == home.setting.steps


def test_mag_cache_skips_by_its_threshold() -> None:
    """A loose one skips, and what is skipped is not computed."""
    assert trial.tried("pixart_sigma", "mag_cache:threshold=5.0").macs < 0.8


def test_cache_dit_skips_by_its_threshold() -> None:
    """A loose one skips, after the warm-up."""
    assert trial.tried("pixart_sigma", "cache_dit:threshold=5.0,warm_up=2").macs < 0.8


def test_adaptive_guidance_never_looks_again() -> None:
    """Once its branches agree, one row a step to the end, as in the paper."""
    rows = rows_of("emoji-sd", "adaptive_guidance:threshold=0.5")
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] == 1
    assert parse("adaptive_guidance").adapts


def test_ours_says_what_it_did() -> None:
    """The report is the last run's, also when the block is left; others have none."""
    home, pipe = homes.HOMES["sd"], trial.pipe_of("sd")
    with parse("ours:policy=fixed_step,gate_step=2").apply(pipe, home.setting) as how:
        assert how.report() is None
        home.picture(pipe, how)
    report = how.report()
    assert report is not None
    assert report.closed["guidance"] == (2, 3, 4, 5)
    with parse("deepcache").apply(pipe, home.setting) as how:
        home.picture(pipe, how)
        assert how.report() is None


def test_ours_takes_any_policy_and_the_gate_s_options() -> None:
    """Policy, policy options, gate options and compose; what measures adapts."""
    made = parse("ours:policy=interleave,every=3,gates=guidance+cross,refresh=2,compose=block")
    assert made.spec.label == "interleave every=3 gates=guidance+cross refresh=2"
    assert made.compose == ("block",)
    assert not made.adapts
    assert parse("ours:policy=error_controlled").adapts
    assert parse("ours").spec.name == "interleave"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("deepcach", "no method is called 'deepcach'. Did you mean 'deepcache'?"),
        ("deepcache:intervall=3", "method 'deepcache' has no option 'intervall'. Did you mean"),
        ("ungated:steps=3", "method 'ungated' has no option 'steps'. It takes none."),
        ("fewer_steps", "method 'fewer_steps' needs steps: write fewer_steps:steps=..."),
        ("deepcache:", "ends with a colon: write deepcache:key=value, or deepcache."),
        ("deepcache:interval", "is no option: write key=value"),
        ("deepcache:interval=0", "interval=0 must be a whole number, 1 or more."),
        ("ours:policy=interleav", "Did you mean 'interleave'?"),
        ("ours:policy=interleave,evry=2", "policy 'interleave' has no option 'evry'"),
        ("ours:compose=blok", "Did you mean 'block'?"),
        ("text_window:mode=frist", "mode='frist' is unknown. Did you mean 'first'?"),
        ("text_window:mode=null,m=3", "m=3 means nothing to mode='null'"),
        ("tgate:gate_step=0.4", "did you mean fraction=0.4?"),
        ("tomesd:ratio=0.9", "ratio=0.9 must be a share of tokens"),
        ("cfg_cutoff:fraction=2", "fraction=2 must be above 0 and at most 1."),
    ],
)
def test_a_misspelt_method_names_the_nearest(text: str, said: str) -> None:
    """One sentence: what was asked, and what to type next."""
    with pytest.raises(tg.TGateError) as caught:
        parse(text)
    assert said in str(caught.value)


def test_labels_are_as_a_policy_s() -> None:
    """Name and options, a blank between them."""
    assert label("ours:policy=interleave,gates=guidance+cross") == (
        "ours policy=interleave gates=guidance+cross"
    )
    assert label("ungated") == "ungated"


def test_without_guidance_there_is_nothing_to_cut() -> None:
    """The reason names the scale, not a distilled model."""
    refused = parse("cfg_cutoff").refuses(trial.pipe_of("sd"), Setting(6, 1.0))
    assert refused == (
        "StableDiffusionPipeline has no unconditional branch to leave out: "
        "guidance_scale=1 runs without guidance."
    )
