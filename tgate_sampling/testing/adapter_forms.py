"""Checks of adapters: in what form outputs come back, and calls go in."""

from __future__ import annotations

from typing import Any

import torch

from tgate_sampling.testing.adapter_reuse import equal
from tgate_sampling.testing.batches import by_position
from tgate_sampling.testing.cases import TIMES, AdapterCase, takes
from tgate_sampling.testing.results import claim
from tgate_sampling.testing.script import Script


def check_positional_calls_are_gated_alike(case: AdapterCase) -> None:
    """The same arguments by position and by name give bitwise the same run."""
    model = case.model()
    batch = case.batch(model, 2)
    gates = case.gates(model)
    by_name, report = case.run(model, [(), gates], [(batch, t) for t in TIMES])
    outputs = []
    with case.gate(model, Script([(), gates], gates=gates)) as gating, torch.no_grad():
        for t in gating.steps(TIMES):
            args, kwargs = by_position(model, batch.at(t))
            outputs.append(case.output(model(*args, **kwargs)))
    claim(
        equal(outputs, by_name) and gating.report.rows == report.rows,
        "arguments by position are gated otherwise than by name: read() and take() must find them "
        "both ways",
    )


def check_shape_dtype_and_device_stay(case: AdapterCase) -> None:
    """Open and closed, in every dtype the model takes, the output is of the bare one's kind."""
    tried = 0
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model = case.model().to(dtype)
        batch = case.batch(model, 2).to(dtype)
        try:
            bare = case.bare(model, batch, TIMES[0])
        except (RuntimeError, TypeError):
            continue  # this model does not take this dtype
        tried += 1
        for estimator in ("hold", "none"):
            calls = [(batch, t) for t in TIMES]
            outputs, _ = case.run(model, [(), case.gates(model)], calls, estimator=estimator)
            for out in outputs:
                _claim_alike(out, bare)
    claim(tried > 0, "the model runs in no floating-point dtype: give inputs that it takes")


def _claim_alike(out: torch.Tensor, bare: torch.Tensor) -> None:
    for what in ("shape", "dtype", "device"):
        claim(
            getattr(out, what) == getattr(bare, what),
            f"a gated output has {what} {getattr(out, what)}, and the bare model's has "
            f"{getattr(bare, what)}: output() and with_output() must keep it",
        )


def check_output_type_stays(case: AdapterCase) -> None:
    """What comes back is of the bare result's type, with all that was in it."""
    model = case.model()
    batch = case.batch(model, 2)
    options: list[dict[str, Any]] = [{}]
    if takes(model, "return_dict"):
        options = [{"return_dict": True}, {"return_dict": False}]
    policy = Script([(), case.gates(model)], gates=case.gates(model))
    for more in options:
        (bare,) = case.play(model, [(batch, TIMES[0])], **more)
        with case.gate(model, policy) as gating:
            results = case.play(model, [(batch, t) for t in TIMES], gating, **more)
        said = "".join(f" with {k}={v}" for k, v in more.items())
        for result in results:
            claim(
                _shape(result) == _shape(bare),
                f"a gated model{said} returned {_shape(result)}, and the bare one "
                f"{_shape(bare)}: with_output() must replace the tensor and keep the rest",
            )


def _shape(result: Any) -> str:
    """A result's types, in words."""
    if isinstance(result, torch.Tensor):
        return "a tensor"
    if isinstance(result, (list, tuple)):
        return f"{type(result).__name__} of {len(result)}"
    return type(result).__name__
