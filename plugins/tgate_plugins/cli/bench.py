"""Make one picture with one method, and measure what it took."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import torch

import tgate_sampling as tg
from tgate_plugins.cli.metrics import Image
from tgate_plugins.cli.spec import Spec
from tgate_sampling.errors import OptionError, TGateError

Kind = Literal["reference", "ungated", "gated", "fewer steps"]

#: Steps of the run that warms up and counts: enough for schedulers that need a history.
WARM_UP_STEPS: Final = 3


@dataclass(frozen=True)
class Method:
    """A way to sample: the bare pipeline with so many steps, or a gated one.

    Args:
        label: as tables and pictures show it.
        kind: its part in the comparison.
        steps: for the sampler.
        spec: the policy; None for the bare pipeline.
    """

    label: str
    kind: Kind
    steps: int
    spec: Spec | None = None


@dataclass(frozen=True)
class Cost:
    """What a run computed.

    Args:
        rows: backbone rows.
        macs: multiply-accumulates, attention's own products included; None where the adapter
            cannot count them.
    """

    rows: float
    macs: float | None

    def times(self, factor: float) -> Cost:
        """As much, `factor` times."""
        return Cost(self.rows * factor, None if self.macs is None else self.macs * factor)

    def share(self, whole: Cost) -> float:
        """This as a share of `whole`: in MACs where both are counted, else in rows."""
        if self.macs is not None and whole.macs:
            return self.macs / whole.macs
        return self.rows / whole.rows


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture, or why there is none.

    Args:
        method: its label.
        prompt, seed: what was asked.
        image: (height, width, channels) in [0, 1]; None where the run failed.
        seconds: wall time of the pipeline call, text encoder and VAE included.
        cost: what the backbone computed.
        closed: the steps in which each gate was closed.
        events: what was computed in full for want of knowledge.
        error: why the run failed.
        beside: wall time of the ungated run that was made in the same round; 0 if unknown.
    """

    method: str
    prompt: str
    seed: int
    image: Image | None = None
    seconds: float = 0.0
    cost: Cost = Cost(0, None)
    closed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    error: str | None = None
    beside: float = 0.0


class Bench:
    """A pipeline, and what one backbone call of it costs.

    Args:
        pipe: a text-to-image pipeline of diffusers.
        arguments: of its every call, beside prompt, steps and seed.
    """

    def __init__(self, pipe: Any, arguments: Mapping[str, Any]) -> None:
        self._pipe, self._arguments = pipe, dict(arguments)
        #: What one full backbone call costs; known after `warm_up`.
        self.unit = Cost(0, None)
        self._gatings: dict[str, tg.Gating] = {}

    def warm_up(self, prompts: Iterable[str], steps: int) -> None:
        """A short ungated run: nobody after it pays for first calls, and it tells a call's cost.

        Args:
            prompts: tried in turn until one runs.
            steps: what the other runs take, at most `WARM_UP_STEPS` of which are done.

        Raises:
            OptionError: none of the prompts runs.
        """
        failed: Exception | None = None
        for prompt in prompts:
            try:
                with tg.gate(self._pipe, "never") as gating:
                    self._call(prompt, seed=0, steps=min(steps, WARM_UP_STEPS))
            except TGateError:
                raise
            except Exception as error:
                failed = failed or error
                continue
            calls = sum(len(step.calls) for step in gating.report.steps)
            self.unit = cost_of(gating.report).times(1 / calls)
            return
        raise OptionError(
            f"the model cannot draw even ungated ({say(failed)}): try another --model, --size, "
            "--dtype or --device."
        ) from failed

    def calls(self, steps: int) -> int:
        """Backbone calls of an ungated run."""
        return backbone_calls(self._pipe, steps)

    def ungated(self, steps: int) -> Cost:
        """What the bare pipeline computes in so many steps."""
        return self.unit.times(self.calls(steps))

    def shoot(self, method: Method, prompt: str, seed: int) -> Shot:
        """Make one picture; a failure is part of the answer."""
        try:
            gating = self._gating(method)
            with gating:
                started = time.perf_counter()
                image = self._call(prompt, seed=seed, steps=method.steps)
                seconds = time.perf_counter() - started
            if not np.isfinite(image).all():
                raise FloatingPointError("the picture holds NaN: try --dtype float32")
        except Exception as error:
            return Shot(method.label, prompt, seed, error=say(error))
        if not isinstance(gating, tg.Gating):
            cost = self.ungated(method.steps)
            return Shot(method.label, prompt, seed, image, seconds, cost)
        report = gating.report
        return Shot(
            method.label,
            prompt,
            seed,
            image,
            seconds,
            cost_of(report),
            report.closed,
            tuple(event.message for event in report.events),
        )

    def _gating(self, method: Method) -> AbstractContextManager[object]:
        """One gating a method, entered for each picture: what it has counted, it counts once."""
        if method.spec is None:
            return nullcontext()
        if method.label not in self._gatings:
            self._gatings[method.label] = method.spec.gate(self._pipe)
        return self._gatings[method.label]

    def _call(self, prompt: str, *, seed: int, steps: int) -> Image:
        result = self._pipe(
            prompt=prompt,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="np",
            **self._arguments,
        )
        image: Image = result.images[0]
        return image


def cost_of(report: tg.Report) -> Cost:
    """What a run computed, by its report."""
    return Cost(report.rows[0], report.macs.done.true if report.macs else None)


def backbone_calls(pipe: Any, steps: int) -> int:
    """Backbone calls of an ungated run: a scheduler of order 2 makes about two a step."""
    scheduler = copy.deepcopy(pipe.scheduler)
    try:
        scheduler.set_timesteps(steps)
    except (TypeError, ValueError):  # wants the picture's size as well
        return steps * int(getattr(scheduler, "order", 1))
    return len(scheduler.timesteps)


def steps_within(
    budget: Cost, ungated: Callable[[int], Cost], most: int, *, slack: float = 1e-9
) -> int | None:
    """The most steps, up to `most`, whose ungated run computes no more than `budget`.

    Args:
        budget: of the method to match.
        ungated: what an ungated run of so many steps computes.
        most: steps of the run that the method was applied to.
        slack: for rounding in a mean.

    >>> steps_within(Cost(35, None), lambda steps: Cost(2 * steps, None), 25)
    17
    """
    fits = (k for k in range(most, 0, -1) if ungated(k).share(budget) <= 1 + slack)
    return next(fits, None)


def say(error: BaseException | None) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
