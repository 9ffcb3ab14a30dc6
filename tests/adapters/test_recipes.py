"""Calls made up for a backbone are calls it takes: of the size asked, cuttable, countable."""

from __future__ import annotations

import dataclasses
import inspect
import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

import tgate_sampling as tg
from tests.backbones.models import MODELS, WARNINGS
from tgate_adapters import diffusers_dit, diffusers_mmdit, diffusers_unet
from tgate_adapters.description import Ask, Backbone
from tgate_sampling.adapter import Adapter
from tgate_sampling.backbones import adapter_for
from tgate_sampling.cost import count, shape_key, to_meta
from tgate_sampling.errors import UnsupportedBackboneError
from tgate_sampling.testing.batches import filled

#: Chroma's own use of what diffusers has deprecated.
DEPRECATED = "ignore:`FluxPosEmbed` is deprecated:FutureWarning"
pytestmark = [pytest.mark.filterwarnings(text) for text in (*WARNINGS, DEPRECATED)]

DESCRIBED: dict[str, Backbone] = {
    **diffusers_unet.TABLE,
    **diffusers_dit.TABLE,
    **diffusers_mmdit.TABLE,
}
TINY = [name for name in MODELS if name.partition(":")[0] in DESCRIBED]

#: Configurations that take more than a recipe knows.
REFUSED = {"UNet2DConditionModel:upscaler"}

#: Forwards that break off without weights, so that nothing can be counted.
UNCOUNTED = {
    "AnyFlowFARTransformer3DModel",
    "ErnieImageTransformer2DModel",
    "GlmImageTransformer2DModel",
    "HeliosTransformer3DModel",
    "HiDreamImageTransformer2DModel",
    "HunyuanVideo15Transformer3DModel",
    "HunyuanVideoFramepackTransformer3DModel",
    "Lumina2Transformer2DModel",
    "MochiTransformer3DModel",
    "NucleusMoEImageTransformer2DModel:moe",
}
CALLED = [name for name in TINY if name not in REFUSED]
COUNTED = [name for name in CALLED if name not in UNCOUNTED]

#: Latents that the tiny backbones take, where these are not 8 by 8.
SIDES = {
    "Kandinsky3UNet": 16,
    "LTXVideoTransformer3DModel": 4,
    "LTX2VideoTransformer3DModel": 4,
    # A token a latent, as their pipelines count.
    "BriaTransformer2DModel": 4,
    "BriaFiboTransformer2DModel": 4,
}

#: Of these a call in `tests/backbones` differs: in frames, in an image beside the text, or in the
#: length of the second text, none of which can be asked for.
OTHERWISE = {
    "AnyFlowTransformer3DModel",
    "AudioLDM2UNet2DConditionModel",
    "ChronoEditTransformer3DModel",
    "CosmosTransformer3DModel",
    "EasyAnimateTransformer3DModel",
    "HunyuanVideoTransformer3DModel",
    "I2VGenXLUNet",
    "JoyImageEditTransformer3DModel",
    "Kandinsky5Transformer3DModel",
    "Kandinsky6Transformer3DModel",
    "LTX2VideoTransformer3DModel",
    "LTXVideoTransformer3DModel",
    "MotifVideoTransformer3DModel",
    "SanaVideoTransformer3DModel",
    "SkyReelsV2Transformer3DModel",
    "UNet3DConditionModel",
    "UNetMotionModel",
    "WanAnimateTransformer3DModel",
    "WanTransformer3DModel",
    "WanVACETransformer3DModel",
}

every = pytest.mark.parametrize("name", CALLED)
every_counted = pytest.mark.parametrize("name", COUNTED)


def kind(name: str) -> str:
    """The class of a row of `MODELS`."""
    return name.partition(":")[0]


@cache
def model(name: str) -> nn.Module:
    built: nn.Module = MODELS[name].build()
    return built


@cache
def weightless(name: str) -> nn.Module:
    """The same on the meta device, as reports and predictions make it."""
    blueprint = adapter_for(model(name)).blueprint(model(name))
    assert blueprint is not None
    return blueprint()


def tokens(name: str) -> int:
    """Length of the tiny backbone's text."""
    texts = MODELS[name].inputs(1)[MODELS[name].text[0]]
    first = texts[0]
    return len(first) if first.ndim else 5


