"""k-diffusion samplers: the step is tracked from evaluations and callbacks together.

The first two calls of Euler and of Heun are bit-identical, so no rule on calls alone can tell a
second evaluation from a second step. What is known is used in this order: the sampler's own number
of evaluations a step, then what its callbacks teach, then the noise level.
"""

from __future__ import annotations

import inspect
import itertools
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch

from tgate_sampling.adapter import Call
from tgate_sampling.driver import Driver
from tgate_sampling.errors import MissingExtraError, OptionError
from tgate_sampling.hookspecs import RegisterDriver, RegisterSampler, hookimpl
from tgate_sampling.layout import Layout
from tgate_sampling.steps import RISE, Noise, Outside, Position, StepContext, first_value

#: Model evaluations a step, of samplers whose code was read. `dpm_adaptive` takes its `order`,
#: and the last groups of `dpm_fast` are shorter: see `evaluations_per_step`.
EVALUATIONS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "sample_euler": 1,
        "sample_euler_ancestral": 1,
        "sample_heun": 2,
        "sample_dpm_2": 2,
        "sample_dpm_2_ancestral": 2,
        "sample_lms": 1,
        "sample_dpm_fast": 3,
        "sample_dpm_adaptive": 3,
        "sample_dpmpp_2s_ancestral": 2,
        "sample_dpmpp_sde": 2,
        "sample_dpmpp_2m": 1,
        "sample_dpmpp_2m_sde": 1,
        "sample_dpmpp_3m_sde": 1,
        "sample_lcm": 1,
        "sample_ddpm": 1,
        "restart_sampler": 2,
    }
)

#: The samplers of k-diffusion 0.1.1, by their short names.
SAMPLERS: Final[tuple[str, ...]] = tuple(
    name.removeprefix("sample_")
    for name in EVALUATIONS
    if name not in ("sample_lcm", "sample_ddpm", "restart_sampler")
)

#: Samplers whose noise level rises on the way although their schedule falls.
RESTARTS: Final = frozenset({"restart_sampler"})

#: The most that k-diffusion's s_churn lifts a noise level; a greater rise is a restart.
CHURN: Final = 2**0.5


class StepTracker:
    """Which step an evaluation belongs to, from what a sampler shows of itself.

    Args:
        evaluations: model calls a step, or of each step, or None where they must be learned.
        sigmas: the schedule, for the first step of unknown samplers.
    """

    def __init__(
        self, evaluations: int | Sequence[int] | None, sigmas: Sequence[float] | None
    ) -> None:
        self._known = evaluations if isinstance(evaluations, int) else None
        each = evaluations if isinstance(evaluations, Sequence) else ()
        self._ends = tuple(itertools.accumulate(each))  # evaluations done when each step is
        self._sigmas = sigmas
        self._base = -1  # the last callback's step
        self._since = 0  # evaluations since that callback
        self._seen = 0  # evaluations in all
        self._mode: str | None = None  # when in a step the callback comes
        self._place = (-1, 0)  # of the last evaluation
        self._level: float | None = None  # its noise level, where only that is known
        self._restarted = 0  # steps by which restarts have put us ahead of the schedule

    def callback(self, step: int | None) -> None:
        """The sampler called back, saying step `step` (None: the next one)."""
        index = self._base + 1 if step is None else step
        if index <= self._base:
            return  # some samplers call back several times a step
        if self._mode is None:
            self._mode = {0: "before", 1: "start"}.get(self._since, "end")
        elif self._mode == "start":
            learned = math.ceil(self._since / (index - self._base))
            self._known = max(self._known or 1, learned)
        self._base, self._since = index, 0

    def evaluation(self, sigma: Callable[[], float]) -> tuple[int, int]:
        """(step, evaluation) of the model call that begins now; steps never go back.

        Args:
            sigma: reads its noise level; asked only where nothing else decides.
        """
        last, number = self._place
        step = max(last, self._step(sigma))
        self._place = (step, number + 1 if step == last else 0)
        self._since += 1
        self._seen += 1
        return self._place

    def _step(self, sigma: Callable[[], float]) -> int:
        if self._ends:
            return bisect_right(self._ends, self._seen)
        if self._mode == "before":
            return self._base
        if self._mode == "end":
            return self._base + 1
        if self._mode == "start":
            ahead = self._since + 1
            if self._known is not None:
                return self._base + ahead // self._known
            return self._base if self._above(sigma(), self._base + 1) else self._base + 1
        if self._known is not None:
            return self._seen // self._known
        step = self._by_sigma(sigma())
        return step if self._seen else 0

    def _above(self, sigma: float, step: int) -> bool:
        return (
            self._sigmas is not None
            and step < len(self._sigmas)
            and sigma > self._sigmas[step] * (1 + 1e-3)
        )

    def _by_sigma(self, sigma: float) -> int:
        reached = [i for i, s in enumerate(self._sigmas or ()) if s >= sigma * (1 - 1e-3)]
        index = reached[-1] if reached else 0
        before, self._level = self._level, sigma
        if before is not None and sigma > before * CHURN * (1 + 1e-3):
            self._restarted = self._place[0] + 1 - index
        return index + self._restarted


