"""Any diffusers pipeline: the clock is read from its scheduler, late, and nothing is patched.

`scheduler.timesteps` is a new tensor in each run, so its identity is the run. Most pipelines pass
the backbone a view of one of its elements, and the view's storage offset is the raw index, without
a device synchronisation. The others (flow matching) pass a new tensor that was computed from it:
there the scheduler's own `step_index` tells, and the call must come from this very pipeline.
"""

from __future__ import annotations

import copy
import functools
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tgate_plugins import pipeline_layouts
from tgate_sampling.adapter import Call
from tgate_sampling.backbones import adapter_for, unwrap
from tgate_sampling.driver import Driver
from tgate_sampling.errors import UnsupportedBackboneError
from tgate_sampling.hookspecs import RegisterDriver, hookimpl
from tgate_sampling.layout import LAYOUTS, SEPARATE, SINGLE, Layout
from tgate_sampling.steps import Noise, Outside, Position, StepContext, first_value

#: Where pipelines keep the module that is called at each evaluation.
COMPONENTS = ("unet", "transformer", "prior", "denoiser")

#: Schedulers whose `prediction_type` is read in other parameters than sqrt(a) x0 + sqrt(1 - a) n.
OTHER_PARAMETERS = ("EDM", "CosineDPM", "FlowMatch")

FOREIGN = (
    "a call that another pipeline or loop made on the same backbone ran ungated: attach the gating "
    "to that pipeline, or loop over gating.steps(timesteps)"
)


class PipelineDriver(Driver):
    """Reads `pipe.scheduler`."""

    name = "diffusers"

    def __init__(self, target: Any) -> None:
        super().__init__(None)
        self._pipe = weakref.ref(target)  # a gating must not keep a pipeline alive
        self._timesteps: torch.Tensor | None = None
        self._first = self._raw = self._call = 0
        self._token = object()
        self._levels = Levels(None)
        self._layouts: tuple[object, Layout | None] | None = None
        self._rows = 0

    @classmethod
    def matches(cls, target: Any) -> bool:
        return hasattr(target, "scheduler") and hasattr(target, "components")

    @classmethod
    def backbone(cls, target: Any, known: Callable[[Any], bool]) -> nn.Module:
        present = [m for n in COMPONENTS if isinstance(m := getattr(target, n, None), nn.Module)]
        for module in present:
            if known(module):
                return module
        if present:
            adapter_for(unwrap(present[0]))  # raises, naming the class and the adapters there are
        raise UnsupportedBackboneError(
            f"{type(target).__name__} has none of {', '.join(COMPONENTS)}: pass backbone=."
        )

    def locate(self, call: Call) -> Position | Outside:
        pipe = self._pipe()
        scheduler = getattr(pipe, "scheduler", None)
        timesteps = getattr(scheduler, "timesteps", None)
        raw = raw_index(call.timestep, timesteps)
        if pipe is not None and raw is None and running_pipeline(pipe) is pipe:
            raw = index_of(scheduler, call.timestep)
        if pipe is None or raw is None:
            return Outside(FOREIGN)
        if timesteps is not self._timesteps or raw < self._raw:
            # `from_pipe` and `**pipe.components` share the scheduler too, so that its timesteps
            # cannot tell the pipelines apart, and this one's settings say nothing of the other's.
            caller = running_pipeline(pipe)
            if caller is not None and caller is not pipe:
                return Outside(FOREIGN)
            self._timesteps, self._token = timesteps, object()
            self._rows = call.sample.shape[0]
            self._first, self._raw, self._call = raw, raw, 0
            self._levels = Levels(scheduler)
        elif raw == self._raw:
            self._call += 1
        else:
            self._raw, self._call = raw, 0
        assert isinstance(timesteps, torch.Tensor)
        return self._position(pipe, scheduler, timesteps, raw)

    def _position(self, pipe: Any, scheduler: Any, timesteps: torch.Tensor, raw: int) -> Position:
        length = len(timesteps) - self._first
        planned = getattr(pipe, "_num_timesteps", None)  # shorter with denoising_end
        if planned is not None:
            length = min(length, int(planned))
        index, evaluation, total = place(scheduler, raw - self._first, length)
        levels = self._levels
        noise = Noise(lambda: levels.sigma(raw), lambda: levels.timesteps[raw])
        return Position(
            self._token,
            StepContext(index, total, evaluation, noise),
            call=self._call,
            last=raw == self._first + length - 1,
        )

    def layout(self, call: Call) -> Layout | None:
        if call.context not in (None, "cond_uncond"):
            return SINGLE if self._guided() is False else SEPARATE
        if self._layouts is None or self._layouts[0] is not self._token:
            self._layouts = (self._token, self._find_layout(call))
        # A further call of the same step with other rows is a variation of cond (skip-layer
        # guidance), not a pair.
        other = self._layouts[1] != SEPARATE and call.sample.shape[0] != self._rows
        return SINGLE if self._call and other else self._layouts[1]

    def _find_layout(self, call: Call) -> Layout | None:
        pipe = self._pipe()
        if (guider := getattr_quietly(pipe, "guider")) is not None:
            pair = "pred_uncond" in (getattr_quietly(guider, "_input_predictions") or ())
            return SEPARATE if pair else SINGLE
        guided, known = self._guided(), pipeline_layouts.known_layout(pipe)
        if guided is False:
            return SINGLE
        if known is not None and (guided or known == SEPARATE):
            return known
        order = known or LAYOUTS["uncond_first"]
        if equal_parts(call, len(order)):
            return order
        return None if guided else SINGLE

    def _guided(self) -> bool | None:
        """Whether the pipeline says that it guides; SVD says so in a tensor."""
        guided = getattr_quietly(self._pipe(), "do_classifier_free_guidance")
        return None if guided is None else bool(guided)

    def separate(self, backbone: nn.Module) -> bool:
        pipe = self._pipe()
        known = pipeline_layouts.known_layout(pipe) == SEPARATE
        return known or hasattr(pipe, "guider") or hasattr(backbone, "cache_context")

    def guidance_scale(self) -> float | None:
        pipe = self._pipe()
        if type(pipe).__name__.startswith(pipeline_layouts.EMBEDDED):
            return None
        scale = getattr_quietly(pipe, "guidance_scale")
        if isinstance(scale, torch.Tensor):  # one for each frame, on the host (SVD)
            return float(scale.max())
        return float(scale) if isinstance(scale, (int, float)) else None

    def prediction_type(self) -> str | None:
        scheduler = getattr(self._pipe(), "scheduler", None)
        if type(scheduler).__name__.startswith(OTHER_PARAMETERS):
            return None
        found: str | None = getattr_quietly(getattr(scheduler, "config", None), "prediction_type")
        return found if found in ("epsilon", "v_prediction", "sample") else None

    def compiled(self, backbone: nn.Module) -> bool:
        present = [getattr(self._pipe(), name, None) for name in COMPONENTS]
        return any(getattr(module, "_orig_mod", None) is backbone for module in present)

    def evaluations(self, steps: int) -> Sequence[int]:
        scheduler: Any = copy.deepcopy(getattr(self._pipe(), "scheduler", None))
        try:
            scheduler.set_timesteps(steps)
        except (AttributeError, ValueError):  # asks for more, as flow matching does
            return super().evaluations(steps)
        length = len(scheduler.timesteps)
        places = [place(scheduler, offset, length)[0] for offset in range(length)]
        return [places.count(step) for step in range(max(places) + 1)]

    def opaque(self) -> str | None:
        pipe = self._pipe()
        if getattr_quietly(pipe, "do_perturbed_attention_guidance"):
            return "perturbed-attention guidance adds a branch that cannot be estimated"
        return pipeline_layouts.opaque(pipe)

    def aside(self) -> str | None:
        return pipeline_layouts.aside(self._pipe())

    def close(self) -> None:
        self._timesteps = None


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


