"""Watching a model: what stands in it, what is called in it, what another thread meets in it."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tgate_sampling.adapter import Site

#: Where a module keeps its hooks.
TABLES = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """All that gating could leave behind, one entry a thing.

    Classes, attributes, forwards, processors, hooks, modules, state-dict keys, and whether a weight
    was written into.
    """
    seen: dict[str, Any] = {"the state dict's keys": list(model.state_dict())}
    for name, module in model.named_modules():
        place = name or "the model"
        seen[f"the module {place}"] = id(module)
        seen[f"the class of {place}"] = type(module)
        for key, value in module.__dict__.items():
            # Other values may change in any forward; a function or a processor does not.
            fixed = callable(value) and not isinstance(value, nn.Module)
            seen[f"the attribute {key!r} of {place}"] = value if fixed else None
        for table in TABLES:
            for key, hook in getattr(module, table).items():
                seen[f"entry {key} in {table} of {place}"] = hook
    # Parameters alone: a model may renew its buffers in every forward, as rotary embeddings do.
    for name, tensor in model.named_parameters():
        written = None if tensor.is_inference() else tensor._version
        seen[f"the weight {name}"] = (id(tensor), written)
    return seen


def changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What is otherwise than before, in words; an empty string where nothing is.

    >>> changes({"a": 1, "b": 2}, {"b": 3, "c": 4})
    'a is gone; b is another; c is new'
    """
    gone = [f"{key} is gone" for key in before if key not in after]
    other = [f"{key} is another" for key in before if key in after and before[key] != after[key]]
    new = [f"{key} is new" for key in after if key not in before]
    found = [*gone, *other, *new]
    more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
    return "; ".join(found[:4]) + more


def leaves(module: nn.Module) -> list[nn.Module]:
    """The modules without modules of their own; itself, if it is one."""
    return [m for m in module.modules() if not any(True for _ in m.children())]


@contextmanager
def counted(sites: Sequence[Site]) -> Iterator[Counter[str]]:
    """How often anything inside each site is called, while the block lasts.

    Its innermost modules are counted too: a site that is skipped leaves them alone, however it is
    skipped, and a backbone that calls `site.forward(...)` past the gate does not.
    """
    calls: Counter[str] = Counter({site.name: 0 for site in sites})

    def note(name: str, *_: Any) -> None:
        calls[name] += 1

    inside = {(s.name, m) for s in sites for m in (s.module, *leaves(s.module))}
    handles = [m.register_forward_hook(functools.partial(note, name)) for name, m in inside]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def always_called(
    model: nn.Module, sites: Sequence[Site], call: Callable[[], Any]
) -> list[nn.Module]:
    """Innermost modules outside every site, in the order in which a call reaches them."""
    inside = {id(m) for site in sites for m in site.module.modules()}
    order: list[nn.Module] = []
    handles = [
        m.register_forward_hook(lambda m, *_: order.append(m))
        for m in leaves(model)
        if id(m) not in inside
    ]
    try:
        call()
    finally:
        for handle in handles:
            handle.remove()
    return order


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """A forward hook for the length of a block."""
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def in_a_thread(function: Callable[[], Any], seconds: float = 60.0) -> BaseException | None:
    """Run `function` in another thread; returns what it raised."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            with torch.no_grad():  # the caller's is its own thread's
                function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"the other thread was still in its call after {seconds:g} s")
    return raised[0] if raised else None
