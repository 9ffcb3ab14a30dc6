"""The tiny backbones are what they claim: seeded, alive in every input, with the sites counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from torch import nn

from tests.backbones import sites
from tests.backbones.models import LEFT_OUT, MODELS, WARNINGS, Tiny
from tests.backbones.tiny import per_row, table, tiny

pytestmark = [pytest.mark.filterwarnings(text) for text in WARNINGS]

#: Fixed widths inside make this one larger than the others.
LARGE = {"HunyuanVideo15Transformer3DModel"}
KINDS = {
    "cross": "cross",
    "self": "selfs",
    "joint": "joints",
    "text": "texts",
    "exchange": "exchanges",
}

every = pytest.mark.parametrize("name", MODELS)


@cache
def model(name: str) -> nn.Module:
    built: nn.Module = MODELS[name].build()
    return built


def outputs(name: str, rows: int, /, **changed: Any) -> list[torch.Tensor]:
    """What a forward puts out; a cache that is empty is no output."""
    out = sites.call(model(name), MODELS[name], rows, **changed)
    return [tensor for tensor in sites.tensors(out) if tensor.numel()]


def moved(name: str, /, **changed: Any) -> float:
    """How far the outputs move when an input changes, in standard deviations of the outputs."""
    before, after = (
        torch.cat([tensor.flatten() for tensor in outputs(name, MODELS[name].rows, **more)])
        for more in ({}, changed)
    )
    return float((before - after).abs().max() / before.std())


def by_row(name: str, rows: int, row: int) -> list[torch.Tensor]:
    """One row of all outputs; lists have an entry a row."""
    out = sites.call(model(name), MODELS[name], rows)
    if isinstance(out, tuple) and isinstance(out[0], list):
        return [out[0][row]]
    return [tensor[row] for tensor in sites.tensors(out) if tensor.numel()]


@every
def test_a_build_is_seeded(name: str) -> None:
    """Two builds have the same state, and a build leaves the global generator alone."""
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    again = MODELS[name].build()
    assert torch.equal(torch.random.get_rng_state(), state)
    first, second = model(name).state_dict(), again.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@every
def test_a_build_is_tiny_float32_and_in_evaluation_mode(name: str) -> None:
    built = model(name)
    parameters = list(built.parameters())
    assert sum(p.numel() for p in parameters) < (4.5e6 if name in LARGE else 1.5e6)
    assert {p.dtype for p in parameters} == {torch.float32}
    assert not any(m.training for m in built.modules())
    assert type(built).__name__ == name.partition(":")[0]


@every
def test_inputs_are_seeded_and_a_row_is_the_same_in_any_batch(name: str) -> None:
    """The latents of all rows are equal, and two calls give equal values."""
    row = MODELS[name]
    first, again = (list(sites.tensors(row.inputs(2))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for key in row.sample:
        latents = row.inputs(2)[key]
        equal = latents[0] == latents[1]
        # SVD's own image latents are zero where there is no guidance.
        assert equal.all() or (name.endswith(":image") and equal[:, :4].all())


@every
def test_outputs_are_finite_and_depend_on_sample_text_and_timestep(name: str) -> None:
    row = MODELS[name]
    inputs = row.inputs(row.rows)
    assert all(tensor.isfinite().all() for tensor in outputs(name, row.rows))
    effects = {
        "sample": moved(name, **sites.changed(inputs, row.sample)),
        "text": moved(name, **sites.changed(inputs, row.text)),
        "timestep": moved(name, **row.timestep(row.rows, 300.0)),
    }
    assert {key: value > 0.01 for key, value in effects.items()} == dict.fromkeys(effects, True)


@every
@pytest.mark.parametrize(("rows", "of"), [(1, 2), (2, 4)])
def test_rows_are_independent(name: str, rows: int, of: int) -> None:
    """A row's output does not depend on which rows stand beside it."""
    for row in range(rows):
        fewer, more = by_row(name, rows, row), by_row(name, of, row)
        for a, b in zip(fewer, more, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@every
def test_rows_differ(name: str) -> None:
    """Equal latents with two texts give two outputs."""
    first, second = (by_row(name, 2, row) for row in range(2))
    apart = [(a - b).abs().max() for a, b in zip(first, second, strict=True)]
    assert min(apart) > 1e-3


@every
def test_a_forward_keeps_its_inputs(name: str) -> None:
    """Nothing that a caller passes is written to, so that it can be passed again."""
    row = MODELS[name]
    given = row.inputs(2) | row.timestep(2, 500.0)
    before = [tensor.clone() for tensor in sites.tensors(given)]
    with torch.no_grad():
        model(name)(**given, return_dict=False)
    after = list(sites.tensors(given))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@every
def test_sites_are_of_the_kinds_the_table_counts(name: str) -> None:
    """Found by perturbing live calls, not by names."""
    row = MODELS[name]
    found = Counter(KINDS[kind] for kind in sites.kinds(model(name), row).values())
    assert dict(found) == {k: getattr(row, k) for k in KINDS.values() if getattr(row, k)}


def test_no_class_of_diffusers_is_forgotten() -> None:
    """Every UNet and transformer of diffusers' models is a row or has a reason not to be."""
    if diffusers.__version__ != "0.42.1":
        pytest.skip("the table was made for diffusers 0.42.1")
    homes = ("diffusers.models.unets", "diffusers.models.transformers")
    public = {n for n in diffusers._import_structure["models"] if n != "AutoModel"}
    known = {
        n
        for n in public
        if not n.startswith(("Auto", "VQ", "ConsistencyDecoder"))
        and getattr(diffusers, n).__module__.startswith(homes)
    }
    rows = {name.partition(":")[0] for name in MODELS}
    assert known - rows - set(LEFT_OUT) == set()
    assert rows & set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= known


def test_as_diffusers_makes_it_a_transformer_puts_out_nothing_of_the_text() -> None:
    """Why every weight is drawn anew: with the gates of its blocks at zero, no check could fail."""
    row: Any = MODELS["LongCatAudioDiTTransformer"]
    _, config = row.build.args
    plain = diffusers.LongCatAudioDiTTransformer(**config).eval()
    out = sites.call(plain, row, 2)[0]
    assert torch.equal(out, torch.zeros_like(out))


def test_two_rows_of_one_name_are_refused() -> None:
    row = tiny("UNet2DModel", {}, lambda rows: {}, per_row())
    with pytest.raises(ValueError, match="one name"):
        table([row, row])


def test_rows_cannot_be_changed() -> None:
    """Tests share them."""
    row: Tiny = next(iter(MODELS.values()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.cross = 0  # type: ignore[misc]
