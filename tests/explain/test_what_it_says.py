"""What `explain` takes, what it prints, and what it refuses."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tgate_sampling as tg
from tgate_sampling.policy import DEFAULT_POLICY
from tgate_sampling.testing import tiny_unet

GIVEN: dict[str, Any] = {"steps": 6, "tokens": 7}


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet()


def config_of(unet: Any) -> dict[str, Any]:
    return {**unet.config, "_class_name": "UNet2DConditionModel"}


def test_a_configuration_is_as_good_as_the_model(unet: Any) -> None:
    """Numbers for a model that was never loaded."""
    loaded = tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    assert tg.explain(config_of(unet), "fixed_step", gate_step=2, **GIVEN) == loaded


def test_a_model_s_folder_is_as_good_as_its_configuration(unet: Any, tmp_path: Path) -> None:
    """Of a backbone, or of a whole pipeline; other components are passed over."""
    wanted = tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    unet.save_config(tmp_path / "pipeline" / "unet")
    (tmp_path / "pipeline" / "text_encoder").mkdir()
    (tmp_path / "pipeline" / "text_encoder" / "config.json").write_text('{"hidden_size": 8}')
    for folder in (tmp_path / "pipeline", str(tmp_path / "pipeline" / "unet")):
        assert tg.explain(folder, "fixed_step", gate_step=2, **GIVEN) == wanted


def test_the_default_policy_is_gate_s(unet: Any) -> None:
    """Without a policy, what `gate(pipe)` would do is explained."""
    assert tg.explain(unet, **GIVEN).policy == f"{DEFAULT_POLICY}()"


def test_nothing_runs(unet: Any) -> None:
    """The real backbone is not called."""
    calls: list[str] = []
    handle = unet.register_forward_pre_hook(lambda *_: calls.append("called"))
    tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    handle.remove()
    assert calls == []


def test_a_second_policy_on_the_same_model_is_not_counted_again(
    unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seconds of a full-size count are spent once."""
    first = tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    monkeypatch.setattr("tgate_sampling.cost.count", pytest.fail)
    assert tg.explain(unet, "fixed_step", gate_step=2, **GIVEN) == first
    assert tg.explain(unet, "tgate", gate_step=2, **GIVEN).macs.ungated == first.macs.ungated


def test_what_was_explained_is_not_kept_alive() -> None:
    """What is remembered of a model is its configuration."""
    unet = tiny_unet(seed=1)
    alive = weakref.ref(unet)
    tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    del unet
    gc.collect()
    assert alive() is None


def test_a_prediction_prints_its_table(unet: Any) -> None:
    """Every number a user would ask for, with its unit."""
    prediction = tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    assert str(prediction).splitlines() == [
        "fixed_step(gate_step=2) on UNet2DConditionModel: 6 steps, "
        "2 rows a call (uncond, cond) of 4x8x8, 7 tokens",
        "MACs           12.043 M of 18.466 M (1.533x); without attention's own products "
        "10.305 M of 15.707 M",
        "backbone rows  8 of 12",
        "cache          15.00 KiB at most",
        "gate         closed       saves   share    alone  cache at peak",
        "guidance     4 of 6     6.155 M   33.3%   1.500x       1.00 KiB",
        "cross        4 of 6      267264    1.4%   1.015x      14.00 KiB",
    ]


def test_a_range_prints_both_ends(unet: Any) -> None:
    """And says which they are."""
    text = str(tg.explain(unet, "convergence", **GIVEN))
    assert (
        "decides in the run: between never closing, 18.466 M MACs (1.000x), and closing right "
        "after the first step, which is:" in text
    )
    assert "note           cross stays open before half of 6 steps" in text


def test_a_policy_that_closes_nothing_says_so(unet: Any) -> None:
    """No empty table."""
    assert str(tg.explain(unet, "never", **GIVEN)).endswith("no gate closes")


def test_a_prediction_is_plain_values_for_json(unet: Any) -> None:
    """The same keys as a report's, where they mean the same."""
    prediction = tg.explain(unet, "convergence", **GIVEN)
    read = json.loads(json.dumps(prediction.to_dict()))
    assert read["rows"] == {"ran": 7, "asked": 12}
    assert read["macs"]["done"]["true"] == prediction.macs.done.true
    assert read["gates"]["guidance"]["steps"] == [1, 2, 3, 4, 5]
    assert read["unclosed"]["rows"] == {"ran": 12, "asked": 12}
    report_keys = {"policy", "backbone", "rows", "macs", "peak_cache_bytes"}
    assert report_keys <= set(read)


def test_a_prediction_is_a_frozen_value(unet: Any) -> None:
    """It can be compared, and not be written to."""
    prediction = tg.explain(unet, "never", **GIVEN)
    with pytest.raises(AttributeError):
        prediction.steps = 3  # type: ignore[misc]


def run(kit: Any, pipe: Any, policy: str, *, steps: int = 6, **options: Any) -> tg.Report:
    with tg.gate(pipe, policy, **options) as gating:
        kit.call(pipe, steps=steps)
    report: tg.Report = gating.report
    return report


