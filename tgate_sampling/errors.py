"""Everything this library raises, drawn once.

    TGateError
    |-- OptionError (ValueError)              out of range, unknown, or illegal beside another
    |   `-- UnknownNameError                  no policy, sampler, layer ... of that name
    |-- UnsupportedBackboneError (TypeError)  no adapter knows this backbone
    |-- AlreadyGatedError (RuntimeError)      the backbone carries a gating already
    |-- ConcurrentRunError (RuntimeError)     another run or thread called a live backbone
    |-- NoRunError (RuntimeError)             a report was asked for before anything ran
    |-- PolicyError (RuntimeError)            a policy's answer is not a decision
    |-- PluginError (RuntimeError)            a plugin's registration was refused
    `-- MissingExtraError (ImportError)       a dependency is missing; holds the install line

Every message is one sentence of three parts: what was asked, what was found, what to type next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TGateError(Exception):
    """The root of the tree."""


class OptionError(TGateError, ValueError):
    """An option is out of range, unknown, or cannot go with another."""


class UnknownNameError(OptionError):
    """No policy, sampler, layer or adapter has that name."""


class UnsupportedBackboneError(TGateError, TypeError):
    """No adapter knows this backbone."""


class AlreadyGatedError(TGateError, RuntimeError):
    """The backbone carries a gating already."""


class ConcurrentRunError(TGateError, RuntimeError):
    """A second run or thread called the backbone while one was live."""


class NoRunError(TGateError, RuntimeError):
    """A report was asked for before anything ran."""


class PolicyError(TGateError, RuntimeError):
    """A policy answered with something that is not a decision."""


class PluginError(TGateError, RuntimeError):
    """A plugin registered something the registry refuses."""


class MissingExtraError(TGateError, ImportError):
    """An optional dependency is missing."""


class PluginLoadWarning(UserWarning):
    """A plugin was left out; the library goes on without it."""


class NeverEnteredWarning(ResourceWarning):
    """`gate(...)` was called and its `with` block never entered: nothing was gated."""


class ObserverWarning(UserWarning):
    """An observer raised; it is silent for the rest of that run."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The clause that helps after a misspelt name.

    >>> nearest("fixd_step", ["fixed_step", "tgate"])
    "Did you mean 'fixed_step'? Known: fixed_step, tgate."
    >>> nearest("x", [])
    'None is registered.'
    """
    names = sorted(known)
    if not names:
        return "None is registered."
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names)}."
