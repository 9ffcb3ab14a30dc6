"""`pipe.tgate(...)` as people know it, without what they had to put up with."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tests.conftest import load_helper
from tgate_plugins import shim
from tgate_plugins.tgate import TGate
from tgate_sampling.errors import AlreadyGatedError, MissingExtraError, NoRunError, OptionError

families = load_helper("golden/tiny_families.py")
relative_l2 = load_helper("golden_io.py").relative_l2

# diffusers' schedulers hand tensors to numpy 2, which asks for an `__array__` that torch has not.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STEPS, GATE = 8, 3

SCHEDULE = {"gate_step": GATE, "sp_interval": 2, "warm_up": 0}


def run(call: Callable[..., Any], batch: int = 1, family: str = "sd", **more: Any) -> torch.Tensor:
    latents: torch.Tensor = families.FAMILIES[family].run(
        call, batch, **{"num_inference_steps": STEPS, **more}
    )
    return latents


def made(family: str = "sd") -> Any:
    return families.FAMILIES[family].make()


def gated(batch: int = 1, family: str = "sd", **schedule: Any) -> torch.Tensor:
    """What `tg.gate` gives on a fresh pipeline."""
    pipe = made(family)
    with tg.gate(pipe, "tgate", **schedule):
        return run(pipe, batch, family)


def test_a_call_is_the_gated_pipeline_s() -> None:
    """The method is `tg.gate(pipe, "tgate", ...)` around `pipe(...)`, and returns its output."""
    pipe = shim.install(made())
    assert torch.equal(run(pipe.tgate, **SCHEDULE), gated(**SCHEDULE))
    assert pipe.tgate.report.closed["guidance"] == tuple(range(GATE, STEPS))


def test_the_output_is_of_the_pipeline_s_own_type() -> None:
    """An object with `.images`, or a tuple where that is asked for."""
    pipe = shim.install(made())
    inputs = families.FAMILIES["sd"].inputs(1, torch.Generator().manual_seed(0))
    call = {**inputs, "num_inference_steps": 2, "output_type": "latent"}
    assert type(pipe.tgate(**call, gate_step=1)) is type(pipe(**call))
    assert isinstance(pipe.tgate(**call, gate_step=1, return_dict=False), tuple)


def test_the_defaults_are_t_gate_s() -> None:
    """10, 5, 1, 2, as the package has them."""
    pipe = shim.install(made())
    found = run(pipe.tgate, num_inference_steps=18)
    options = {"gate_step": 10, "sp_interval": 5, "fi_interval": 1, "warm_up": 2}
    assert torch.equal(found, run(shim.install(made()).tgate, num_inference_steps=18, **options))
    assert pipe.tgate.report.closed["cross"] == tuple(range(10, 18))
    assert pipe.tgate.report.closed["self"] == (3, 4, 6, 7, 8)


def test_what_was_said_when_loading_holds_until_a_call_says_otherwise() -> None:
    """One place to say it; the call wins."""
    pipe = shim.TgateSDLoader(made(), gate_step=2, sp_interval=1)
    run(pipe.tgate)
    assert pipe.tgate.report.closed["cross"] == tuple(range(2, STEPS))
    run(pipe.tgate, gate_step=5)
    assert pipe.tgate.report.closed["cross"] == tuple(range(5, STEPS))
    run(pipe.tgate)
    assert pipe.tgate.report.closed["cross"] == tuple(range(2, STEPS))
    assert repr(pipe.tgate) == "<tgate(gate_step=2, sp_interval=1) of StableDiffusionPipeline>"


# -- defects of the reference, by their names in docs/coming-from-tgate.md -------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_the_plain_pipeline_stays_the_plain_pipeline(batch: int) -> None:
    """A1, A2: after `pipe.tgate(...)`, `pipe(...)` is bitwise the untouched pipeline's."""
    pipe, untouched = shim.install(made()), run(made(), batch)
    assert relative_l2(run(pipe.tgate, batch, **SCHEDULE), untouched) > 0.1
    assert torch.equal(run(pipe, batch), untouched)


def test_another_size_after_a_gated_call_is_no_error() -> None:
    """A3: nothing of the last call's shape is left."""
    pipe = shim.install(made())
    run(pipe.tgate, **SCHEDULE)
    larger = {"height": 96, "width": 96, "latents": torch.ones(1, 4, 12, 12)}
    assert torch.equal(run(pipe, **larger), run(made(), **larger))


