"""One gating a backbone, one run at a time: whoever comes second is told, and harms nobody."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import tgate_sampling as tg
from tgate_sampling.errors import (
    AlreadyGatedError,
    ConcurrentRunError,
    NeverEnteredWarning,
    NoRunError,
    OptionError,
)
from tgate_sampling.testing import tiny_denoiser, tiny_unet, unet_inputs

OPTIONS: dict[str, Any] = {"policy": "fixed_step", "gate_step": 2, "layout": "uncond_first"}
TIMES = [901, 601, 301, 1]


def in_a_thread(function: Callable[[], Any]) -> BaseException | None:
    """Run `function` in another thread; returns what it raised."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    return raised[0] if raised else None


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def intrude(unet: Any) -> None:
    with torch.no_grad():
        unet(**unet_inputs(), timestep=1)


@pytest.mark.parametrize("step", range(len(TIMES)))
def test_a_second_thread_inside_a_call_is_refused_and_the_first_unharmed(
    kit: Any, step: int
) -> None:
    """It gets ConcurrentRunError while the first thread is in its forward; the first's result is
    what it would have been alone, also past the gate, where half the batch runs."""
    unet = tiny_unet()
    with tg.gate(unet, **OPTIONS) as gating:
        expected = kit.walk(unet, TIMES, gating=gating)
    errors: list[BaseException | None] = []
    calls = 0

    def hook(*_: Any) -> None:
        nonlocal calls
        if threading.current_thread() is threading.main_thread():
            if calls == step:
                errors.append(in_a_thread(lambda: intrude(unet)))
            calls += 1

    unet.mid_block.register_forward_hook(hook)
    with tg.gate(unet, **OPTIONS) as gating:
        out = kit.walk(unet, TIMES, gating=gating)
    assert [type(e) for e in errors] == [ConcurrentRunError]
    assert torch.equal(out, expected)
    assert gating.report.rows == (6, 8)
    assert [r.complete for r in gating.runs] == [True]


@pytest.mark.parametrize("step", range(len(TIMES)))
def test_a_second_thread_between_calls_is_refused_and_the_first_unharmed(
    kit: Any, step: int
) -> None:
    """The same while the first thread's loop is between two backbone calls."""
    unet = tiny_unet()
    text = unet_inputs()["encoder_hidden_states"]
    samples = [unet_inputs(seed=i)["sample"] for i in range(len(TIMES))]
    with tg.gate(unet, **OPTIONS) as gating:
        expected = kit.drive(gating, unet, samples, text, TIMES)
    errors, outputs = [], []
    with tg.gate(unet, **OPTIONS) as gating, torch.no_grad():
        for i, t in enumerate(gating.steps(TIMES)):
            outputs.append(unet(samples[i], t, encoder_hidden_states=text).sample)
            if i == step:
                errors.append(in_a_thread(lambda: intrude(unet)))
    assert [type(e) for e in errors] == [ConcurrentRunError]
    assert "reset()" in str(errors[0])
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))


def test_another_thread_may_run_once_the_first_is_done(kit: Any) -> None:
    """Runs of one gating may come from different threads, one after another."""
    unet = tiny_unet()
    results: list[torch.Tensor] = []
    with tg.gate(unet, **OPTIONS) as gating:
        results.append(kit.walk(unet, TIMES, gating=gating))
        error = in_a_thread(lambda: results.append(kit.walk(unet, TIMES, gating=gating)))
    assert error is None
    assert torch.equal(*results)


def test_an_interrupted_loop_leaves_the_backbone_to_other_threads(kit: Any) -> None:
    """An interrupt inside the forward ends the loop's run, and nobody is kept out after it."""
    unet = tiny_unet()
    gating = tg.attach(unet, **OPTIONS)
    handle = unet.mid_block.register_forward_hook(interrupt)
    error = in_a_thread(lambda: kit.walk(unet, TIMES, gating=gating))
    assert isinstance(error, KeyboardInterrupt)
    handle.remove()
    kit.walk(unet, TIMES, gating=gating)
    assert [r.complete for r in gating.runs] == [False, True]
    gating.detach()


def test_an_interrupted_pipeline_keeps_other_threads_out_until_reset(kit: Any) -> None:
    """The run it left might be somebody's: the error names reset(), and reset() frees it."""
    pipe = kit.make_pipe()
    gating = tg.attach(pipe, "fixed_step", gate_step=2)
    handle = pipe.unet.mid_block.register_forward_hook(interrupt)
    assert isinstance(in_a_thread(lambda: kit.call(pipe)), KeyboardInterrupt)
    handle.remove()
    with pytest.raises(ConcurrentRunError, match=r"reset\(\)"):
        kit.call(pipe)
    gating.reset()
    kit.call(pipe)
    assert gating.report.complete
    gating.detach()


