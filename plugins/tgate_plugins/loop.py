"""The user's own loop: `for t in gating.steps(timesteps)` tells the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from tgate_sampling.adapter import Call
from tgate_sampling.driver import Driver
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterDriver, hookimpl
from tgate_sampling.steps import RISE, Noise, Outside, Position, StepContext, first_value

OUTSIDE = (
    "a call outside gating.steps(...) ran ungated: loop over gating.steps(timesteps), so that the "
    "step is known"
)


class LoopDriver(Driver):
    """Counts the loop's own iterations; several calls in one are that step's calls 0, 1, ..."""

    name = "loop"

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        self._total = 0
        self._sigmas: Sequence[float] | None = None
        self._index: int | None = None
        self._call = 0
        self._token = object()

    @classmethod
    def matches(cls, target: Any) -> bool:
        return isinstance(target, nn.Module)

    def begin(self, total: int, sigmas: Sequence[float] | None) -> None:
        """Start a run of `total` steps.

        Raises:
            OptionError: there are fewer sigmas than steps.
        """
        if sigmas is not None and len(sigmas) < total:
            raise OptionError(f"{len(sigmas)} sigmas for {total} timesteps: pass one for each.")
        read = getattr(sigmas, "tolist", None)  # a tensor is read once, and not at every call
        self._total, self._sigmas, self._token = total, read() if read else sigmas, object()

    def move(self, index: int) -> None:
        """The loop has reached its iteration `index`."""
        self._index, self._call = index, 0

    def locate(self, call: Call) -> Position | Outside:
        if self._index is None:
            return Outside(OUTSIDE)
        index, number = self._index, self._call
        self._call += 1
        timestep = call.timestep  # not `call`: a report must not hold samples
        noise = Noise(lambda: self._sigma(index), lambda: first_value(timestep))
        return Position(
            self._token,
            StepContext(index, self._total, 0, noise),
            call=number,
            rises=self._rises(index),
        )

    def _sigma(self, index: int) -> float | None:
        return None if self._sigmas is None else float(self._sigmas[index])

    def _rises(self, index: int) -> bool:
        now, before = self._sigma(index), self._sigma(index - 1) if index else None
        return now is not None and before is not None and now > before * RISE

    def close(self) -> None:
        self._index = None


@hookimpl
def tgate_register_drivers(register: RegisterDriver) -> None:
    register("loop", LoopDriver)