def asked(name: str, backbone: nn.Module, rows: int = 2) -> dict[str, Any]:
    """A call of a backbone as its recipe makes it, at the size of the tiny one."""
    side = SIDES.get(kind(name), 8)
    size = {"height": side, "width": side, "tokens": tokens(name)}
    made = adapter_for(backbone).example_inputs(backbone, rows=rows, **size)
    assert made is not None
    args, kwargs = made
    assert args == ()
    return kwargs


def answer(backbone: nn.Module, call: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        return adapter_for(backbone).output(backbone(**call))


def cut(backbone: nn.Module, call: dict[str, Any], part: slice) -> dict[str, Any]:
    """Some rows of a call of two."""
    return adapter_for(backbone).take(backbone, (), call, 2, part)[1]


_costs: dict[tuple[int, str], float] = {}


def macs(backbone: nn.Module, call: dict[str, Any]) -> float:
    """Counted once for equal shapes: counting takes ten times as long as running."""
    key = (id(backbone), shape_key(call))
    if key not in _costs:
        _costs[key] = count(backbone, (), call)[""].true
    return _costs[key]


def test_every_described_class_has_a_recipe_and_is_tried() -> None:
    """A row of a table without one, or without a tiny backbone, is found here."""
    assert {m for m, about in DESCRIBED.items() if about.recipe is None} == set()
    assert set(DESCRIBED) == {kind(name) for name in CALLED}
    assert {*REFUSED, *UNCOUNTED} <= set(TINY)
    assert {*SIDES, *OTHERWISE} <= set(DESCRIBED)


@every
def test_half_the_rows_give_half_the_answer(name: str) -> None:
    """What `take` leaves of a made-up call is a call: its rows come out as they did beside others.

    Their contents are random, and so differ from row to row wherever they are cut.
    """
    backbone = model(name)
    call = filled(asked(name, backbone), torch.Generator().manual_seed(0))
    both = answer(backbone, call)
    assert both.isfinite().all()
    for row in range(2):
        alone = answer(backbone, cut(backbone, call, slice(row, row + 1)))
        assert alone.shape == (1, *both.shape[1:])
        torch.testing.assert_close(alone, both[row : row + 1], rtol=1e-3, atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 1e-2


@every
def test_the_latents_are_as_large_as_asked(name: str) -> None:
    """Rows first; height and width are found again in the shape, or their product where packed."""
    backbone, side = model(name), SIDES.get(kind(name), 8)
    sample = adapter_for(backbone).read(backbone, (), asked(name, backbone, rows=3)).sample
    rows, *rest = sample.shape
    assert rows == 3
    spans = math.prod(rest) % (side * side) == 0 and (rest.count(side) >= 2 or sample.ndim == 3)
    sound = sample.ndim == 3 and side in rest
    assert spans or sound


@every_counted
def test_a_call_without_weights_runs_and_is_counted(name: str) -> None:
    """Two rows cost twice what one costs, and half the call is half the answer here too."""
    backbone = weightless(name)
    one, two = (asked(name, backbone, rows=rows) for rows in (1, 2))
    half = answer(backbone, cut(backbone, two, slice(0, 1)))
    assert half.is_meta
    assert half.shape == answer(backbone, one).shape
    assert 0 < macs(backbone, one) < math.inf
    assert macs(backbone, two) == pytest.approx(2 * macs(backbone, one), rel=0.02)


@pytest.mark.parametrize("name", [name for name in COUNTED if kind(name) not in OTHERWISE])
def test_a_made_up_call_costs_what_a_pipeline_s_call_costs(name: str) -> None:
    """The other is written down in `tests/backbones`, from the pipelines, and not from recipes."""
    theirs = MODELS[name].inputs(2) | MODELS[name].timestep(2, 500.0)
    ours = macs(weightless(name), asked(name, weightless(name)))
    assert ours == pytest.approx(macs(weightless(name), to_meta(theirs)), rel=0.02)


@pytest.mark.parametrize("name", sorted(UNCOUNTED))
def test_a_backbone_that_needs_values_has_no_call_without_weights(name: str) -> None:
    """None is answered, so that `explain` says so; and it is true: that very call breaks off."""
    backbone = weightless(name)
    adapter = adapter_for(backbone)
    side = {"height": 8, "width": 8, "tokens": tokens(name)}
    assert adapter.example_inputs(backbone, rows=2, **side) is None
    call = to_meta(asked(name, model(name)))
    with pytest.raises((RuntimeError, ValueError)):
        answer(backbone, call)
    with pytest.raises(UnsupportedBackboneError, match="does not know how to call"):
        tg.explain(model(name), "never", **side)


def test_a_configuration_that_takes_more_has_no_call() -> None:
    """A class embedding is not made up."""
    backbone = model("UNet2DConditionModel:upscaler")
    assert adapter_for(backbone).example_inputs(backbone, rows=2) is None


def sample_of(name: str, **changed: Any) -> tuple[int, ...]:
    """Shape of the latents of a call of two rows where nobody says how large, by class defaults."""
    made = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    config = SimpleNamespace(**{p.name: p.default for p in made} | changed)
    about = DESCRIBED[name]
    assert about.recipe is not None
    call = about.recipe(Ask(config, torch.empty(0), 2, None, None, 77))
    assert call is not None
    return tuple(call[about.sample].shape)


#: Latents of one call at the size and length a pipeline defaults to.
NATIVE = {
    "UNet2DConditionModel": ({"sample_size": 64}, (2, 4, 64, 64)),
    "PixArtTransformer2DModel": ({"caption_channels": 4096}, (2, 4, 128, 128)),
    "SanaTransformer2DModel": ({}, (2, 32, 32, 32)),
    "SanaVideoTransformer3DModel": ({}, (2, 16, 21, 60, 104)),
    "WanTransformer3DModel": ({}, (2, 16, 21, 60, 104)),
    "WanAnimateTransformer3DModel": ({}, (2, 36, 21, 90, 160)),
    "SkyReelsV2Transformer3DModel": ({}, (2, 16, 25, 68, 120)),
    "LTXVideoTransformer3DModel": ({}, (2, 21 * 16 * 22, 128)),
    "LTX2VideoTransformer3DModel": ({}, (2, 16 * 16 * 24, 128)),
    "AllegroTransformer3DModel": ({}, (2, 4, 22, 90, 160)),
    "CosmosTransformer3DModel": ({}, (2, 16, 16, 88, 160)),
    "Kandinsky5Transformer3DModel": ({"visual_cond": True}, (2, 31, 64, 96, 9)),
    "StableAudioDiTModel": ({}, (2, 64, 1024)),
    "SD3Transformer2DModel": ({}, (2, 16, 128, 128)),
    "FluxTransformer2DModel": ({}, (2, 4096, 64)),
    "Flux2Transformer2DModel": ({}, (2, 4096, 128)),
    "QwenImageTransformer2DModel": ({}, (2, 4096, 64)),
    "ChromaTransformer2DModel": ({}, (2, 4096, 64)),
    "BriaTransformer2DModel": ({}, (2, 4096, 64)),
    "AuraFlowTransformer2DModel": ({}, (2, 4, 128, 128)),
    "CogView4Transformer2DModel": ({}, (2, 16, 128, 128)),
    "CogVideoXTransformer3DModel": ({}, (2, 13, 16, 60, 90)),
    "HunyuanImageTransformer2DModel": ({}, (2, 64, 64, 64)),
    "HunyuanVideoTransformer3DModel": ({}, (2, 16, 33, 90, 160)),
    "HunyuanVideo15Transformer3DModel": ({}, (2, 65, 31, 30, 53)),
    "MochiTransformer3DModel": ({}, (2, 12, 4, 60, 106)),
    "EasyAnimateTransformer3DModel": ({"in_channels": 16}, (2, 16, 13, 64, 64)),
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_call_of_no_size_is_a_native_one(name: str) -> None:
    """Nothing is built for it."""
    changed, shape = NATIVE[name]
    assert sample_of(name, **changed) == shape


def test_what_is_no_row_is_cut_unless_the_description_says_so() -> None:
    """Planted: as many controlling blocks as rows, and a description that does not know."""
    name = "WanVACETransformer3DModel"
    backbone = model(name)
    call = asked(name, backbone)
    told: Adapter = adapter_for(backbone)
    kept = told.take(backbone, (), call, 2, slice(0, 1))[1]
    assert kept["control_hidden_states_scale"].shape == (2,)

    class Forgetful(diffusers_dit.DiTAdapter):
        table = {name: dataclasses.replace(DESCRIBED[name], whole=frozenset())}  # noqa: RUF012

    with pytest.raises(ValueError, match="control_hidden_states_scale"):
        answer(backbone, Forgetful().take(backbone, (), call, 2, slice(0, 1))[1])