def test_a_second_gating_is_refused_naming_the_first(kit: Any) -> None:
    """The backbone keeps the gating it has, which goes on undisturbed."""
    unet = tiny_unet()
    with tg.gate(unet, **OPTIONS) as gating:
        inside = kit.snapshot(unet)
        for second in (
            lambda: tg.attach(unet, "convergence", layout="uncond_first"),
            lambda: tg.gate(unet, "never").__enter__(),
            lambda: tg.attach(kit.make_pipe(unet), "never"),
        ):
            with pytest.raises(AlreadyGatedError, match=r"fixed_step\(gate_step=2\).*detach\(\)"):
                second()
        assert kit.snapshot(unet) == inside
        kit.walk(unet, TIMES, gating=gating)
        assert gating.report.rows == (6, 8)
    with tg.gate(unet, "never"):
        pass


def test_gate_without_its_block_warns() -> None:
    """`gate(...)` alone gates nothing, and says what to write."""
    gating = tg.gate(tiny_unet(), **OPTIONS)
    assert "not attached" in repr(gating)
    with pytest.warns(NeverEnteredWarning, match=r"fixed_step.*with gate\(\.\.\.\)"):
        del gating


@pytest.mark.parametrize("use", ["entered", "attached", "refused", "misspelt"])
def test_no_other_gating_warns_when_it_goes(use: str) -> None:
    """Entered, attached, refused or failed in the making: none is a forgotten block."""
    unet = tiny_unet()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if use == "entered":
            with tg.gate(unet, **OPTIONS) as gating:
                assert "attached" in repr(gating)
        elif use == "attached":
            tg.attach(unet, **OPTIONS).detach()
        elif use == "refused":
            first = tg.attach(unet, **OPTIONS)
            with pytest.raises(AlreadyGatedError):
                tg.attach(unet, **OPTIONS)
            first.detach()
        else:
            with pytest.raises(OptionError):
                tg.gate(unet, "never", layout="upside_down")
        gc.collect()


@torch.no_grad()
def euler(model: Any, x: torch.Tensor, sigmas: torch.Tensor, callback: Any = None) -> torch.Tensor:
    """k-diffusion's Euler sampler, without churn."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


SIGMAS = torch.tensor([9.0, 3.0, 1.0, 0.3, 0.1])


def test_a_wrapped_sampler_uses_the_active_gating() -> None:
    """Inside `with gate(...)`, wrap_sampler without a policy runs under it, and both report it."""
    denoiser = tiny_denoiser()
    x = torch.ones(1, 4, 8, 8)
    alone = tg.wrap_sampler(euler, "fixed_step", gate_step=2)
    expected = alone(denoiser, x, SIGMAS)
    sample = tg.wrap_sampler(euler)
    with tg.gate(denoiser.inner_model, "fixed_step", gate_step=2) as gating:
        assert torch.equal(sample(denoiser, x, SIGMAS), expected)
        assert gating.cache_bytes == 0
        assert torch.equal(sample(denoiser, x, SIGMAS), expected)
    assert gating.runs == sample.runs
    assert sample.report.closed == {"guidance": (2, 3), "cross": (2, 3)}


def test_a_wrapped_sampler_with_a_policy_is_a_second_gating() -> None:
    """Two policies on one backbone are refused, also this way."""
    denoiser = tiny_denoiser()
    sample = tg.wrap_sampler(euler, "never")
    refused = pytest.raises(AlreadyGatedError, match="fixed_step")
    with tg.gate(denoiser.inner_model, **OPTIONS), refused:
        sample(denoiser, torch.ones(1, 4, 8, 8), SIGMAS)
    with pytest.raises(NoRunError):
        _ = sample.report


def test_a_sampler_s_error_leaves_the_active_gating_usable() -> None:
    """The run ends where the sampler broke; the next one is whole."""
    denoiser = tiny_denoiser()
    x = torch.ones(1, 4, 8, 8)

    def stop(info: Any) -> None:
        if info["i"] == 2:
            raise KeyboardInterrupt

    sample = tg.wrap_sampler(euler)
    with tg.gate(denoiser.inner_model, "fixed_step", gate_step=2) as gating:
        with pytest.raises(KeyboardInterrupt):
            sample(denoiser, x, SIGMAS, callback=stop)
        assert gating.cache_bytes == 0
        sample(denoiser, x, SIGMAS)
    assert [r.complete for r in sample.runs] == [False, True]
