"""Our hooks on a backbone: outside graphs, and absent from copies and pickles of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tgate_sampling.skip import bare_type

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


#: Attributes of a gated backbone that its copies must not have.
_OURS = frozenset({"__reduce_ex__", "_tgate_skip", "_tgate_answer"})


def copies_stay_bare(backbone: nn.Module) -> Callable[[], None]:
    """Keep our hooks out of copies and pickles of the backbone; returns how to undo it."""
    backbone.__dict__["__reduce_ex__"] = functools.partial(_reduce_bare, backbone)
    return functools.partial(backbone.__dict__.pop, "__reduce_ex__", None)


def blank(base: type[nn.Module]) -> nn.Module:
    """An empty instance, to be filled by a copy or an unpickling."""
    return base.__new__(base)


def _reduce_bare(backbone: nn.Module, protocol: Any) -> tuple[Any, ...]:
    reduced: Any = type(backbone).__reduce_ex__(backbone, protocol)
    made, args, state, *rest = reduced
    base = bare_type(type(backbone))
    if base is not type(backbone):
        made, args = blank, (base,)
    bare = {k: v for k, v in state.items() if not (k in _OURS or hasattr(v, _MARK))}
    ours = {i for n in _TABLES[:2] for i, hook in bare[n].items() if hasattr(hook, _MARK)}
    for name in _TABLES:
        kept = [(i, v) for i, v in bare[name].items() if i not in ours]
        bare[name] = type(bare[name])(kept)
    return (made, args, bare, *rest)


def ask_for_end(backbone: nn.Module, done: Callable[..., Any]) -> Callable[[], None]:
    """Ask diffusers to tell us when a pipeline is done; returns how to undo it.

    Every pipeline ends with `component._reset_stateful_cache()` on each component that has one. One
    that the backbone has of its own (diffusers' CacheMixin) is called as before.
    """
    name = "_reset_stateful_cache"
    own = getattr(backbone, name, None)

    def both(*args: Any, **kwargs: Any) -> None:
        if own is not None:
            own(*args, **kwargs)
        done()

    return _cover(backbone, name, both)


def hear_contexts(backbone: nn.Module, hear: Callable[[str | None], None]) -> Callable[[], None]:
    """Learn how a pipeline names its calls (`cache_context("cond")`); returns how to undo it."""
    own = getattr(backbone, "cache_context", None)
    if own is None:
        return lambda: None

    @contextmanager
    def named(name: str, *args: Any, **kwargs: Any) -> Iterator[Any]:
        hear(name)
        try:
            with own(name, *args, **kwargs) as inner:
                yield inner
        finally:
            hear(None)

    return _cover(backbone, "cache_context", named)


def _cover(backbone: nn.Module, name: str, ours: Callable[..., Any]) -> Callable[[], None]:
    """Put a function in front of a method of this one backbone; returns how to undo it."""
    before = backbone.__dict__.get(name)
    setattr(ours, _MARK, True)
    backbone.__dict__[name] = ours

    def undo() -> None:
        if backbone.__dict__.get(name) is not ours:  # somebody else's came on top
            return
        if before is None:
            del backbone.__dict__[name]
        else:
            backbone.__dict__[name] = before

    return undo
