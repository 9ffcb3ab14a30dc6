"""Where a sampler's own loop stands, and whether a gating agreed with it.

The truth never comes from our clock: a recorder takes the place of the sampler's own loop
(`trange`, `scheduler.step`), a fake backbone asks it at each evaluation, and `wrong_decisions`
compares what the report says was held, and carried out, with what a gate at a known true step
requires.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import nn

from tgate_sampling._manager import manager
from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.hookspecs import RegisterAdapter, hookimpl
from tgate_sampling.report import Report


class Loop:
    """Stands where a sampler's own loop stands; takes the place of `trange` and of `range`."""

    def __init__(self) -> None:
        self.step = -1

    def __call__(self, *bounds: int, disable: bool | None = None) -> Iterator[int]:
        return self.over(range(*bounds))

    def over(self, items: Iterable[Any]) -> Iterator[Any]:
        """Iterate, and know which item it is."""
        for self.step, item in enumerate(items):
            yield item


class Attention(nn.Module):
    """A cross-attention site that costs nothing."""

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return sample.clone()


class ClockUNet(diffusers.ModelMixin, ConfigMixin):
    """A backbone of microseconds that asks for the true step at each evaluation.

    Its output, sample / (1 + timestep^2), does not depend on its site: a sampler takes the same way
    whatever is gated. As a denoiser it is the exact one for data of unit variance.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, in_channels: int = 4, sample_size: int = 2, time_cond_proj_dim: int | None = None
    ) -> None:
        super().__init__()
        self.attn = Attention()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.true_step: Callable[[], int] = lambda: -1
        self.truth: list[int] = []

    def forward(self, sample: torch.Tensor, timestep: Any, *_: Any, **__: Any) -> Any:
        self.truth.append(self.true_step())
        assert self.attn(sample).shape == sample.shape  # what is reused has the rows that run
        level = torch.as_tensor(timestep).to(sample.dtype).reshape(-1, 1, 1, 1)
        return (sample / (1 + level * level),)


class ClockAdapter(Adapter):
    """One cross site."""

    name = "clock"

    def sites(self, backbone: nn.Module) -> Sequence[Site]:
        return [Site("attn", "cross", backbone.get_submodule("attn"))]


class ClockPlugin:
    """What a test registers to have `ClockUNet` gated."""

    @hookimpl
    def tgate_register_adapters(self, register: RegisterAdapter) -> None:
        register("clock", ClockAdapter, models=("ClockUNet",))


@contextmanager
def clock_backbone() -> Iterator[None]:
    """`ClockUNet` can be gated inside."""
    plugin = ClockPlugin()
    manager().register(plugin, "clock")
    try:
        yield
    finally:
        manager().unregister(plugin)
        manager().adapters.forget("clock")


class Denoiser(nn.Module):
    """A k-diffusion denoiser around a `ClockUNet`."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self.inner_model = ClockUNet()
        self.inner_model.true_step = lambda: loop.step
        self.levels: list[float] = []

    @property
    def truth(self) -> list[int]:
        """The true step of each evaluation so far."""
        return self.inner_model.truth

    @property
    def rises(self) -> set[int]:
        """The true steps that began at a higher noise level than the one before."""
        evaluated = zip(self.truth, self.levels, strict=True)
        first = dict(reversed(list(evaluated)))  # the level of each step's first evaluation
        return {s for s in first if s and first[s] > first[s - 1]}

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, **extra: Any) -> torch.Tensor:
        self.levels.append(float(sigma[0]))
        denoised: torch.Tensor = self.inner_model(x, sigma)[0]
        return denoised


def wrong_decisions(
    report: Report,
    truth: Sequence[int],
    gate: int,
    *,
    gates: Collection[str] = ("cross",),
    opens: Collection[int] = (),
) -> list[tuple[int, int, str]]:
    """The evaluations where a gate was not what a gate at true step `gate` requires.

    Args:
        report: of the run.
        truth: the true step of each evaluation, in order.
        gate: the first true step that must be closed; nothing ever closes in step 0.
        gates: what must close.
        opens: true steps past the gate that must be open all the same, as where sigma rises.

    Returns:
        (evaluation, true step, gate) of each wrong one: not decided so, or not carried out.
    """
    held = [(s.decision.closed, _carried_out(c)) for s in report.steps for c in s.calls]
    wrong = []
    for number, (step, (closed, carried)) in enumerate(zip(truth, held, strict=True)):
        must = step >= max(1, gate) and step not in opens
        wrong += [(number, step, g) for g in gates if {g in closed, g in carried} != {must}]
    return wrong


def wrong_steps(report: Report, truth: Sequence[int]) -> list[tuple[int, int, int]]:
    """(evaluation, true step, our step) where they differ; empty: right for any gate there is."""
    ours = [s.index for s in report.steps for _ in s.calls]
    pairs = enumerate(zip(truth, ours, strict=True))
    return [(number, true, our) for number, (true, our) in pairs if true != our]


def evaluations(report: Report) -> dict[int, int]:
    """Evaluations by step, as reported."""
    return {s.index: s.evaluations for s in report.steps}


def true_evaluations(truth: Sequence[int]) -> dict[int, int]:
    """Evaluations by step, as they were."""
    return dict(Counter(truth))


def _carried_out(call: Any) -> frozenset[str]:
    guidance = {"guidance"} if call.ran < call.rows else set()
    return frozenset(guidance | {kind for kind, names in call.reused.items() if names})