class SamplerDriver(Driver):
    """Wraps the model and the callback of one sampler call."""

    name = "k_diffusion"

    def __init__(self, target: Any) -> None:
        super().__init__(None)
        self._function = target.function
        self._bound = bind(target.function, target.args, target.kwargs)
        self._model_name = next(iter(self._bound.arguments))
        self.model = self._bound.arguments[self._model_name]
        arguments = with_defaults(self._bound)
        self._theirs = arguments.get("callback")
        self._sigmas = read_sigmas(arguments)
        name = bare_name(target.function)
        known = evaluations_per_step(name, arguments)
        self._reads_sigma = known is None or name in RESTARTS
        self._heun = name == "sample_heun"
        self._tracker = StepTracker(target.evals_per_step or known, self._sigmas)
        self._total = total_steps(known, self._sigmas)
        self._span = noise_span(arguments, self._sigmas)
        self._token = object()
        self._live: tuple[int, int, Any] | None = None
        self._call = 0
        self._high: tuple[int, float] | None = None
        self._rising = False

    def call(self) -> Any:
        """Run the sampler with our model and callback in place of the user's."""
        bound = self._bound
        bound.arguments[self._model_name] = _Model(self.model, self._evaluate)
        if "callback" in inspect.signature(self._function).parameters:
            bound.arguments["callback"] = self._callback
        return self._function(*bound.args, **bound.kwargs)

    def _evaluate(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        sigma = args[1] if len(args) > 1 else kwargs.get("sigma")
        step, evaluation = self._tracker.evaluation(lambda: first_value(sigma) or 0.0)
        self._live = (step, evaluation, sigma)
        self._call = 0
        self._rising = self._rises(step, evaluation, sigma)
        try:
            return self.model(*args, **kwargs)
        finally:
            self._live = None

    def _callback(self, info: Any) -> Any:
        step = info.get("i") if isinstance(info, Mapping) else None
        self._tracker.callback(step if isinstance(step, int) else None)
        return self._theirs(info) if self._theirs is not None else None

    def _rises(self, step: int, evaluation: int, sigma: Any) -> bool:
        if evaluation or not self._reads_sigma:
            return False
        level = first_value(sigma) or 0.0
        before, self._high = self._high, (step, level)
        return before is not None and step > before[0] and level > before[1] * RISE

    def locate(self, call: Call) -> Position | Outside:
        if self._live is None:
            return Outside("a backbone call outside the sampler's model ran ungated")
        step, evaluation, sigma = self._live
        number = self._call
        self._call += 1
        timestep = call.timestep  # neither `call` nor `self`: a report must not hold samples
        level, span = self._scheduled(step, evaluation), self._span
        noise = Noise(
            lambda: first_value(sigma) if level is None else level,
            lambda: first_value(timestep),
            lambda: span,
        )
        return Position(
            self._token,
            StepContext(step, self._total, evaluation, noise),
            call=number,
            rises=self._rising,
        )

    def _scheduled(self, step: int, evaluation: int) -> float | None:
        """The noise level of an evaluation where the schedule tells it without asking the device.

        Heun's second one stands where its step ends; those of other samplers in between.
        """
        if self._reads_sigma or self._sigmas is None or (evaluation and not self._heun):
            return None
        place = step + evaluation
        return self._sigmas[place] if place < len(self._sigmas) else None

    def guidance_scale(self) -> float | None:
        scale = getattr(self.model, "guidance_scale", None)
        return float(scale) if isinstance(scale, (int, float)) else None

    def prediction_type(self) -> str | None:
        found: str | None = getattr(self.model, "prediction_type", None)
        return found

    def layout(self, call: Call) -> Layout | None:
        declared: Layout | None = getattr(self.model, "tgate_layout", None)
        return declared


class _Model:
    """A denoiser that counts its calls and is otherwise the one it stands for."""

    def __init__(self, inner: Any, evaluate: Callable[..., Any]) -> None:
        self.__dict__["_inner"], self.__dict__["_evaluate"] = inner, evaluate

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._evaluate(args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_inner"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["_inner"], name, value)


def bind(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The sampler's arguments by name; its first is the model, whatever it is called."""
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise OptionError(f"{bare_name(function)}: {error}") from error
    model = next(iter(bound.arguments.values()), None)
    if not callable(model):
        raise OptionError(
            f"{bare_name(function)} was called with a {type(model).__name__} for its model: pass "
            "the denoiser first, a function of x and sigma."
        )
    return bound


def with_defaults(bound: inspect.BoundArguments) -> Mapping[str, Any]:
    """All arguments, also those that a default or a `functools.partial` gives."""
    full = inspect.BoundArguments(bound.signature, OrderedDict(bound.arguments))
    full.apply_defaults()
    return full.arguments


def bare_name(function: Any) -> str:
    """A sampler's own name, through `functools.partial`."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def read_sigmas(arguments: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The schedule on the host, copied once before the run (a sampler may write into it).

    Raises:
        OptionError: it holds fewer than two levels, or one that rises.
    """
    sigmas = arguments.get("sigmas")
    if sigmas is None:
        return None
    levels = tuple(sigmas.tolist() if isinstance(sigmas, torch.Tensor) else map(float, sigmas))
    if len(levels) < 2:
        raise OptionError(f"sigmas holds {len(levels)} levels: pass two or more, falling.")
    for index, (now, after) in enumerate(itertools.pairwise(levels)):
        if not after <= now:  # also catches nan
            raise OptionError(
                f"sigmas do not fall: sigmas[{index + 1}]={after:g} comes after "
                f"sigmas[{index}]={now:g}. Pass them from the highest to the lowest."
            )
    return levels


def evaluations_per_step(name: str, arguments: Mapping[str, Any]) -> int | tuple[int, ...] | None:
    """Model calls a step, or of each step, of a sampler whose code is known, else None.

    >>> evaluations_per_step("sample_dpm_fast", {"n": 10})
    (3, 3, 3, 1)
    """
    if name == "sample_dpm_adaptive":
        return int(arguments.get("order", 3))
    if name == "sample_dpm_fast" and "n" in arguments:
        groups, rest = divmod(int(arguments["n"]), 3)
        return (3,) * groups + (rest,) if rest else (3,) * (groups - 1) + (2, 1)
    return EVALUATIONS.get(name)


def total_steps(
    evaluations: int | Sequence[int] | None, sigmas: Sequence[float] | None
) -> int | None:
    """How many steps there will be; None where the sampler finds out as it goes."""
    if sigmas is not None:
        return len(sigmas) - 1
    return len(evaluations) if isinstance(evaluations, Sequence) else None


def noise_span(
    arguments: Mapping[str, Any], sigmas: Sequence[float] | None
) -> tuple[float, float] | None:
    """(largest, smallest) positive noise level of the run."""
    if sigmas is not None:
        positive = [s for s in sigmas if s > 0]
        return (positive[0], positive[-1]) if positive else None  # they fall
    if "sigma_max" in arguments and "sigma_min" in arguments:
        return float(arguments["sigma_max"]), float(arguments["sigma_min"])
    return None


def load_sampler(name: str) -> Callable[..., Any]:
    """`k_diffusion.sampling.sample_NAME`.

    Raises:
        MissingExtraError: k-diffusion is not installed or does not import; the sentence says
            which obstacle it was and how to pass it.
    """
    try:
        from k_diffusion import sampling
    except Exception as error:
        raise MissingExtraError(
            f"the sampler {name!r} needs k-diffusion, which did not import "
            f"({type(error).__name__}: {error}): pip install 'tgate-sampling[kdiffusion]', then "
            "pip install --no-deps 'k-diffusion>=0.1.1' 'setuptools<82'; or pass the function "
            "itself."
        ) from error
    found: Callable[..., Any] = getattr(sampling, f"sample_{name}")
    return found


@hookimpl
def tgate_register_drivers(register: RegisterDriver) -> None:
    register("k_diffusion", SamplerDriver)


@hookimpl
def tgate_register_samplers(register: RegisterSampler) -> None:
    for name in SAMPLERS:
        register(name, partial(load_sampler, name))
