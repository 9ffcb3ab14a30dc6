"""Every hook a plugin may implement. Mark implementations with `tgate_sampling.hookimpl`.

A plugin is a module (or an instance with plain identity); hookimpls take required arguments only.
Pluggy is asked when plugins load and once a step at most, never inside an attention call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tgate_sampling.adapter import Adapter
    from tgate_sampling.decision import Decision
    from tgate_sampling.driver import Driver
    from tgate_sampling.layer import Layer
    from tgate_sampling.method import Method
    from tgate_sampling.policy import Policy
    from tgate_sampling.report import Report
    from tgate_sampling.run import Run
    from tgate_sampling.steps import StepContext

PROJECT = "tgate_sampling"
PREFIX = "tgate_"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class RegisterPolicy(Protocol):
    def __call__(self, name: str, factory: Callable[..., Policy]) -> None: ...


class RegisterAdapter(Protocol):
    def __call__(self, name: str, adapter: type[Adapter], *, models: tuple[str, ...]) -> None: ...


class RegisterDriver(Protocol):
    def __call__(self, name: str, driver: type[Driver]) -> None: ...


class RegisterLayer(Protocol):
    def __call__(self, name: str, layer: type[Layer]) -> None: ...


class RegisterSampler(Protocol):
    def __call__(self, name: str, load: Callable[[], Callable[..., Any]]) -> None: ...


class RegisterMethod(Protocol):
    def __call__(self, name: str, factory: Callable[..., Method]) -> None: ...


@hookspec(historic=True)
def tgate_register_policies(register: RegisterPolicy) -> None:
    """Give policies their names.

    Args:
        register: `register("fixed_step", FixedStep)`; the factory's parameters are the policy's
            options. A taken name is refused, naming both owners.
    """


@hookspec(historic=True)
def tgate_register_adapters(register: RegisterAdapter) -> None:
    """Say which backbone classes an adapter carries gates into.

    Args:
        register: `register("diffusers-unet", UNetAdapter, models=("UNet2DConditionModel",))`;
            models are class names, looked up along a backbone's bases, so nothing is imported;
            `("*",)` is asked last, for a backbone that nobody names (`Adapter.suits`).
    """


@hookspec(historic=True)
def tgate_register_drivers(register: RegisterDriver) -> None:
    """Add a way to tell where in a run a backbone call stands.

    Args:
        register: `register("diffusers", PipelineDriver)`; drivers are asked `matches(target)` in
            the order of registration, outsiders before ours.
    """


@hookspec(historic=True)
def tgate_register_layers(register: RegisterLayer) -> None:
    """Add something that skips whole blocks, for `compose=`.

    Args:
        register: `register("deepcache", DeepCacheLayer)`.
    """


@hookspec(historic=True)
def tgate_register_samplers(register: RegisterSampler) -> None:
    """Add a sampler that `wrap_sampler` knows by name.

    Args:
        register: `register("dpmpp_2m", load)`; `load()` imports and returns the function.
    """


@hookspec(historic=True)
def tgate_register_methods(register: RegisterMethod) -> None:
    """Add a way to speed a pipeline up that a study can compare.

    Args:
        register: `register("deepcache", DeepCache)`; the factory's parameters are the method's
            options, and calling it imports nothing.
    """


@hookspec
def tgate_run_started(run: Run) -> None:
    """A run has begun. An observer: results are ignored, an error is warned about once.

    Args:
        run: its policy, backbone and caches; read only.
    """


@hookspec
def tgate_step_finished(run: Run, step: StepContext, decision: Decision) -> None:
    """All backbone calls of one step are done. An observer.

    Args:
        run: the run.
        step: the step that ended.
        decision: what was in force, after legality.
    """


@hookspec
def tgate_run_finished(run: Run, report: Report) -> None:
    """A run has ended, whole or not; its caches are gone. An observer.

    Args:
        run: the run.
        report: what was decided, saved and spent.
    """