def running_pipeline(pipe: Any) -> Any:
    """The nearest pipeline among our callers: `pipe`, another one, or None."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        if frame.f_code.co_name == "__call__":
            owner = frame.f_locals.get("self")
            if owner is pipe or PipelineDriver.matches(owner):
                return owner
    return None


def index_of(scheduler: Any, timestep: Any) -> int | None:
    """The raw index of the call a pipeline is about to make, where its timestep is no view.

    `step_index` says which step comes next, and is None before the first; a scheduler without one
    (DDIM, DDPM) is asked by value, since its timesteps are unique. None where nothing fits.
    """
    count = len(scheduler.timesteps)
    if hasattr(scheduler, "step_index"):
        index = scheduler.step_index
        index = (getattr(scheduler, "begin_index", None) or 0) if index is None else index
        return int(index) if index < count else None
    value = first_value(timestep)
    found = [i for i, t in enumerate(scheduler.timesteps.tolist()) if float(t) == value]
    return found[0] if len(found) == 1 else None


def equal_parts(call: Call, parts: int) -> bool:
    """Whether all equal parts of a batch hold the same latents: waits for the device once."""
    sample = call.sample
    if sample.shape[0] % parts:
        return False
    if call.latent_channels is not None:
        sample = sample[:, : call.latent_channels]
    first, *others = sample.chunk(parts)
    return all(torch.equal(first, other) for other in others)


def getattr_quietly(target: Any, name: str) -> Any:
    """An attribute, or None also where a property is not ready before the first call."""
    try:
        return getattr(target, name, None)
    except Exception:
        return None


@hookimpl
def tgate_register_drivers(register: RegisterDriver) -> None:
    register("diffusers", PipelineDriver)
