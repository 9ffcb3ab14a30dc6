"""Any diffusers pipeline: the clock is read from its scheduler, late, and nothing is patched.

`scheduler.timesteps` is a new tensor in each run, so its identity is the run. Most pipelines pass
the backbone a view of one of its elements, and the view's storage offset is the raw index, without
a device synchronisation. The others (most of flow matching) pass a new tensor that was computed
from such a view: there the variable of the pipeline's own loop tells.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from tgate_plugins import pipeline_layouts
from tgate_plugins._callers import caller, is_pipeline, variable
from tgate_plugins._timesteps import Levels, find, place
from tgate_sampling.adapter import Call
from tgate_sampling.backbones import adapter_for, unwrap
from tgate_sampling.driver import Driver
from tgate_sampling.errors import UnsupportedBackboneError
from tgate_sampling.gating import active_gating
from tgate_sampling.hookspecs import RegisterDriver, hookimpl
from tgate_sampling.layout import LAYOUTS, SEPARATE, SINGLE, Layout
from tgate_sampling.steps import Noise, Outside, Position, StepContext

#: Where pipelines keep the module that is called at each evaluation.
COMPONENTS = ("unet", "transformer", "prior", "denoiser")

#: What pipelines call the property, or the variable, that says whether a run is guided.
GUIDED = "do_classifier_free_guidance"

#: What modular pipelines call the inputs of one call that their guider has made.
GUIDED_BATCH = "guider_state_batch"

#: Wan 2.2 has two backbones, one for the noisier steps and one for the rest.
EXPERTS = ("transformer", "transformer_2")

#: Schedulers whose `prediction_type` is read in other parameters than sqrt(a) x0 + sqrt(1 - a) n.
OTHER_PARAMETERS = ("EDM", "CosineDPM", "FlowMatch")

FOREIGN = (
    "a call that another pipeline or loop made on the same backbone ran ungated: attach the gating "
    "to that pipeline, or loop over gating.steps(timesteps)"
)

ASTRAY = (
    "a call of the pipeline itself ran ungated, since its loop runs over timesteps that are none "
    "of its scheduler's"
)


class PipelineDriver(Driver):
    """Reads `pipe.scheduler`."""

    name = "diffusers"

    def __init__(self, target: Any) -> None:
        super().__init__(None)
        self._pipe = weakref.ref(target)  # a gating must not keep a pipeline alive
        self._timesteps: torch.Tensor | None = None
        self._first = self._length = self._raw = self._call = 0
        self._token = object()
        self._levels = Levels(None)
        self._says_guided: bool | None = None
        self._layouts: tuple[tuple[object, bool], Layout | None] | None = None
        self._rows = 0
        self._said: Any = None

    @classmethod
    def matches(cls, target: Any) -> bool:
        return is_pipeline(target)

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
        # `from_pipe` and `**pipe.components` share the scheduler too, so that its timesteps cannot
        # tell the pipelines apart, and this one's settings say nothing of the other's.
        calling, frames = caller(pipe)
        timesteps, raw = find(scheduler, call.timestep, (f.f_locals for f in frames))
        if calling is not None and calling is not pipe:
            return Outside(FOREIGN)
        if raw is None:
            return Outside(FOREIGN if calling is None else ASTRAY)
        if timesteps is not self._timesteps or raw < self._raw:
            self._timesteps, self._token = timesteps, object()
            self._rows = call.sample.shape[0]
            self._first, self._raw, self._call = raw, raw, 0
            self._length = len(timesteps) - raw
            if calling is pipe:  # which may leave the last ones out (denoising_end)
                self._length = min(self._length, planned(pipe) or self._length)
            self._levels = Levels(scheduler)
            self._says_guided = variable(frames, GUIDED)
        elif raw == self._raw:
            self._call += 1
        else:
            self._raw, self._call = raw, 0
        self._said = variable(frames, GUIDED_BATCH)
        return self._position(scheduler, raw)

    def _position(self, scheduler: Any, raw: int) -> Position:
        offset, length, levels = raw - self._first, self._length, self._levels
        index, evaluation, total = place(scheduler, offset, length)
        noise = Noise(lambda: levels.sigma(raw), lambda: levels.timesteps[raw])
        return Position(
            self._token,
            StepContext(index, total, evaluation, noise),
            call=self._call,
            calls=getattr_quietly(getattr_quietly(self._pipe(), "guider"), "num_conditions"),
            last=offset == length - 1,
        )

    def context(self, call: Call) -> str | None:
        """The pipeline's own name for the call, or its guider's where the backbone takes none."""
        key = getattr_quietly(getattr_quietly(self._pipe(), "guider"), "_identifier_key")
        return call.context or (getattr_quietly(self._said, key) if key else None)

    def layout(self, call: Call) -> Layout | None:
        if call.context not in (None, "cond_uncond"):
            return SINGLE if self._guided() is False else SEPARATE
        # A callback may switch guidance off in the middle of a run.
        key = (self._token, getattr_quietly(self._pipe(), GUIDED) is True)
        if self._layouts is None or self._layouts[0] != key:
            if self._layouts is not None and self._layouts[0][0] is self._token:
                self._rows = call.sample.shape[0]
            self._layouts = (key, self._find_layout(call))
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
        """Whether the pipeline says that it guides; SVD says so in a tensor, some in a variable."""
        guided = getattr_quietly(self._pipe(), GUIDED)
        guided = self._says_guided if guided is None else guided
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
            length = len(scheduler.timesteps)
        except Exception:  # it asks for more, each scheduler in its own way
            return super().evaluations(steps)
        places = [place(scheduler, offset, length)[0] for offset in range(length)]
        # The timesteps of some end with the very last noise level, where nothing is evaluated.
        return [places.count(step) for step in range(max(places) + 1)][:steps]

    def opaque(self) -> str | None:
        pipe = self._pipe()
        if getattr_quietly(pipe, "do_perturbed_attention_guidance"):
            return "perturbed-attention guidance adds a branch that cannot be estimated"
        return pipeline_layouts.opaque(pipe)

    def aside(self) -> str | None:
        return pipeline_layouts.aside(self._pipe())

    def remark(self, backbone: nn.Module) -> str | None:
        pipe = self._pipe()
        experts = {name: unwrap(getattr(pipe, name, None)) for name in EXPERTS}
        others = [name for name, module in experts.items() if module is not backbone]
        if None in experts.values() or len(others) == len(EXPERTS):
            return None
        if active_gating(experts[others[0]]) is not None:
            return None
        return (
            f"{others[0]} makes a part of the steps and runs ungated: attach a second gating with "
            f"backbone=pipe.{others[0]} to have it gated too"
        )

    def finished(self) -> bool:
        scheduler = getattr(self._pipe(), "scheduler", None)
        index, timesteps = (getattr_quietly(scheduler, n) for n in ("step_index", "timesteps"))
        return index is not None and index >= len(timesteps)

    def close(self) -> None:
        self._timesteps = self._said = None


def equal_parts(call: Call, parts: int) -> bool:
    """Whether all equal parts of a batch hold the same latents: waits for the device once."""
    sample = call.sample
    if sample.shape[0] % parts:
        return False
    if call.latent_channels is not None:
        sample = sample[:, : call.latent_channels]
    first, *others = sample.chunk(parts)
    return all(torch.equal(first, other) for other in others)


def planned(pipe: Any) -> int | None:
    """How many timesteps the pipeline's loop goes through, where it says so."""
    count = getattr(pipe, "_num_timesteps", None)
    return None if count is None else int(count)


def getattr_quietly(target: Any, name: str) -> Any:
    """An attribute, or None also where a property is not ready before the first call."""
    try:
        return getattr(target, name, None)
    except Exception:
        return None


@hookimpl
def tgate_register_drivers(register: RegisterDriver) -> None:
    register("diffusers", PipelineDriver)
