"""Batches for a backbone: filling a recipe with numbers, and cutting rows out by hand.

Cutting never asks the adapter that is under test: what belongs to the rows is what shrinks when the
batch is half as large.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from tgate_sampling.layout import map_tensors, tensors_in

#: `inputs(rows)`: all keyword arguments of one call but the timestep.
Inputs: TypeAlias = Callable[[int], Mapping[str, Any]]
#: `timestep(rows, value)`: the keyword arguments that say when a call takes place.
Timestep: TypeAlias = Callable[[int, float], Mapping[str, Any]]


@dataclass(frozen=True)
class Batch:
    """The arguments of one backbone call, at any timestep.

    Args:
        rows: of the batch.
        inputs: keyword arguments but for the timestep.
        timestep: gives that one.
    """

    rows: int
    inputs: Mapping[str, Any]
    timestep: Timestep

    def at(self, value: float) -> dict[str, Any]:
        """Keyword arguments of a call; tensors are copies, so that no call can spoil the next."""
        given = {**self.inputs, **self.timestep(self.rows, value)}
        copied: dict[str, Any] = map_tensors(torch.clone, given)
        return copied

    def to(self, dtype: torch.dtype) -> Batch:
        """The same with floating-point inputs in another dtype."""
        cast = map_tensors(lambda t: t.to(dtype) if t.is_floating_point() else t, dict(self.inputs))
        return Batch(self.rows, cast, self.timestep)


def filled(value: Any, generator: torch.Generator) -> Any:
    """The same nest with seeded numbers: normal floats, integers 0, booleans True."""

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, generator=generator).to(tensor)
        # A mask that hides everything makes NaNs.
        return torch.full_like(tensor, tensor.dtype == torch.bool)

    return map_tensors(fill, value)


def equal_rows(sample: Any) -> Any:
    """The first row in place of every row, as branches of one image have it.

    >>> equal_rows(torch.tensor([[1.0], [2.0]])).tolist()
    [[1.0], [1.0]]
    """
    if isinstance(sample, torch.Tensor):
        return sample[:1].expand_as(sample).clone()
    return type(sample)(map_tensors(torch.clone, sample[0]) for _ in sample)


def by_name(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Positional arguments under their names in the model's forward, with the others."""
    bound = inspect.signature(model.forward).bind_partial(*args, **kwargs)
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def by_position(
    model: nn.Module, named: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """As many leading arguments as there are, by position; the others by name."""
    args, rest = [], dict(named)
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if name not in rest or parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            break
        args.append(rest.pop(name))
    return tuple(args), rest


def cut(whole: Any, half: Any, rows: int, part: slice) -> Any:
    """The rows of `part` in everything that shrinks with the batch.

    Args:
        whole: inputs of `rows` rows.
        half: the same for half as many.
        rows: rows of `whole`.
        part: which of them to keep.

    >>> cut({"x": [10, 11], "y": [5, 6]}, {"x": [10], "y": [5, 6]}, 2, slice(1, 2))
    {'x': [11], 'y': [5, 6]}
    """
    if isinstance(whole, torch.Tensor):
        sizes = zip(whole.shape, half.shape, strict=True)
        grown = [dim for dim, (size, less) in enumerate(sizes) if size == 2 * less > 0]
        if not grown:
            return whole
        places = _scaled(part, whole.shape[grown[0]] // rows)
        return whole.narrow(grown[0], places.start, places.stop - places.start)
    if isinstance(whole, Mapping):
        return {k: cut(v, half[k], rows, part) for k, v in whole.items()}
    if isinstance(whole, (list, tuple)):
        if len(whole) == 2 * len(half) > 0:
            return whole[_scaled(part, len(whole) // rows)]
        pairs = zip(whole, half, strict=True)
        return type(whole)(cut(one, other, rows, part) for one, other in pairs)
    return whole


def _scaled(part: slice, unit: int) -> slice:
    """The same rows where each takes `unit` places, as frames do."""
    return slice(part.start * unit, part.stop * unit)


def tensors_of(result: Any) -> list[torch.Tensor]:
    """Copies of all tensors in what a model returned, without asking the adapter for its output."""
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping)):
        result = [getattr(result, field.name) for field in dataclasses.fields(result)]
    elif isinstance(result, Mapping):
        result = dict(result)
    return [tensor.clone() for tensor in tensors_in(result)]


def device_of(inputs: Mapping[str, Any]) -> torch.device:
    """Where a batch lies."""
    tensors = tensors_in(dict(inputs))
    return tensors[0].device if tensors else torch.device("cpu")
