"""`tgate_package` and `tgate`: the reference implementation, and our exact mode beside it.

The package (tgate 1.0.0, arXiv 2404.02747) leaves every attention module's `forward` replaced and
its cached outputs on the modules; here all of it is taken back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

from tgate_plugins._options import check_count, check_gate_step
from tgate_plugins.cli.spec import Spec
from tgate_plugins.methods._pipes import backbone_of, not_installed, one_branch
from tgate_plugins.methods._restore import as_found
from tgate_plugins.methods._runs import clocked
from tgate_plugins.methods.ours import Ours
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting

#: The package's loader of each pipeline; each is a copy of one pipeline's own call.
LOADERS: Final = {
    "StableDiffusionPipeline": "TgateSDLoader",
    "StableDiffusionXLPipeline": "TgateSDXLLoader",
    "PixArtAlphaPipeline": "TgatePixArtAlphaLoader",
    "PixArtSigmaPipeline": "TgatePixArtSigmaLoader",
    "StableVideoDiffusionPipeline": "TgateSVDLoader",
}

#: Those whose `lcm=True` is heard, which a run of one branch needs.
ONE_BRANCH: Final = ("StableDiffusionXLPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline")


@dataclass(frozen=True)
class TGatePackage(Method):
    """The package itself.

    Args:
        gate_step: the first gated step.
        sp_interval: self-attention interval before the gate.
        fi_interval: self-attention interval after it.
        warm_up: steps of full self-attention at the start.
    """

    gate_step: int = 10
    sp_interval: int = 5
    fi_interval: int = 1
    warm_up: int = 2
    part = "related"
    source = "tgate 1.0.0, arXiv 2404.02747"

    def __post_init__(self) -> None:
        check_gate_step(self.gate_step)
        check_count(1, sp_interval=self.sp_interval, fi_interval=self.fi_interval)
        check_count(0, warm_up=self.warm_up)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        name = type(pipe).__name__
        if name not in LOADERS:
            return f"tgate 1.0.0 has no loader for {name}: it knows {', '.join(LOADERS)}."
        reason = one_branch(pipe, setting)
        if reason is not None and name not in ONE_BRANCH:
            loader = LOADERS[name]
            return f"{loader} takes the mean of two branches, and this run has one: {reason}."
        return not_installed("tgate", "pip install --no-deps tgate==1.0.0")

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        import tgate

        single = one_branch(pipe, setting) is not None
        arguments = asdict(self) | ({"lcm": True} if single else {})
        with as_found(pipe), clocked(pipe, lambda: _forget(pipe)):
            getattr(tgate, LOADERS[type(pipe).__name__])(pipe)
            with _called_instead(pipe, pipe.tgate.__func__):
                yield Applied(setting.steps, setting.guidance_scale, arguments)


@contextmanager
def _called_instead(pipe: Any, entry: Callable[..., Any]) -> Iterator[None]:
    """The package's entry is a method beside the pipeline's call; here it is the call.

    It takes the place of the call in diffusers' own class, for this pipeline alone: what a subclass
    adds to the call's arguments goes to either.
    """
    made: Any = next(c for c in type(pipe).__mro__ if c.__module__.startswith("diffusers."))
    own = made.__call__

    @functools.wraps(own)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return (entry if self is pipe else own)(self, *args, **kwargs)

    made.__call__ = call
    try:
        yield
    finally:
        made.__call__ = own


def _forget(pipe: Any) -> None:
    """The package keeps the last picture's attention for ever; the next one starts without."""
    for module in backbone_of(pipe).modules():
        module.__dict__.pop("cache", None)


@dataclass(frozen=True)
class TGate(Method):
    """Our reference mode: the same schedule, on any pipeline an adapter knows.

    Args:
        gate_step, sp_interval, fi_interval, warm_up: as for the package.
    """

    gate_step: int = 10
    sp_interval: int = 5
    fi_interval: int = 1
    warm_up: int = 2
    part = "related"
    source = "arXiv 2404.02747, by tgate_sampling"

    def __post_init__(self) -> None:
        self._ours()  # options out of range are refused here

    def _ours(self) -> Ours:
        return Ours(Spec.make("tgate", asdict(self)))

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        return self._ours().refuses(pipe, setting)

    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        return self._ours().apply(pipe, setting)


def register(add: RegisterMethod) -> None:
    """Name them."""
    add("tgate_package", TGatePackage)
    add("tgate", TGate)
