"""Our hooks on a backbone: outside graphs, and absent from copies and pickles of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Hook:
    """A hook that stays out of graphs, copies and pickles."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return _no_hook

    def __reduce__(self) -> Any:
        return (_inert, ())


def _inert() -> Callable[..., None]:
    return _no_hook


def _no_hook(*_: Any, **__: Any) -> None:
    """What a copied backbone has in place of our hook."""


def ask_for_end(backbone: nn.Module, done: Hook) -> Callable[[], None]:
    """Ask diffusers to tell us when a pipeline is done; returns how to undo it.

    Every pipeline ends with `component._reset_stateful_cache()` on each component that has one. A
    backbone with one of its own (diffusers' CacheMixin) keeps it: its runs end at their last call.
    """
    name = "_reset_stateful_cache"
    if hasattr(backbone, name):
        return lambda: None
    backbone.__dict__[name] = done
    return functools.partial(backbone.__dict__.pop, name, None)
