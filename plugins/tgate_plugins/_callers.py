"""Who is calling the backbone: a pipeline's own loop, its callback, or somebody else."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import CodeType, FrameType
from typing import Any

#: Under which names a pipeline is given the functions of its user that it calls in its loop.
CALLBACKS = ("callback_on_step_end", "callback")


def is_pipeline(target: Any) -> bool:
    """Whether `target` is a diffusers pipeline or quacks like one."""
    return hasattr(target, "scheduler") and hasattr(target, "components")


def caller(pipe: Any) -> tuple[Any, list[FrameType]]:
    """The pipeline that is calling us, and the frames from here to it if that is `pipe`.

    It is `pipe` also where a pipeline inside it makes the call (the decoder of a combined one), but
    not where its callback does: that is the user's code, whose calls are no part of the run. Then
    it is the callback; or a pipeline that `pipe` knows nothing of; None if none is running.
    """
    frame: FrameType | None = sys._getframe(1).f_back
    frames: list[FrameType] = []
    nearest = None
    while frame is not None:
        frames.append(frame)
        if frame.f_code.co_name == "__call__":
            scope = frame.f_locals
            owner = scope.get("self")
            if owner is pipe:
                passed = [frame.f_code for frame in frames]
                callbacks = [c for name in CALLBACKS if code_of(c := scope.get(name)) in passed]
                return (callbacks[0], []) if callbacks else (pipe, frames)
            if nearest is None and is_pipeline(owner):
                nearest = owner
        frame = frame.f_back
    return nearest, []


def variable(frames: Iterable[FrameType], name: str) -> Any:
    """The variable of that name in the innermost of these frames that has one, or None."""
    return next((f.f_locals[name] for f in frames if name in f.f_locals), None)


def code_of(function: Any) -> CodeType | None:
    """What runs when `function` is called: of a function, a method, a partial or an object.

    >>> def f(): ...
    >>> class Callback:
    ...     def __call__(self): ...
    >>> code_of(f) is f.__code__, code_of(Callback()) is Callback.__call__.__code__, code_of(None)
    (True, True, None)
    """
    function = getattr(function, "func", function)
    called = function if hasattr(function, "__code__") else type(function).__call__
    return getattr(called, "__code__", None)
