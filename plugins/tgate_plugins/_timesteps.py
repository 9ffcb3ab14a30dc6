"""Where a diffusers scheduler stands: pure functions of its timesteps, order and noise levels."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch

#: What pipelines call the variable of their loop over the scheduler's timesteps.
LOOP_VARIABLES = ("t", "timestep", "t_sched")


def raw_index(timestep: Any, timesteps: Any) -> int | None:
    """The index of a view in `timesteps`, without reading either; None if it is no such view.

    >>> t = torch.arange(5)
    >>> raw_index(t[3], t), raw_index(t[1:][2], t), raw_index(torch.tensor(3), t)
    (3, 3, None)
    """
    if not isinstance(timestep, torch.Tensor) or not isinstance(timesteps, torch.Tensor):
        return None
    if timestep.untyped_storage().data_ptr() != timesteps.untyped_storage().data_ptr():
        return None
    index = int(timestep.storage_offset()) - int(timesteps.storage_offset())
    return index if 0 <= index < len(timesteps) else None


def find(
    scheduler: Any, timestep: Any, scopes: Iterable[Mapping[str, Any]] = ()
) -> tuple[Any, int | None]:
    """The timesteps a call's run goes through, and the raw index it stands at, or None.

    A timestep that is no view was computed from one: from the variable of the pipeline's own loop.

    Args:
        scheduler: of the pipeline.
        timestep: as the backbone is given it.
        scopes: variables of the pipeline's frames, innermost first; none if it is not running.

    >>> from types import SimpleNamespace
    >>> scheduler = SimpleNamespace(timesteps=torch.arange(5))
    >>> find(scheduler, torch.tensor(0.7), [{"t": scheduler.timesteps[3]}])[1]
    3
    """
    timesteps = getattr(scheduler, "timesteps", None)
    if not isinstance(timesteps, torch.Tensor):
        return timesteps, None
    if (raw := raw_index(timestep, timesteps)) is not None:
        return timesteps, raw
    for scope in scopes:
        # The loop may run over equal timesteps of another tensor: Allegro sets its scheduler twice,
        # and panoramas put a copy of its state back for each view.
        own = scope.get("timesteps")
        wholes = [timesteps, own] if _same_shape(own, timesteps) else [timesteps]
        for name in LOOP_VARIABLES:
            for whole in wholes:
                if (raw := raw_index(scope.get(name), whole)) is not None:
                    return whole, raw
    return timesteps, None


def place(scheduler: Any, offset: int, length: int) -> tuple[int, int, int]:
    """(step, evaluation, total) of the `offset`-th of a run's `length` timesteps.

    A scheduler of order 2 evaluates twice a step, the last one once.
    """
    if getattr(scheduler, "prk_timesteps", None) is not None:
        return _place_pndm(len(scheduler.prk_timesteps), offset, length)
    order = int(getattr(scheduler, "order", 1))
    return offset // order, offset % order, -(-length // order)


def _place_pndm(runge_kutta: int, offset: int, length: int) -> tuple[int, int, int]:
    """PNDM counts its own calls from the run's first one, wherever in `timesteps` that lies.

    Without the Runge-Kutta start the second call does the first step again; with it, the first
    three steps take four calls each.
    """
    if not runge_kutta:
        return max(0, offset - 1), int(offset == 1), max(1, length - 1)
    first = min(runge_kutta, length)
    total = -(-first // 4) + length - first
    if offset < runge_kutta:
        return offset // 4, offset % 4, total
    return offset - runge_kutta + runge_kutta // 4, 0, total


class Levels:
    """Noise levels of one run, all brought to the host when somebody first asks for one.

    Holds the run's own tensors: reports are read after the scheduler has been set for another run.
    """

    def __init__(self, scheduler: Any) -> None:
        names = ("timesteps", "sigmas", "alphas_cumprod")
        self._timesteps, self._sigmas, self._alphas = (
            getattr(scheduler, name, None) for name in names
        )

    @functools.cached_property
    def timesteps(self) -> list[float]:
        """The run's timesteps."""
        return [float(t) for t in self._timesteps.tolist()] if self._timesteps is not None else []

    @functools.cached_property
    def _sigma_list(self) -> list[float | None]:
        sigmas = self._sigmas.tolist() if isinstance(self._sigmas, torch.Tensor) else []
        if len(sigmas) >= len(self.timesteps):
            return list(sigmas)
        if self._alphas is None:
            return [None] * len(self.timesteps)
        alphas = self._alphas.tolist()
        return [((1 - alphas[int(t)]) / alphas[int(t)]) ** 0.5 for t in self.timesteps]

    def sigma(self, raw: int) -> float | None:
        """Sigma of a raw index, from the scheduler's own sigmas or its cumulative alphas."""
        return self._sigma_list[raw]


def _same_shape(one: Any, other: torch.Tensor) -> bool:
    return isinstance(one, torch.Tensor) and one.shape == other.shape
