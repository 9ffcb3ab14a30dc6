"""What an adapter's checks look at: an adapter, a model, and calls of it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.gating import Gating, gate
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl
from tgate_sampling.report import Report
from tgate_sampling.testing.batches import (
    Batch,
    Inputs,
    Timestep,
    by_name,
    cut,
    device_of,
    equal_rows,
    filled,
)
from tgate_sampling.testing.results import ConformanceError, DoesNotApplyError, claim
from tgate_sampling.testing.script import Script

#: Timesteps of the runs that checks make.
TIMES = (900.0, 600.0, 300.0, 1.0)

_numbers = itertools.count()


class _Plugin:
    """Brings one adapter in, as any plugin would."""

    def __init__(self, label: str, made: Callable[[], Adapter], model: type[nn.Module]) -> None:
        self._label, self._made, self._model = label, made, model

    @hookimpl
    def tgate_register_adapters(self, register: RegisterAdapter) -> None:
        made: Any = self._made
        register(self._label, made, models=(self._model.__name__,))


@contextmanager
def plugged(adapter: Adapter | type[Adapter], model: type[nn.Module]) -> Iterator[None]:
    """While the block lasts, `adapter` is the one that knows `model`, registered or not."""
    label = f"{adapter.name or 'adapter'} under test {next(_numbers)}"
    made = adapter if isinstance(adapter, type) else lambda: adapter
    plugin = _Plugin(label, made, model)
    manager().register(plugin, label)
    try:
        yield
    finally:
        manager().unregister(plugin, label)


@dataclass(frozen=True)
class AdapterCase:
    """An adapter with a model to try it on.

    Args:
        adapter: the class, or an instance.
        model_factory: returns a fresh model, with the same weights each time.
        inputs: `inputs(rows)` gives all keyword arguments of one call but the timestep; the latents
            of all rows are equal, their texts differ. None takes the adapter's `example_inputs`,
            filled with seeded numbers.
        timestep: `timestep(rows, value)` gives the timestep's keyword arguments; None gives one
            tensor without dimensions, or one in the shape of `example_inputs`.
    """

    adapter: Adapter | type[Adapter]
    model_factory: Callable[[], nn.Module]
    inputs: Inputs | None = None
    timestep: Timestep | None = None

    @property
    def verbs(self) -> Adapter:
        """An adapter to ask."""
        return self.adapter() if isinstance(self.adapter, type) else self.adapter

    def model(self) -> nn.Module:
        """A fresh model, in evaluation mode."""
        made = self.model_factory()
        claim(
            isinstance(made, nn.Module),
            f"model_factory() returned {type(made).__name__}: return an nn.Module",
        )
        return made.eval()

    def sites(self, model: nn.Module) -> list[Site]:
        """The sites of a model."""
        return list(self.verbs.sites(model))

    def kinds(self, model: nn.Module) -> list[str]:
        """The kinds of site there are, without repetition."""
        return list(dict.fromkeys(site.kind for site in self.sites(model)))

    def some_kinds(self, model: nn.Module) -> list[str]:
        """The kinds of site there are.

        Raises:
            DoesNotApplyError: there is no site.
        """
        kinds = self.kinds(model)
        if not kinds:
            raise DoesNotApplyError("the adapter lists no site")
        return kinds

    def guided(self, model: nn.Module) -> bool:
        """Whether guidance takes two branches of rows."""
        return self.verbs.guided(model)

    def gates(self, model: nn.Module) -> list[str]:
        """All gates that this model has, blocks aside."""
        return [*(["guidance"] if self.guided(model) else []), *self.kinds(model)]

    # -- batches --------------------------------------------------------------------------------

    def batch(self, model: nn.Module, rows: int) -> Batch:
        """A batch of so many rows; for a guided model the first half is uncond's."""
        if self.inputs is None:
            return self._example(model, rows)
        given, (_, name) = dict(self.inputs(rows)), self.verbs.arguments(model)
        device = device_of(given)

        def timestep(rows: int, value: float) -> Mapping[str, Any]:
            return {name: torch.tensor(value, device=device)}

        return Batch(rows, given, self.timestep or timestep)

    def _example(self, model: nn.Module, rows: int) -> Batch:
        recipe = self.verbs.example_inputs(model, rows=rows)
        if recipe is None:
            raise ConformanceError(
                "the adapter has no example_inputs for this model: pass inputs=, a function of the "
                "number of rows that returns the keyword arguments of one call"
            )
        named, (sample, when) = by_name(model, *recipe), self.verbs.arguments(model)
        claim(
            {sample, when} <= set(named),
            f"example_inputs gives no {sample!r} or no {when!r}, the names that the adapter has "
            "for sample and timestep: give both",
        )
        example = torch.as_tensor(named.pop(when))
        given = filled(named, torch.Generator().manual_seed(0))
        given[sample] = equal_rows(given[sample])

        def timestep(rows: int, value: float) -> Mapping[str, Any]:
            shape = (rows,) if example.ndim else ()
            return {when: torch.full(shape, value, dtype=example.dtype, device=example.device)}

        return Batch(rows, given, self.timestep or timestep)

    def part(self, model: nn.Module, batch: Batch, rows: slice) -> Batch:
        """Some rows of a batch, cut by hand."""
        half = self.batch(model, batch.rows // 2).inputs
        inputs = cut(batch.inputs, half, batch.rows, rows)
        return Batch(rows.stop - rows.start, inputs, batch.timestep)

    # -- runs -----------------------------------------------------------------------------------

    def gate(self, model: nn.Module, policy: Any, **options: Any) -> Gating:
        """`tg.gate` with the adapter under test, whichever adapter is registered."""
        options.setdefault("layout", "uncond_first" if self.guided(model) else "single")
        with plugged(self.adapter, type(model)):
            return gate(model, policy, **options)

    def play(
        self,
        model: nn.Module,
        calls: Sequence[tuple[Batch, float]],
        gating: Gating | None = None,
        **more: Any,
    ) -> list[Any]:
        """One backbone call a step, bare or gated; returns what came back."""
        times = [value for _, value in calls]
        results = []
        with torch.no_grad():
            for index, _ in enumerate(times if gating is None else gating.steps(times)):
                batch, value = calls[index]
                results.append(model(**batch.at(value), **more))
        return results

    def bare(self, model: nn.Module, batch: Batch, value: float) -> torch.Tensor:
        """The output of the model as it is."""
        return self.output(self.play(model, [(batch, value)])[0])

    def run(
        self,
        model: nn.Module,
        closed: Sequence[Collection[str]],
        calls: Sequence[tuple[Batch, float]],
        *,
        estimator: str = "hold",
        **options: Any,
    ) -> tuple[list[torch.Tensor], Report]:
        """A gated run by a script; outputs and report."""
        policy = Script(closed, gates=self.gates(model), estimator=estimator)
        with self.gate(model, policy, **options) as gating:
            results = self.play(model, calls, gating)
        claim(
            bool(gating.runs),
            "the gated model was called and no run was seen: the model must be called through "
            "nn.Module's __call__, whose hooks tell where a run stands",
        )
        return [self.output(r) for r in results], gating.report

    def output(self, result: Any) -> torch.Tensor:
        """The predicted tensor, as the adapter finds it; a copy."""
        found: Any = self.verbs.output(result)
        if isinstance(found, (list, tuple)):
            found = torch.stack(tuple(found))
        claim(
            isinstance(found, torch.Tensor),
            f"output() found {type(found).__name__} in what the model returned "
            f"({type(result).__name__}): override it to return the predicted tensor",
        )
        output: torch.Tensor = found.clone()
        return output


def takes(model: nn.Module, parameter: str) -> bool:
    """Whether the model's forward has a parameter of that name."""
    return parameter in inspect.signature(model.forward).parameters