def test_a_gate_beyond_the_end_leaves_nothing_either() -> None:
    """A5: self-attention that was kept for the planning phase is not reused by the next call."""
    pipe = shim.install(made())
    run(pipe.tgate, gate_step=STEPS + 5, sp_interval=3)
    assert torch.equal(run(pipe), run(made()))


def test_a_pipeline_that_shares_the_backbone_is_not_touched() -> None:
    """A6: the parts of a pipeline may be used elsewhere."""
    import diffusers

    pipe = shim.install(made())
    run(pipe.tgate, **SCHEDULE)
    other = diffusers.StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    assert torch.equal(run(other), run(made()))
    assert not hasattr(other, "tgate")


def test_nothing_is_held_between_calls(kit: Any) -> None:
    """A9: classes, hooks, attributes and state-dict keys are as before."""
    pipe = made()
    before = kit.snapshot(pipe.unet)
    run(shim.install(pipe).tgate, **SCHEDULE)
    assert kit.snapshot(pipe.unet) == before
    del pipe.tgate
    assert "tgate" not in vars(pipe)


def test_an_exception_leaves_nothing_either(kit: Any) -> None:
    """A callback that raises in a gated step; the next call is a first call."""
    pipe = shim.install(made())
    before = kit.snapshot(pipe.unet)

    def stop(pipe: Any, index: int, timestep: Any, values: Any) -> Any:
        if index == GATE:
            raise KeyError("enough")
        return values

    with pytest.raises(KeyError, match="enough"):
        run(pipe.tgate, **SCHEDULE, callback_on_step_end=stop)
    assert kit.snapshot(pipe.unet) == before
    assert not pipe.tgate.report.complete
    assert torch.equal(run(pipe.tgate, **SCHEDULE), gated(**SCHEDULE))


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_run_without_guidance_is_gated_all_the_same(scale: float, batch: int) -> None:
    """B1: it neither crashes nor mixes prompts, and no `lcm=True` has to be said."""
    pipe = shim.install(made())
    found = run(pipe.tgate, batch, guidance_scale=scale, **SCHEDULE)
    assert pipe.tgate.report.closed["cross"] == tuple(range(GATE, STEPS))
    alone = run(pipe.tgate, batch, guidance_scale=scale, **SCHEDULE, lcm=True)
    assert torch.equal(found, alone)


def test_two_prompts_without_guidance_do_not_reach_each_other() -> None:
    """B1: image 0 does not move when prompt 1 changes."""
    pipe = shim.install(made())
    inputs = families.FAMILIES["sd"].inputs(2, torch.Generator().manual_seed(3))
    first = run(pipe.tgate, 2, guidance_scale=1.0, **SCHEDULE, **inputs)
    inputs["prompt_embeds"][1] += 1
    second = run(pipe.tgate, 2, guidance_scale=1.0, **SCHEDULE, **inputs)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_a_unet_that_takes_guidance_as_an_input_needs_no_lcm() -> None:
    """B2: `TgateSDXLLoader(pipe, lcm=True)`, the README's line, and without it, are the same."""
    told = shim.TgateSDXLLoader(made("lcm_sdxl"), lcm=True)
    seen = shim.TgateSDXLLoader(made("lcm_sdxl"))
    options = {"gate_step": 1, "sp_interval": 1, "warm_up": 0, "num_inference_steps": 4}
    found = run(told.tgate, 2, "lcm_sdxl", **options)
    assert torch.equal(found, run(seen.tgate, 2, "lcm_sdxl", **options))
    assert told.tgate.report.closed == {"cross": (1, 2, 3)}


@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart_alpha"])
def test_lcm_said_of_a_guided_run_changes_nothing(family: str) -> None:
    """B3, B4, B5: two branches are two branches."""
    pipe = shim.install(made(family))
    found = run(pipe.tgate, 2, family, **SCHEDULE, lcm=True)
    assert torch.equal(found, gated(2, family, **SCHEDULE))


def test_a_video_without_guidance_is_gated() -> None:
    """B5: its frames are not halved."""
    pipe = shim.TgateSVDLoader(made("svd"))
    scales = {"min_guidance_scale": 1.0, "max_guidance_scale": 1.0}
    assert run(pipe.tgate, 1, "svd", **SCHEDULE, **scales).isfinite().all()
    assert pipe.tgate.report.closed["cross"] == tuple(range(GATE, STEPS))


