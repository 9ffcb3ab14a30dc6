"""The conformance kit on every tiny backbone, with the adapter that knows it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import load_helper
from tgate_sampling._manager import manager
from tgate_sampling.backbones import ANY, adapter_for
from tgate_sampling.errors import UnsupportedBackboneError
from tgate_sampling.testing import AdapterCase, parametrize_adapter_checks

models = load_helper("backbones/models.py")
pytestmark = [
    *(pytest.mark.filterwarnings(text) for text in models.WARNINGS),
    # Flux3's norms see float32 in a float64 model.
    pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning"),
]

#: One model of each class; variants of a class share its description.
CLASSES = {name: tiny for name, tiny in models.MODELS.items() if ":" not in name}

#: What neither a table nor the rule takes, and what the error says of it.
REFUSED = {
    "StableCascadeUNet": "forward takes (sample, timestep_ratio, clip_text_pooled, clip_text, ...)"
}

FAILURES = {
    "LuminaNextDiT2DModel": {
        "check_reuse_saves_calls": "its blocks call attn2.to_out themselves, after the attention"
    }
}


def adapter_of(tiny: Any) -> type[Any]:
    return type(adapter_for(tiny.build()))


CASES = {
    name: AdapterCase(adapter_of(tiny), tiny.build, tiny.inputs, tiny.timestep)
    for name, tiny in CLASSES.items()
    if name not in REFUSED
}


@parametrize_adapter_checks(CASES, expected_failures=FAILURES)
def test_backbones(case: Any, check: Any) -> None:
    """One item for each model class and check."""
    check(case)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_left_out_is_refused_with_the_reason(name: str) -> None:
    """And with the lines that an adapter takes."""
    with pytest.raises(UnsupportedBackboneError) as caught:
        adapter_for(CLASSES[name].build())
    assert f"no adapter knows {name}" in str(caught.value)
    assert REFUSED[name] in str(caught.value)
    assert "def tgate_register_adapters(register)" in str(caught.value)


def test_enough_is_covered() -> None:
    """At least 30 classes pass, 12 of them described by hand; the rest is found by rule."""
    described = {m for e in manager().adapters.entries() for m in e.models if m != ANY}
    assert len(CASES) >= 30
    assert len(described & set(CASES)) >= 12
    assert {type(c.verbs).name for c in CASES.values()} >= {"generic", "diffusers-mmdit"}
