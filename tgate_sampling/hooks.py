"""Our hooks on a backbone: outside graphs, and absent from copies and pickles of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

#: What marks a hook as ours.
_MARK = "_tgate_hook"


def as_hook(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` for a hook: outside graphs, and known as ours.

    Nothing of ours may stand between torch and the disabled function: with `fullgraph=True` dynamo
    would try to trace that frame.
    """
    hook: Callable[..., Any] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    setattr(hook, _MARK, True)
    return hook


#: Where a module keeps its forward hooks and what it knows of them, by the same ids.
_TABLES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def copies_stay_bare(backbone: nn.Module) -> Callable[[], None]:
    """Keep our hooks out of copies and pickles of the backbone; returns how to undo it."""
    backbone.__dict__["__reduce_ex__"] = functools.partial(_reduce_bare, backbone)
    return functools.partial(backbone.__dict__.pop, "__reduce_ex__", None)


def _reduce_bare(backbone: nn.Module, protocol: Any) -> tuple[Any, ...]:
    reduced: Any = type(backbone).__reduce_ex__(backbone, protocol)
    made, args, state, *rest = reduced
    bare = {k: v for k, v in state.items() if k != "__reduce_ex__" and not hasattr(v, _MARK)}
    ours = {i for n in _TABLES[:2] for i, hook in bare[n].items() if hasattr(hook, _MARK)}
    for name in _TABLES:
        kept = [(i, v) for i, v in bare[name].items() if i not in ours]
        bare[name] = type(bare[name])(kept)
    return (made, args, bare, *rest)


def ask_for_end(backbone: nn.Module, done: Callable[..., Any]) -> Callable[[], None]:
    """Ask diffusers to tell us when a pipeline is done; returns how to undo it.

    Every pipeline ends with `component._reset_stateful_cache()` on each component that has one. A
    backbone with one of its own (diffusers' CacheMixin) keeps it: its runs end at their last call.
    """
    name = "_reset_stateful_cache"
    if hasattr(backbone, name):
        return lambda: None
    backbone.__dict__[name] = done
    return functools.partial(backbone.__dict__.pop, name, None)