def test_call_after_call_each_is_a_fresh_pipeline_s() -> None:
    """B6, B8: batches, sizes and guidance in any order."""
    pipe = shim.install(made())
    session: list[tuple[int, dict[str, Any]]] = [
        (1, {}),
        (2, {}),
        (1, {"guidance_scale": 1.0}),
        (1, {"num_images_per_prompt": 2, "latents": torch.ones(2, 4, 8, 8)}),
        (1, {"height": 96, "width": 96, "latents": torch.ones(1, 4, 12, 12)}),
        (3, {"guidance_scale": 0.0}),
        (1, {}),
    ]
    for batch, call in session:
        found = run(pipe.tgate, batch, **SCHEDULE, **call)
        assert torch.equal(found, run(shim.install(made()).tgate, batch, **SCHEDULE, **call))


def test_an_attention_processor_of_one_s_own_is_called() -> None:
    """C1: what a user put in stays in use."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    calls = []

    class Counting(AttnProcessor2_0):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            return super().__call__(*args, **kwargs)

    pipe = shim.install(made())
    pipe.unet.set_attn_processor(Counting())
    found = run(pipe.tgate, **SCHEDULE)
    sites = sum(name.endswith(("attn1", "attn2")) for name, _ in pipe.unet.named_modules())
    reused = sum(
        len(r) for s in pipe.tgate.report.steps for c in s.calls for r in c.reused.values()
    )
    assert len(calls) == sites * STEPS - reused
    assert torch.equal(found, gated(**SCHEDULE))


def test_pipelines_the_reference_refuses_are_gated() -> None:
    """F2: image to image, through the pipeline's own call."""
    import diffusers

    pipe = diffusers.StableDiffusionImg2ImgPipeline(
        **made().components, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    texts = families.FAMILIES["sd"].inputs(1, torch.Generator().manual_seed(0))
    image = texts.pop("latents")
    call = {"num_inference_steps": 10, "output_type": "latent", "guidance_scale": 7.5}
    latents = (
        shim.install(pipe).tgate(image=image, strength=0.8, **texts, **call, gate_step=4).images
    )
    assert latents.isfinite().all()
    assert pipe.tgate.report.closed["guidance"] == (4, 5, 6, 7)


def test_a_scheduler_of_second_order_is_gated_by_steps() -> None:
    """G1: both evaluations of a step are decided at once, and the gate is where it was said."""
    import diffusers

    pipe = shim.install(made())
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    run(pipe.tgate, 2, **SCHEDULE)
    report = pipe.tgate.report
    assert report.closed["guidance"] == tuple(range(GATE, STEPS))
    assert [step.evaluations for step in report.steps] == [2] * (STEPS - 1) + [1]
    assert report.rows == (4 * 2 * GATE + 2 * (2 * (STEPS - GATE) - 1), 4 * (2 * STEPS - 1))


def test_pixart_alpha_runs_with_a_scheduler_that_warms_up() -> None:
    """G2: rows and guidance change in the same step."""
    import diffusers

    pipe = shim.TgatePixArtAlphaLoader(made("pixart_alpha"))
    config = pipe.scheduler.config
    pipe.scheduler = diffusers.PNDMScheduler.from_config(config, skip_prk_steps=True)
    assert run(pipe.tgate, 2, "pixart_alpha", **SCHEDULE).isfinite().all()
    assert pipe.tgate.report.closed["guidance"] == tuple(range(GATE, STEPS))


def cut_off(at: int) -> Callable[..., dict[str, Any]]:
    """A callback that turns guidance off after a step, as diffusers' own do for one prompt."""

    def callback(pipe: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        if index != at:
            return {}
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": values["prompt_embeds"].chunk(2)[1]}

    return callback


@pytest.mark.parametrize("at", [1, 4])
def test_guidance_that_a_callback_cuts_off_leaves_prompts_apart(at: int) -> None:
    """H1: before the gate or after it, two prompts give what each gives alone."""
    pipe = shim.install(made())
    inputs = families.FAMILIES["sd"].inputs(2, torch.Generator().manual_seed(3))
    call = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"], **SCHEDULE}
    both = run(pipe.tgate, 2, **inputs, **call, callback_on_step_end=cut_off(at))
    for index, image in enumerate(both):
        one = {name: rows[index : index + 1] for name, rows in inputs.items()}
        alone = run(pipe.tgate, 1, **one, **call, callback_on_step_end=cut_off(at))
        assert relative_l2(image, alone[0]) <= 1e-5


def test_the_reference_has_these_defects() -> None:
    """A1, B1, F2's swallowed names: the checks above see them where they are."""
    reference = pytest.importorskip("tgate", reason="NO DEFECT WAS SHOWN: no tgate==1.0.0 here")
    pipe, untouched = reference.TgateSDLoader(made()), run(made())
    run(pipe.tgate, **SCHEDULE)
    assert relative_l2(run(pipe), untouched) > 0.1
    with pytest.raises(ValueError, match="not enough values to unpack"):
        run(reference.TgateSDLoader(made()).tgate, guidance_scale=1.0, **SCHEDULE)
    misspelt = run(reference.TgateSDLoader(made()).tgate, gate_steps=GATE)
    assert torch.equal(misspelt, run(reference.TgateSDLoader(made()).tgate))


# -- what is said wrong is said back ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gate_steps": 3}, "has an option 'gate_steps': did you mean 'gate_step'"),
        ({"guidence_scale": 3}, "has an option 'guidence_scale': did you mean 'guidance_scale'"),
        ({"qqqq": 3}, "has an option 'qqqq': it takes gate_step, sp_interval, fi_interval, warm"),
        ({"gate_step": 0}, "gate_step=0 must be 1 or more"),
        ({"gate_step": 0.4}, "did you mean fraction=0.4"),
        ({"sp_interval": 0}, "sp_interval=0 must be a whole number, 1 or more"),
        ({"fi_interval": 0}, "fi_interval=0 must be a whole number, 1 or more"),
        ({"warm_up": -1}, "warm_up=-1 must be a whole number, 0 or more"),
        ({"lcm": 3}, "lcm=3 must be True or False"),
    ],
)
def test_a_wrong_option_gets_a_sentence_before_anything_runs(
    options: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E2, E3: also where the pipeline itself would swallow the name."""
    pipe = shim.install(made())
    monkeypatch.setattr(pipe.unet, "forward", pytest.fail)
    with pytest.raises(OptionError, match=sentence):
        run(pipe.tgate, **options)


def test_wrong_options_are_found_when_loading() -> None:
    """Not in the middle of the first run."""
    with pytest.raises(OptionError, match="gate_step=0 must be 1 or more"):
        shim.TgateSDLoader(made(), gate_step=0)
    with pytest.raises(OptionError, match=r"no option 'gatestep'\. Did you mean 'gate_step'"):
        shim.TgateSDLoader(made(), gatestep=3)


@pytest.mark.filterwarnings("ignore:`callback:FutureWarning")
def test_what_pipelines_take_without_naming_it_is_passed_on() -> None:
    """`callback` is read from `**kwargs` by diffusers' pipelines."""
    seen: list[int] = []
    pipe = shim.install(made())
    run(pipe.tgate, **SCHEDULE, callback=lambda i, t, x: seen.append(i), callback_steps=1)
    assert seen == list(range(STEPS))


def test_what_is_no_pipeline_is_refused() -> None:
    """With the way to gate it all the same."""
    with pytest.raises(OptionError, match="UNet2DConditionModel is no diffusers pipeline"):
        shim.install(made().unet)


def test_there_is_no_report_before_a_run() -> None:
    """The sentence says what to do."""
    with pytest.raises(NoRunError, match=r"call pipe\.tgate"):
        _ = shim.install(made()).tgate.report


def test_a_call_inside_another_gating_is_refused() -> None:
    """Two schedules at once would be nobody's."""
    pipe = shim.install(made())
    with tg.gate(pipe, "never"), pytest.raises(AlreadyGatedError, match="by never"):
        run(pipe.tgate)


# -- the names -------------------------------------------------------------------------------------

NAMES = (
    "TgatePixArtAlphaLoader",
    "TgatePixArtSigmaLoader",
    "TgateSDDeepCacheLoader",
    "TgateSDLoader",
    "TgateSDXLDeepCacheLoader",
    "TgateSDXLLoader",
    "TgateSVDLoader",
)


@pytest.mark.parametrize("name", NAMES)
def test_each_loader_takes_what_the_reference_s_takes(name: str) -> None:
    """The same first arguments, with the same defaults."""
    reference = pytest.importorskip(
        "tgate",
        reason="SIGNATURES WERE NOT COMPARED: the reference is not installed "
        "(pip install --no-deps tgate==1.0.0)",
    )
    theirs, ours = (
        [
            (p.name, p.default)
            for p in inspect.signature(getattr(package, name)).parameters.values()
            if p.kind is not p.VAR_KEYWORD
        ]
        for package in (reference, shim)
    )
    assert ours == theirs


def test_every_loader_of_the_reference_is_there() -> None:
    """None is missing, none is invented."""
    reference = pytest.importorskip("tgate", reason="NAMES WERE NOT COMPARED: no tgate==1.0.0 here")
    theirs = sorted(name for name in vars(reference) if name.endswith("Loader"))
    assert theirs == sorted(n for n in vars(shim) if n.endswith("Loader")) == list(NAMES)


# -- DeepCache -------------------------------------------------------------------------------------

DEEPCACHE = [("sd", "TgateSDDeepCacheLoader"), ("sdxl", "TgateSDXLDeepCacheLoader")]


@pytest.mark.parametrize("gate_step", [1, 4, 10])
@pytest.mark.parametrize(("family", "loader"), DEEPCACHE)
def test_deepcache_runs_in_the_call_and_only_there(
    kit: Any, family: str, loader: str, gate_step: int
) -> None:
    """The latents are the reference's, which leaves DeepCache on; here the pipeline stays bare."""
    reference = pytest.importorskip(
        "tgate", reason="DEEPCACHE WAS NOT COMPARED: no tgate==1.0.0 here"
    )
    pipe = made(family)
    before = kit.snapshot(pipe.unet)
    getattr(shim, loader)(pipe)
    settings = {"gate_step": gate_step, "num_inference_steps": 18}
    found = run(pipe.tgate, 2, family, **settings)
    theirs = run(getattr(reference, loader)(made(family)).tgate, 2, family, **settings)
    other = getattr(shim, loader)(made(family), cache_interval=2)
    assert (
        relative_l2(found, theirs)
        <= 1e-5
        < relative_l2(run(other.tgate, 2, family, **settings), theirs)
    )
    assert any(c.skipped for s in pipe.tgate.report.steps for c in s.calls)
    assert kit.snapshot(pipe.unet) == before
    assert torch.equal(run(pipe, 2, family), run(made(family), 2, family))


def test_deepcache_with_self_attention_intervals_repeats_itself() -> None:
    """B9: the second of two equal calls with two prompts is the first, and no error."""
    pipe = shim.TgateSDDeepCacheLoader(made(), cache_interval=2, sp_interval=2, gate_step=5)
    first, second = (run(pipe.tgate, 2) for _ in range(2))
    assert torch.equal(first, second)


def test_an_exception_takes_deepcache_off(kit: Any) -> None:
    """The forwards are those from before the call."""
    pipe = shim.TgateSDDeepCacheLoader(made())
    before = kit.snapshot(pipe.unet)

    def stop(*_: Any) -> Any:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run(pipe.tgate, callback_on_step_end=stop)
    assert kit.snapshot(pipe.unet) == before


def test_a_second_deepcache_helper_is_refused() -> None:
    """Two helpers on one UNet call each other for ever."""
    from DeepCache import DeepCacheSDHelper

    pipe = shim.TgateSDDeepCacheLoader(made())
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2)
    helper.enable()
    with pytest.raises(OptionError, match="is enabled on this UNet already"):
        run(pipe.tgate)
    helper.disable()
    assert run(pipe.tgate).isfinite().all()


def test_deepcache_loaders_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, or a UNet to cut."""
    with pytest.raises(OptionError, match="PixArtAlphaPipeline has none: load it without"):
        shim.TgateSDDeepCacheLoader(made("pixart_alpha"))
    monkeypatch.setitem(sys.modules, "DeepCache", None)
    with pytest.raises(MissingExtraError, match=r"tgate-sampling\[deepcache\]"):
        shim.TgateSDDeepCacheLoader(made())


# -- the page ------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-tgate.md"


def test_the_page_s_example_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """On the model that ships with the project, and its last lines are true."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert "guidance .........." + "#" * 15 in capsys.readouterr().out
    assert not hasattr(names["pipe"], "tgate")
    assert names["image"].size == names["plain"].size


def test_the_page_says_the_defaults_there_are() -> None:
    """Those of the policy, and those of the DeepCache loaders."""
    plain = TGate()
    cached = TGate(**shim.FIRST_SCHEDULE)
    said = [", ".join(str(getattr(p, n)) for n in shim.OPTIONS[:4]) for p in (plain, cached)]
    assert f"| {said[0]}; with DeepCache {said[1]} |" in PAGE.read_text()