def test_predicted_and_counted_stand_side_by_side(kit: Any) -> None:
    """Equal numbers give a ratio of one."""
    pipe = kit.make_pipe()
    prediction = tg.explain(pipe, "fixed_step", gate_step=2, height=16, width=16, **GIVEN)
    assert prediction.compare(run(kit, pipe, "fixed_step", gate_step=2)).splitlines() == [
        "                                    predicted      counted   ratio",
        "MACs                                 12.043 M     12.043 M   1.000",
        "  without products                   10.305 M     10.305 M   1.000",
        "  saved by guidance                   6.155 M      6.155 M   1.000",
        "  saved by cross                       267264       267264   1.000",
        "backbone rows                               8            8   1.000",
        "cache at peak                       15.00 KiB    15.00 KiB   1.000",
    ]


def test_a_range_stands_beside_what_was_counted(kit: Any) -> None:
    """Both ends, and no ratio."""
    pipe = kit.make_pipe()
    prediction = tg.explain(pipe, "convergence", height=16, width=16, steps=12, tokens=7)
    text = prediction.compare(run(kit, pipe, "convergence", steps=12))
    assert "13 to 24" in text.splitlines()[-2]
    assert "1.000" not in text.splitlines()[1]


def test_a_run_of_other_length_is_pointed_out(kit: Any) -> None:
    """Ratios of unlike things are not left to speak for themselves."""
    pipe = kit.make_pipe()
    prediction = tg.explain(pipe, "fixed_step", gate_step=2, height=16, width=16, **GIVEN)
    text = prediction.compare(run(kit, pipe, "fixed_step", gate_step=2, steps=8))
    assert text.endswith("the run took 8 steps, and 6 were predicted")


def test_perturbed_attention_keeps_guidance_open_in_the_prediction(kit: Any) -> None:
    """A pipeline that says why guidance cannot close is believed beforehand."""
    pipe = kit.make_pipe()
    type(pipe).do_perturbed_attention_guidance = True
    try:
        prediction = tg.explain(pipe, "fixed_step", gate_step=2, height=16, width=16, **GIVEN)
    finally:
        del type(pipe).do_perturbed_attention_guidance
    assert prediction.rows == (12, 12)
    assert any("perturbed-attention" in note for note in prediction.notes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps=0 must be a whole number, 1 or more"),
        ({"batch": 1.5}, "batch=1.5 must be a whole number"),
        ({"policy": "fixd_step"}, "Did you mean 'fixed_step'"),
        ({"gate_step": 3}, "gate_step without a policy"),
        ({"policy": "fixed_step", "gate_stp": 3}, "has no option 'gate_stp'"),
        ({"policy": "fixed_step", "gate_step": 3, "refresh": 0}, "refresh=0 must be"),
        ({"policy": "interleave", "merge": "mean"}, "cannot go with estimator='linear'"),
        ({"policy": "interleave", "compose": ["deepcache"]}, "no enabled DeepCacheSDHelper"),
        ({"policy": "block", "branch": 99}, "has the branches 0 to 5"),
    ],
)
def test_a_wrong_option_is_named_as_gate_names_it(
    unet: Any, options: dict[str, Any], says: str
) -> None:
    """The same sentences, before anything is counted twice."""
    with pytest.raises(tg.TGateError, match=says):
        tg.explain(unet, **{"tokens": 7, **options})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "no adapter knows a backbone of _class_name 'None'"),
        ({"_class_name": "UNet2DConditionModle"}, "Did you mean 'UNet2DConditionModel'"),
        ({"_class_name": "UNet2DConditionModel"}, "has no sample_size: pass height and width"),
        (
            {"_class_name": "UNet2DConditionModel", "sample_size": 8, "num_class_embeds": 10},
            "does not know how to call this backbone without weights",
        ),
    ],
)
def test_a_configuration_that_cannot_be_explained_says_why(
    config: dict[str, Any], says: str
) -> None:
    """And what to do instead."""
    small = {"block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 2}
    small |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    small |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    with pytest.raises(tg.TGateError, match=says):
        tg.explain({**small, **config} if config else config, "never")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """A name on a hub is no folder."""
    with pytest.raises(tg.TGateError, match=r"holds no config\.json of a backbone"):
        tg.explain(tmp_path, "never")
    with pytest.raises(tg.TGateError, match="someone/some-model"):
        tg.explain("someone/some-model", "never")


def test_an_adapter_without_recipes_is_refused_by_name(kit: Any) -> None:
    """What cannot be built without weights cannot be explained."""
    with (
        kit.plugged(kit.AffinePlugin(), "affine"),
        pytest.raises(tg.TGateError, match="'affine' does not know how to build this backbone"),
    ):
        tg.explain(kit.Affine(), "never")


def test_a_module_nobody_knows_is_refused_by_name() -> None:
    """As `gate` refuses it."""
    with pytest.raises(tg.TGateError, match="no adapter knows Linear"):
        tg.explain(nn.Linear(2, 2), "never")


def test_a_mixed_dtype_is_the_first_parameter_s(unet: Any) -> None:
    """And a given one comes before it."""
    half = tg.explain(unet, "fixed_step", gate_step=2, dtype=torch.float16, **GIVEN)
    full = tg.explain(unet, "fixed_step", gate_step=2, **GIVEN)
    assert half.peak_cache_bytes * 2 == full.peak_cache_bytes
