"""Seeing a run begin, and where in it a backbone call stands, without touching the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch

from tgate_plugins.methods._pipes import backbone_of

#: Under these names backbones take their timestep, or else as the second argument.
TIMES: Final = ("timestep", "timesteps", "t")


class Clock:
    """What a method may ask during a run.

    Args:
        pipe: the pipeline; `scheduler.timesteps` is a new tensor in each run.
        begin: called before the first backbone call of each run.
    """

    def __init__(self, pipe: Any, begin: Callable[[], None]) -> None:
        self._pipe, self._begin = pipe, begin
        self._timesteps: torch.Tensor | None = None
        self._time: Any = None
        #: Backbone calls of this run before the present one.
        self.call = -1

    @property
    def timestep(self) -> float:
        """The timestep of the present call, on the training schedule's scale."""
        # Pipelines that have it divide the timestep they pass on by 1000.
        said = getattr(self._pipe, "current_timestep", None)
        return float(torch.as_tensor(self._time if said is None else said).flatten()[0])

    def see(self, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A forward pre-hook of the backbone."""
        said = [kwargs[name] for name in TIMES if name in kwargs]
        self._time = (said or [*args[1:2], None])[0]
        if self._pipe.scheduler.timesteps is not self._timesteps:
            self._timesteps = self._pipe.scheduler.timesteps
            self.call = -1
            self._begin()
        self.call += 1


def nothing() -> None:
    """For clocks whose owner has nothing to begin."""


@contextmanager
def clocked(pipe: Any, begin: Callable[[], None] = nothing) -> Iterator[Clock]:
    """A clock that runs while the block lasts.

    Args:
        pipe: the pipeline.
        begin: called before the first backbone call of each run, to let go of the run before.
    """
    clock = Clock(pipe, begin)
    handle = backbone_of(pipe).register_forward_pre_hook(clock.see, with_kwargs=True)
    try:
        yield clock
    finally:
        handle.remove()
