"""A backbone call that is answered without the backbone, where every branch has a call of its own.

The backbone becomes an instance of a subclass of its own class whose `forward` hands out the answer
when told to. A forward hook cannot keep a forward from running, and the pipeline must still get its
result from the call it makes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn


@functools.cache
def skippable_class(base: type[Any]) -> type[Any]:
    """The subclass of `base` whose `forward` can be skipped; one per base class."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        # A method that somebody bound while we were here may outlive us: hence no super() either.
        if getattr(self, "_tgate_skip", False):
            return self._tgate_answer
        return base.forward(self, *args, **kwargs)

    # Whoever reads the signature (pipelines look for parameters) sees the backbone's own.
    functools.update_wrapper(forward, base.forward)
    namespace = {
        "forward": forward,
        "_tgate_bare": base,
        "_tgate_skip": False,
        "_tgate_answer": None,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__doc__": base.__doc__,
    }
    made: type[Any] = type(base.__name__, (base,), namespace)
    return made


def bare_type(made: type[Any]) -> type[Any]:
    """A backbone's own class, while it is skippable and otherwise.

    >>> bare_type(skippable_class(nn.Linear)) is bare_type(nn.Linear) is nn.Linear
    True
    """
    bare: type[Any] = made.__dict__.get("_tgate_bare", made)
    return bare


class Skipper:
    """Makes calls of one backbone skippable.

    Args:
        backbone: as found; a `forward` of its own (accelerate's offload) is kept and called.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone
        self._base: Any = None
        self._swapped: Any = None
        self._undo: Callable[[], None] = lambda: None

    def attach(self) -> None:
        """Swap the class, or cover the instance's own `forward`, which would hide the class's."""
        # Now, not at the first skip: compiled code is guarded by which attributes there are.
        self.rest()
        own = self._backbone.__dict__.get("forward")
        if own is None:
            self._base = type(self._backbone)
            self._swapped = skippable_class(self._base)
            self._backbone.__class__ = self._swapped
        else:
            self._cover(own)

    def _cover(self, own: Callable[..., Any]) -> None:
        backbone = self._backbone

        @functools.wraps(own)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if backbone.__dict__.get("_tgate_skip", False):
                return backbone.__dict__["_tgate_answer"]
            return own(*args, **kwargs)

        def undo() -> None:
            if backbone.__dict__.get("forward") is forward:
                backbone.__dict__["forward"] = own

        backbone.__dict__["forward"] = forward
        self._undo = undo

    def answer(self, result: Any) -> None:
        """The next forward hands this out."""
        self._backbone.__dict__.update(_tgate_skip=True, _tgate_answer=result)

    def rest(self) -> None:
        """Forwards run again; nothing is held."""
        self._backbone.__dict__.update(_tgate_skip=False, _tgate_answer=None)

    def detach(self) -> None:
        """Undo `attach`, exactly."""
        self._undo()
        self._undo = lambda: None
        if type(self._backbone) is self._swapped:
            self._backbone.__class__ = self._base
        for name in ("_tgate_skip", "_tgate_answer"):
            self._backbone.__dict__.pop(name, None)
