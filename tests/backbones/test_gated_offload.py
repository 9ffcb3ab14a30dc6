"""Offload, layer-wise casting and half precision, before and after attaching: the same latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers.hooks import apply_group_offloading

import tgate_sampling as tg
from tests.conftest import load_helper

gated = load_helper("backbones/gated.py")
pipelines = gated.pipelines

pytestmark = [
    *(pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS),
    # Group offload asks for the accelerator's streams, and there is none.
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
]

CPU = torch.device("cpu")
NAMES = ("sd", "pixart-sigma", "wan", "chroma")
HOW = {"steps": 5}


def sequential(backbone: Any) -> None:
    """accelerate: every module's weights wait on the host (here: on the meta device)."""
    accelerate.cpu_offload(backbone, execution_device=CPU)


def aligned(backbone: Any) -> None:
    """accelerate: what `enable_model_cpu_offload` puts around the backbone's forward."""
    add_hook_to_module(backbone, AlignDevicesHook(execution_device=CPU, io_same_device=True))


def by_block(backbone: Any) -> None:
    """diffusers: groups of blocks."""
    apply_group_offloading(
        backbone,
        onload_device=CPU,
        offload_device=CPU,
        offload_type="block_level",
        num_blocks_per_group=1,
    )


def by_leaf(backbone: Any) -> None:
    """diffusers: single layers."""
    apply_group_offloading(
        backbone, onload_device=CPU, offload_device=CPU, offload_type="leaf_level"
    )


def cast(backbone: Any) -> None:
    """diffusers: weights are stored in eight bits."""
    backbone.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32
    )


def halved(backbone: Any) -> None:
    """Half precision throughout."""
    backbone.to(torch.bfloat16)


#: Each with whether it leaves the values of a run as they are.
WAYS: dict[str, tuple[Callable[[Any], None], bool]] = {
    way.__name__: (way, way not in (cast, halved))
    for way in (sequential, aligned, by_block, by_leaf, cast, halved)
}

#: Chroma's own modulation is computed in float32 and does not run in half precision.
CASES = [(n, w) for n in NAMES for w in WAYS if (n, w) != ("chroma", "halved")]


def gate(pipe: Any) -> Any:
    """The gating that all of this is tried with."""
    return tg.attach(pipe, "fixed_step", gate_step=2)


def prepared(name: str) -> tuple[Any, Any, Any]:
    """Row, pipeline and backbone; what diffusers leaves at a first call has been left."""
    row, pipe = pipelines.PIPELINES[name], gated.fresh(name)
    row.call(pipe, **HOW)
    return row, pipe, row.denoiser(pipe)


@pytest.mark.parametrize(("name", "way"), CASES)
def test_offload_before_attaching(name: str, way: str) -> None:
    """Rows and latents are as without, and the backbone is left as it was found."""
    apply, exact = WAYS[way]
    row, pipe, backbone = prepared(name)
    apply(backbone)
    bare = row.call(pipe, **HOW)
    before = gated.kit.snapshot(backbone)
    gating = gate(pipe)
    latents = row.call(pipe, **HOW)
    gating.detach()
    assert gated.kit.snapshot(backbone) == before
    assert torch.equal(row.call(pipe, **HOW), bare)
    assert gating.report.rows == (7, 10)
    assert gating.report.events == ()
    if exact:
        assert torch.equal(latents, gated.outcome(name, "both").latents)
    else:
        assert latents.isfinite().all()


@pytest.mark.parametrize(("name", "way"), CASES)
def test_offload_after_attaching(name: str, way: str) -> None:
    """It comes to the same, and survives the gating."""
    apply, _ = WAYS[way]
    row, pipe, backbone = prepared(name)
    apply(backbone)
    with gate(pipe):
        right = row.call(pipe, **HOW)
    bare = row.call(pipe, **HOW)
    row, pipe, backbone = prepared(name)
    gating = gate(pipe)
    apply(backbone)
    latents = row.call(pipe, **HOW)
    gating.detach()
    assert torch.equal(latents, right)
    assert torch.equal(row.call(pipe, **HOW), bare)
    assert gating.report.rows == (7, 10)
