"""A mistake is one sentence with its cure, before anything is touched."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import tgate_sampling as tg
from tgate_sampling.errors import (
    AlreadyGatedError,
    MissingExtraError,
    OptionError,
    TGateError,
    UnknownNameError,
    UnsupportedBackboneError,
)
from tgate_sampling.testing import tiny_unet

FIXED: dict[str, Any] = {"policy": "fixed_step", "gate_step": 3}

MISTAKES: list[tuple[dict[str, Any], type[TGateError], str]] = [
    # The policy and its options.
    (
        {"policy": "fixd_step"},
        UnknownNameError,
        "no policy is called 'fixd_step'. Did you mean 'fixed_step'",
    ),
    ({"policy": "nothing like it"}, UnknownNameError, "Known: .*fixed_step.*tgate"),
    (
        {"policy": "fixed_step", "gatestep": 3},
        OptionError,
        "no option 'gatestep'. Did you mean 'gate_step'",
    ),
    ({"policy": "never", "gate_step": 3}, OptionError, "policy 'never' has no option 'gate_step'"),
    ({"policy": "fixed_step", "gate_step": 0}, OptionError, "gate_step=0 must be 1 or more"),
    ({"policy": "fixed_step", "gate_step": 0.4}, OptionError, r"did you mean fraction=0\.4\?"),
    (
        {"policy": "fixed_step", "fraction": 0.0},
        OptionError,
        r"fraction=0\.0 must be above 0 and at most 1",
    ),
    (
        {"policy": "fixed_step", "fraction": 1.01},
        OptionError,
        r"fraction=1\.01 must be above 0 and at most 1",
    ),
    ({"policy": "fixed_step", "fraction": 10}, OptionError, r"Did you mean gate_step=10\?"),
    ({"policy": "fixed_step"}, OptionError, "takes one of gate_step, fraction and sigma"),
    ({"policy": None, "gate_step": 3}, OptionError, "gate_step without a policy: name the policy"),
    ({"policy": 3}, OptionError, "policy=3 is neither a name, a policy nor a function"),
    (
        {"policy": tg.get_policy("never"), "gate_step": 3},
        OptionError,
        "options go with a policy's name",
    ),
    # Options of gate() itself: reserved, and so never a policy's.
    (
        {**FIXED, "layout": "uncond"},
        OptionError,
        "layout='uncond' is unknown. Did you mean 'uncond_first'",
    ),
    (
        {**FIXED, "estimator": "hodl"},
        OptionError,
        "estimator='hodl' is unknown. Did you mean 'hold'",
    ),
    (
        {**FIXED, "merge": "average"},
        OptionError,
        "merge='average' is unknown. Known: both, cond, mean",
    ),
    ({**FIXED, "refresh": 0}, OptionError, "refresh=0 must be a whole number of steps, 1 or more"),
    ({**FIXED, "refresh": 1.5}, OptionError, "refresh=1.5 must be a whole number"),
    ({**FIXED, "refresh": True}, OptionError, "refresh=True must be a whole number"),
    # What cannot go together.
    (
        {**FIXED, "merge": "mean"},
        OptionError,
        "merge='mean' cannot go with estimator='hold'.*estimator='none'",
    ),
    (
        {**FIXED, "merge": "mean", "estimator": "hold"},
        OptionError,
        "cannot go with estimator='hold'",
    ),
    (
        {"policy": "tgate", "estimator": "hold"},
        OptionError,
        "cannot go with estimator='hold'.*'none'",
    ),
    (
        {"policy": "tgate", "estimator": "hold", "merge": "cond"},
        OptionError,
        "rows='uncond' cannot go with",
    ),
    # Composition.
    (
        {**FIXED, "compose": ["deepcash"]},
        UnknownNameError,
        "compose='deepcash' is unknown. Did you mean 'deepcache'",
    ),
    (
        {**FIXED, "compose": ["deepcache"]},
        OptionError,
        r"no enabled DeepCacheSDHelper.*helper\.enable\(\)",
    ),
    ({**FIXED, "compose": "deepcache"}, OptionError, r"no enabled DeepCacheSDHelper"),
    ({**FIXED, "compose": ["tgate"]}, OptionError, "both close"),
]


@pytest.mark.parametrize("where", ["pipeline", "backbone"])
@pytest.mark.parametrize(
    ("options", "error", "says"), MISTAKES, ids=[f"{i}" for i in range(len(MISTAKES))]
)
def test_a_wrong_option_is_one_sentence(
    kit: Any, where: str, options: dict[str, Any], error: type[TGateError], says: str
) -> None:
    """For gate and attach, pipelines and backbones: what was asked, what to type; the model is as
    it was."""
    pipe = kit.make_pipe()
    target = pipe if where == "pipeline" else pipe.unet
    before = kit.snapshot(pipe.unet)
    for use in (tg.gate, tg.attach):
        with pytest.raises(error, match=says) as caught:
            use(target, **options)
        assert "\n" not in str(caught.value)
    assert kit.snapshot(pipe.unet) == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy": "fixd_step"}, "Did you mean 'fixed_step'"),
        ({"policy": "fixed_step", "gate_step": 0}, "gate_step=0 must be 1 or more"),
        ({"policy": None, "gate_step": 3}, "gate_step without a policy"),
        ({"policy": "never", "evals_per_step": 0}, "evals_per_step=0 must be 1 or more"),
    ],
)
def test_wrap_sampler_says_the_same_before_it_samples(options: dict[str, Any], says: str) -> None:
    """A wrong option is found when wrapping, not in the run."""
    with pytest.raises(OptionError, match=says):
        tg.wrap_sampler(lambda model, x, sigmas: x, **options)


@pytest.mark.parametrize(
    ("sampler", "error", "says"),
    [
        ("eulr", UnknownNameError, "no sampler is called 'eulr'. Did you mean 'euler'"),
        (3, OptionError, "sampler=3 is neither a function nor a name"),
    ],
)
def test_a_wrong_sampler_is_one_sentence(sampler: Any, error: Any, says: str) -> None:
    """An unknown name, or no sampler at all."""
    with pytest.raises(error, match=says):
        tg.wrap_sampler(sampler, "never")


class Stranger(nn.Module):
    """A backbone that no adapter knows."""

    def forward(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        return sample


def test_an_unknown_backbone_is_named_with_the_adapters_there_are(kit: Any) -> None:
    """On its own or in a pipeline: its class, every adapter with its models, and the hook."""
    pipe = kit.make_pipe()
    pipe.unet = Stranger()
    for target in (Stranger(), pipe):
        with pytest.raises(UnsupportedBackboneError) as caught:
            tg.gate(target, **FIXED)
        assert "no adapter knows Stranger" in str(caught.value)
        assert "diffusers-unet (UNet2DConditionModel, " in str(caught.value)
        assert "tgate_register_adapters" in str(caught.value)


@pytest.mark.parametrize("target", [None, 3, "pipe", SimpleNamespace(unet=1)])
def test_what_is_no_target_is_one_sentence(target: Any) -> None:
    """Neither a pipeline nor a module."""
    with pytest.raises(UnsupportedBackboneError, match="neither a pipeline nor a backbone"):
        tg.gate(target, **FIXED)


def test_a_pipeline_without_a_backbone_asks_for_one() -> None:
    """Where nothing is called unet, transformer, ...: pass backbone=."""
    pipe = SimpleNamespace(scheduler=None, components={})
    with pytest.raises(UnsupportedBackboneError, match=r"has none of unet, .*pass backbone="):
        tg.gate(pipe, **FIXED)


def test_backbone_says_which_module_is_gated(kit: Any) -> None:
    """A pipeline may hold several; the one named is gated, and must be known."""
    pipe, other = kit.make_pipe(), tiny_unet(seed=1)
    with tg.gate(pipe, **FIXED, backbone=other) as gating:
        assert gating.backbone is other
    with pytest.raises(UnsupportedBackboneError, match="no adapter knows AutoencoderKL"):
        tg.gate(pipe, **FIXED, backbone=pipe.vae)


def test_a_second_gating_is_refused_on_entering(kit: Any) -> None:
    """And touches nothing."""
    pipe = kit.make_pipe()
    with tg.gate(pipe, **FIXED):
        inside = kit.snapshot(pipe.unet)
        second = tg.gate(pipe, "never")
        with pytest.raises(AlreadyGatedError, match=r"fixed_step\(gate_step=3\)"):
            second.__enter__()
        assert kit.snapshot(pipe.unet) == inside


def test_a_missing_extra_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without diffusers tiny_unet() says what to install; without k-diffusion a sampler does."""
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tgate-sampling\[diffusers\]'"):
        tiny_unet()
    monkeypatch.setitem(sys.modules, "k_diffusion", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tgate-sampling\[kdiffusion\]'"):
        tg.wrap_sampler("euler", "never")


def test_a_call_without_a_sample_is_one_sentence(kit: Any) -> None:
    """What the backbone was called without; and the gating is usable after it."""
    unet = tiny_unet()
    with tg.gate(unet, layout="uncond_first", **FIXED) as gating:
        for _ in gating.steps([1]):
            with pytest.raises(
                TypeError, match="UNet2DConditionModel was called without a tensor 'sample'"
            ):
                unet(None, 1, encoder_hidden_states=None)
        kit.walk(unet, [901, 601, 301, 1], gating=gating)
    assert gating.report.rows == (7, 8)


def test_the_tree_is_caught_by_the_builtins_users_know() -> None:
    """An OptionError is a ValueError, an UnsupportedBackboneError a TypeError, and so on."""
    assert issubclass(OptionError, ValueError)
    assert issubclass(UnsupportedBackboneError, TypeError)
    assert issubclass(AlreadyGatedError, RuntimeError)
    assert issubclass(MissingExtraError, ImportError)
    assert issubclass(UnknownNameError, OptionError)
