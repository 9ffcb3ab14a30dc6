"""Leaving a pipeline exactly as it was, whatever a foreign package did to it.

Packages replace forwards, classes, processors and methods of the pipeline's class, and few take all
of it back. So what can be changed is noted before and put back afterwards, for all of them alike;
`traces` and `left_behind` tell what of it differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn


def things(pipe: Any) -> Iterator[tuple[str, Any]]:
    """All that a package could change: pipeline, scheduler, modules, attention processors."""
    yield "pipeline", pipe
    for name, part in pipe.components.items():
        if isinstance(part, nn.Module):
            for inner, module in part.named_modules():
                path = f"{name}.{inner}" if inner else name
                yield path, module
                processor = module.__dict__.get("processor")
                if hasattr(processor, "__dict__"):
                    yield f"{path}.processor", processor
        elif name == "scheduler" and part is not None:
            yield name, part


@dataclass
class _Noted:
    """One object: its class, its attributes, and what its lists and dicts held."""

    owner: Any
    made: type
    own: dict[str, Any]
    held: list[tuple[Any, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, owner: Any) -> _Noted:
        own = dict(vars(owner))
        held = [(value, value.copy()) for value in own.values() if type(value) in (list, *DICTS)]
        return cls(owner, type(owner), own, held)

    def put_back(self) -> None:
        if type(self.owner) is not self.made:
            self.owner.__class__ = self.made
        vars(self.owner).clear()
        vars(self.owner).update(self.own)
        for value, before in self.held:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)


#: The kinds of dicts in which modules keep hooks, parameters and children.
DICTS = (dict, type(nn.Module()._forward_hooks))


@contextmanager
def as_found(pipe: Any) -> Iterator[None]:
    """Whatever is done to the pipeline inside is undone at the end, error or not.

    What the pipeline's own calls leave (its scheduler's timesteps, the last guidance scale) is part
    of it. Parameters are held by reference: nothing is copied.
    """
    noted = [_Noted.of(thing) for _, thing in things(pipe)]
    try:
        yield
    finally:
        for one in noted:
            one.put_back()


def own_class(pipe: Any, **attributes: Any) -> None:
    """Give the pipeline a class of its own, so that what is set on its class meets no other.

    `as_found` takes it back.
    """
    made = type(pipe)
    named = {"__module__": made.__module__, "__qualname__": made.__qualname__}
    pipe.__class__ = type(made.__name__, (made,), {**named, **attributes})


#: What Python itself notes on a class when somebody copies one of its objects.
MEMOS = ("__slotnames__",)


class _Same:
    """Compares by identity, and keeps its value alive so that the identity means something."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]  # it is compared only


def traces(pipe: Any) -> dict[str, Any]:
    """What a pipeline looks like, by path: compare two with `left_behind`.

    Of the pipeline and its scheduler only class and attribute names count: their values change with
    every call.
    """
    found: dict[str, Any] = {}
    classes: set[type] = set()
    for path, thing in things(pipe):
        found[path] = type(thing)
        classes |= {c for c in type(thing).__mro__ if c is not object}
        changes = path in ("pipeline", "scheduler")
        for name, value in vars(thing).items():
            found[f"{path}:{name}"] = None if changes else _look(value)
    for made in classes:
        label = f"class {made.__module__}.{made.__qualname__}"
        own = {name: _Same(value) for name, value in vars(made).items() if name not in MEMOS}
        found |= {f"{label}:{name}": value for name, value in own.items()}
    return found


def _look(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _Same(value), value._version  # counts changes in place
    if type(value) in DICTS:
        return {key: _look(item) for key, item in value.items()}
    if type(value) is list:
        return [_look(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool, tuple)):
        return value
    return _Same(value)


def left_behind(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The paths at which two looks differ."""
    paths = [*before, *(p for p in after if p not in before)]
    return [p for p in paths if p not in after or p not in before or before[p] != after[p]]
