"""`cfg_cutoff`: guidance off from a point of the run on, by diffusers' own callback.

The recipe people use without any package: `SDCFGCutoffCallback` and its relatives, handed to the
pipeline as `callback_on_step_end`, set the guidance scale to 0 and drop the unconditional half.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from tgate_plugins._options import check_fraction
from tgate_plugins.methods._pipes import evaluations, no_guidance
from tgate_plugins.methods._restore import as_found
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting
from tgate_sampling.steps import gate_index

#: diffusers' callbacks, by the beginning of the pipeline's class name; the longest counts.
CALLBACKS: Final = {
    "StableDiffusion3": "SD3CFGCutoffCallback",
    "StableDiffusion": "SDCFGCutoffCallback",
    "StableDiffusionXL": "SDXLCFGCutoffCallback",
    "StableDiffusionXLControlNet": "SDXLControlnetCFGCutoffCallback",
}


@dataclass(frozen=True)
class CfgCutoff(Method):
    """Drop the unconditional branch for the rest of the run.

    diffusers counts the cut-off in evaluations and acts one later; here it falls on the step where
    `fixed_step:fraction=...` closes its gate, so that both may be compared.

    Args:
        fraction: the share of the run that is guided.
    """

    fraction: float = 0.4
    part = "related"
    source = "diffusers.callbacks"

    def __post_init__(self) -> None:
        check_fraction(self.fraction)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        if reason := no_guidance(pipe, setting):
            return reason
        name, kind = type(pipe).__name__, callback_name(pipe)
        if "callback_on_step_end" not in inspect.signature(type(pipe).__call__).parameters:
            return f"{name} takes no callback_on_step_end, through which diffusers cuts guidance."
        if kind is None:
            return f"diffusers has no CFGCutoffCallback for {name}."
        known = getattr(pipe, "_callback_tensor_inputs", ())
        unheard = [t for t in _callback(kind).tensor_inputs if t not in known]
        if unheard:
            return f"{kind} asks {name} for {', '.join(unheard)}, which it does not hand out."
        return None

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        first = gate_index(setting.steps, fraction=self.fraction)
        # It acts at the end of this evaluation, the last one that is guided.
        last = sum(evaluations(pipe, setting.steps)[:first]) - 1
        callback = _callback(callback_name(pipe))(cutoff_step_ratio=None, cutoff_step_index=last)
        with as_found(pipe):
            arguments = {"callback_on_step_end": callback}
            yield Applied(setting.steps, setting.guidance_scale, arguments)


def callback_name(pipe: Any) -> str | None:
    """The callback of diffusers for this pipeline, or None."""
    found = [start for start in CALLBACKS if type(pipe).__name__.startswith(start)]
    return CALLBACKS[max(found, key=len)] if found else None


def _callback(name: str | None) -> Any:
    import diffusers.callbacks

    return getattr(diffusers.callbacks, str(name))


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("cfg_cutoff", CfgCutoff)
