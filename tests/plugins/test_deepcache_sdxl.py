"""The real DeepCache helper beneath our gates, on a pipeline of SDXL's shape."""

from __future__ import annotations

import pytest
from DeepCache import DeepCacheSDHelper
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import tgate_sampling as tg
from tests.conftest import load_helper

gated = load_helper("backbones/gated.py")
pipelines = gated.pipelines

pytestmark = [pytest.mark.filterwarnings(text) for text in pipelines.WARNINGS]

STEPS = 8


@pytest.mark.parametrize("interval", [2, 3, 5])
def test_guidance_and_cross_gates_close_at_any_step_of_sdxl(interval: int) -> None:
    """No gate step from 1 to the last crashes, and the report's MACs are those that ran."""
    row, pipe = pipelines.PIPELINES["sdxl"], gated.made("sdxl")
    assert type(pipe).__name__ == "StableDiffusionXLPipeline"
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=0)
    helper.enable()
    try:
        for gate_step in range(1, STEPS):
            counter = FlopCounterMode(display=False)
            with (
                tg.gate(pipe, "fixed_step", gate_step=gate_step) as gating,
                sdpa_kernel(SDPBackend.MATH),
                counter,
            ):
                latents = row.call(pipe, steps=STEPS)
            spent = gating.report.macs
            assert spent is not None
            assert latents.isfinite().all()
            assert spent.done.true == pytest.approx(counter.get_total_flops() / 2, rel=1e-9)
            assert {"guidance", "block"} <= set(spent.saved)
            assert gating.report.events == ()
    finally:
        helper.disable()
