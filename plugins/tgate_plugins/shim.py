"""`pipe.tgate(...)`, for people who come from the package `tgate`.

    from tgate_plugins.shim import TgateSDLoader

    pipe = TgateSDLoader(pipe)
    image = pipe.tgate("a large apple", gate_step=10, num_inference_steps=25).images[0]
    print(pipe.tgate.report)

The method belongs to this one pipeline, gates it for the length of a call and leaves no trace:
`pipe(...)` stays the untouched pipeline, and `del pipe.tgate` is all there is to uninstall. See
docs/coming-from-tgate.md.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar, cast

from torch import nn

from tgate_plugins.deepcache import DeepCacheLayer
from tgate_plugins.diffusers_pipeline import PipelineDriver
from tgate_sampling.backbones import find
from tgate_sampling.errors import MissingExtraError, NoRunError, OptionError, nearest
from tgate_sampling.gating import gate
from tgate_sampling.policy import get_policy
from tgate_sampling.report import Report

Pipeline = TypeVar("Pipeline")

#: What may be said when loading, in a call, or both; the call wins.
OPTIONS: Final = ("gate_step", "sp_interval", "fi_interval", "warm_up", "lcm")

#: What diffusers' pipelines read from their `**kwargs`, so that no signature names it.
HIDDEN: Final = ("callback", "callback_steps", "mask_feature")

#: T-GATE's first schedule, which its DeepCache variants default to: self-attention is computed in
#: every step, since it is not called where DeepCache skips.
FIRST_SCHEDULE: Final[Mapping[str, Any]] = {"sp_interval": 1, "warm_up": 0}


class TGateCall:
    """What `pipe.tgate` is: the pipeline's own call, under T-GATE's schedule.

    Args:
        pipe: the pipeline it belongs to.
        defaults: options that were given when loading.
        beneath: what else is active during a call, as DeepCache is.
        compose: layers that must be found active then.
    """

    def __init__(
        self,
        pipe: Any,
        defaults: Mapping[str, Any],
        beneath: Callable[[Any], AbstractContextManager[None]] = nullcontext,
        compose: tuple[str, ...] = (),
    ) -> None:
        self._pipe, self._defaults = pipe, dict(defaults)
        self._beneath, self._compose = beneath, compose
        self._report: Report | None = None
        self._options({})  # a wrong default is found when loading

    def __call__(
        self,
        *args: Any,
        gate_step: int | None = None,
        sp_interval: int | None = None,
        fi_interval: int | None = None,
        warm_up: int | None = None,
        lcm: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the pipeline gated; takes and returns what the pipeline does.

        Args:
            *args: the pipeline's own.
            gate_step: the first gated step. None, here and below, is what was said when loading,
                or else T-GATE's own default.
            sp_interval: self-attention interval before the gate.
            fi_interval: self-attention interval after it.
            warm_up: steps of full self-attention at the start.
            lcm: taken and not needed: how many branches a run has is seen, not said.
            **kwargs: the pipeline's own.

        Raises:
            OptionError: a value is out of range, or a name is nobody's; nothing has been run.
        """
        given = dict(zip(OPTIONS, (gate_step, sp_interval, fi_interval, warm_up, lcm), strict=True))
        options = self._options(given)
        self._check_names(kwargs)
        self._report = None
        with self._beneath(self._pipe):
            gating = gate(self._pipe, "tgate", compose=self._compose, **options)
            try:
                with gating:
                    return self._pipe(*args, **kwargs)
            finally:
                self._report = gating.runs[-1] if gating.runs else None

    @property
    def report(self) -> Report:
        """The last call's report.

        Raises:
            NoRunError: no call has reached the backbone yet.
        """
        if self._report is None:
            raise NoRunError(
                "no run to report yet: call pipe.tgate(...), and let it reach its first step."
            )
        return self._report

    def __repr__(self) -> str:
        said = ", ".join(f"{k}={v!r}" for k, v in self._defaults.items())
        return f"<tgate({said}) of {type(self._pipe).__name__}>"

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The schedule: what this call says, else what loading said."""
        options = self._defaults | {k: v for k, v in given.items() if v is not None}
        lcm = options.pop("lcm", False)
        if not isinstance(lcm, bool):
            raise OptionError(f"lcm={lcm!r} must be True or False, or be left out.")
        get_policy("tgate", **options)
        return options

    def _check_names(self, names: Mapping[str, Any]) -> None:
        """Some pipelines swallow what they do not know, and a misspelt option would be lost."""
        own = inspect.signature(type(self._pipe).__call__).parameters.values()
        known = {*OPTIONS, *HIDDEN, *(p.name for p in own if p.kind is not p.VAR_KEYWORD)}
        for name in names:
            if name in known:
                continue
            close = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(OPTIONS)}."
            raise OptionError(
                f"neither pipe.tgate nor {type(self._pipe).__name__} has an option {name!r}: {hint}"
            )


def install(pipe: Pipeline, **defaults: Any) -> Pipeline:
    """Give one pipeline a method `tgate`; `del pipe.tgate` takes it away.

    Args:
        pipe: any diffusers pipeline whose backbone an adapter knows.
        **defaults: `gate_step`, `sp_interval`, `fi_interval`, `warm_up`, `lcm`, for calls that do
            not say them.

    Returns:
        The same pipeline.

    Raises:
        OptionError: it is no pipeline, or a default is unknown or out of range.
        UnsupportedBackboneError: no adapter knows the backbone.
    """
    return _install(pipe, defaults)


def _install(pipe: Pipeline, defaults: Mapping[str, Any], **more: Any) -> Pipeline:
    for name in defaults:
        if name not in OPTIONS:
            raise OptionError(f"pipe.tgate has no option {name!r}. {nearest(name, OPTIONS)}")
    if not PipelineDriver.matches(pipe):
        raise OptionError(
            f"{type(pipe).__name__} is no diffusers pipeline: pass the pipeline, or use "
            "tgate_sampling.gate(backbone, 'tgate', layout=...) around a loop of your own."
        )
    find(pipe, None)  # raises where nothing in it can be gated
    cast(Any, pipe).tgate = TGateCall(pipe, defaults, **more)
    return pipe


def with_deepcache(
    pipe: Pipeline, cache_interval: int = 3, cache_branch_id: int = 0, **defaults: Any
) -> Pipeline:
    """`install`, with a `DeepCacheSDHelper` enabled during each call of `pipe.tgate`.

    Args:
        pipe: as for `install`; its backbone must be a UNet.
        cache_interval: as for the helper: every so many steps run in full.
        cache_branch_id: as for the helper: where the UNet is cut.
        **defaults: as for `install`; T-GATE's first schedule where they are silent.

    Raises:
        MissingExtraError: DeepCache is not installed.
        OptionError: as for `install`, or the pipeline has no UNet of down and up blocks.
    """
    _helper_class()
    if not hasattr(getattr(pipe, "unet", None), "up_blocks"):
        raise OptionError(
            f"DeepCache needs a UNet of down and up blocks, and {type(pipe).__name__} has none: "
            "load it without DeepCache."
        )
    beneath = partial(_deepcache, interval=cache_interval, branch=cache_branch_id)
    given = {**FIRST_SCHEDULE, **defaults}
    return _install(pipe, given, beneath=beneath, compose=("deepcache",))


def _helper_class() -> Any:
    try:
        from DeepCache import DeepCacheSDHelper
    except ImportError as error:
        raise MissingExtraError(
            "a DeepCache loader needs DeepCache: pip install 'tgate-sampling[deepcache]'"
        ) from error
    return DeepCacheSDHelper


@contextmanager
def _deepcache(pipe: Any, *, interval: int, branch: int) -> Iterator[None]:
    """An enabled helper, and afterwards the forwards that were there before it."""
    unet: nn.Module = pipe.unet
    if DeepCacheLayer.detect(unet) is not None:
        raise OptionError(
            "a DeepCacheSDHelper is enabled on this UNet already, and this loader enables its own "
            "for each call: disable yours, or load the pipeline without DeepCache and keep it."
        )
    before = [(module, module.__dict__.get("forward")) for module in unet.modules()]
    helper = _helper_class()(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    try:
        helper.enable()
        yield
    finally:
        # The helper's own `disable` leaves a bound `forward` on each of them.
        for module, forward in before:
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.__dict__["forward"] = forward


#: The reference's names. All are one function: a pipeline's own call is gated, whatever it is.
TgateSDLoader = install
TgateSDXLLoader = install
TgatePixArtAlphaLoader = install
TgatePixArtSigmaLoader = install
TgateSVDLoader = install
TgateSDDeepCacheLoader = with_deepcache
TgateSDXLDeepCacheLoader = with_deepcache
