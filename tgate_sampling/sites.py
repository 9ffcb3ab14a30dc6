"""A gated site: the module becomes an instance of a subclass of its own class.

Seven ways to gate were measured (closures on `forward`, hooks, processors, wrapping modules ...).
Only this one is bit-equal, keeps processors, LoRA, IP-Adapter and other hooks working (the original
module is called, its output is what is kept), and compiles to one graph a mode in every order of
attach and compile. Inside there is no counter and no step number: compiled code would specialise
on each.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Adapter, Site
from tgate_sampling.decision import GATES, Mode
from tgate_sampling.errors import OptionError
from tgate_sampling.hooks import blank
from tgate_sampling.layout import map_tensors
from tgate_sampling.policy import Policy


@functools.cache
def gated_class(base: type[nn.Module], *, copies: bool = False) -> type[nn.Module]:
    """The gated subclass of `base`; one per base class, so that compiled code is shared.

    Args:
        base: the module's own class.
        copies: its output is written into by its caller, as FreeU does with deep features.
    """
    own = functools.partial(map_tensors, torch.clone) if copies else _as_it_is

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self._tgate_mode == "reuse":
            return own(self._tgate_kept)
        # super(), not base.__call__: dynamo cannot trace the latter for diffusers' Attention.
        out = super(gated, self).__call__(*args, **kwargs)
        if self._tgate_mode == "store":
            self._tgate_kept = own(out)
        return out

    def reduce(self: Any, protocol: Any) -> Any:
        # A copy or a pickle of a gated model is an ordinary model.
        state = {k: v for k, v in self.__dict__.items() if not k.startswith("_tgate_")}
        return (blank, (base,), state)

    namespace = {
        "__call__": call,
        "__reduce_ex__": reduce,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    gated: Any = type(base.__name__, (base,), namespace)
    made: type[nn.Module] = gated
    return made


def _as_it_is(value: Any) -> Any:
    return value


class SiteGroup:
    """All gated sites of one kind. Modes are written only when they change."""

    def __init__(self, kind: str, sites: Sequence[Site]) -> None:
        self.kind = kind
        self.sites = tuple(sites)
        self.names = frozenset(s.name for s in sites)
        self._bases: list[type[nn.Module]] = []
        self._modes: list[Mode] = []
        #: What the sites hold now, so that the same values are not handed out again.
        self.loaded: object = None

    def attach(self) -> None:
        """Swap classes. State-dict keys, hooks, parameters and `forward` stay as they are."""
        for site in self.sites:
            base = type(site.module)
            self._bases.append(base)
            self._modes.append("compute")
            # Through __dict__: nn.Module.__setattr__ costs 12 times as much.
            site.module.__dict__["_tgate_mode"] = "compute"
            site.module.__dict__["_tgate_kept"] = None
            gated = gated_class(base, copies=self.kind == "block")  # type: ignore[arg-type]  # torch's stub of __hash__
            site.module.__class__ = gated

    def detach(self) -> None:
        """Undo `attach`, exactly."""
        for site, base in zip(self.sites, self._bases, strict=False):
            site.module.__class__ = base
            site.module.__dict__.pop("_tgate_mode", None)
            site.module.__dict__.pop("_tgate_kept", None)
        self._bases.clear()
        self._modes.clear()

    def set(self, mode: Mode) -> bool:
        """The same mode for every site. True, so that it can end a condition."""
        for index in range(len(self.sites)):
            self.set_one(index, mode)
        return True

    def clear(self) -> None:
        """Compute everything, hold nothing."""
        self.loaded = None
        for index in range(len(self.sites)):
            self.set_one(index, "compute")
            self.put(index, None)

    def set_one(self, index: int, mode: Mode) -> None:
        if self._modes[index] != mode:
            self.sites[index].module.__dict__["_tgate_mode"] = mode
            self._modes[index] = mode
            if mode == "store":
                # A site in a skipped block is not called: what it was handed is not its output.
                self.put(index, None)
                self.loaded = None

    def mode(self, index: int) -> Mode:
        return self._modes[index]

    def put(self, index: int, kept: Any) -> None:
        """Hand a site what it shall return in mode `reuse`."""
        self.sites[index].module.__dict__["_tgate_kept"] = kept

    def collect(self, index: int) -> Any:
        """Take what a site kept in mode `store`; None if it was not called."""
        self.loaded = None
        module = self.sites[index].module
        kept = module.__dict__["_tgate_kept"]
        module.__dict__["_tgate_kept"] = None
        return kept


def find_sites(adapter: Adapter, backbone: nn.Module, policy: Policy) -> dict[str, list[Site]]:
    """What a policy may close or measure, by kind; any other kind is not touched at all.

    Raises:
        OptionError: the policy closes blocks that this backbone does not have.
    """
    wanted = set(policy.gates) | set(policy.signals)
    sites = list(adapter.sites(backbone))
    if "block" in wanted:
        sites += _blocks(adapter, backbone, policy.branch)
    kinds = [k for k in GATES if k in wanted and any(s.kind == k for s in sites)]
    return {k: [s for s in sites if s.kind == k] for k in kinds}


def _blocks(adapter: Adapter, backbone: nn.Module, branch: int) -> Sequence[Site]:
    name, count = type(backbone).__name__, adapter.branches(backbone)
    if not count:
        raise OptionError(
            f"{name} has no deep blocks that the block gate could skip: leave 'block' out."
        )
    if branch >= count:
        raise OptionError(
            f"branch={branch} is not there: this {name} has the branches 0 to {count - 1}."
        )
    return adapter.blocks(backbone, branch)
