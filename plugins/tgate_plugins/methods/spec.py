"""A method as it is written in a study: `name`, or `name:key=value,key=value`."""

from __future__ import annotations

import inspect
from typing import Any

from tgate_plugins.cli.values import split_spec
from tgate_sampling._manager import manager
from tgate_sampling.errors import OptionError, nearest
from tgate_sampling.method import Method


def parse(text: str) -> Method:
    """The method that a text names.

    Raises:
        UnknownNameError: no method of that name; the nearest is named.
        OptionError: an option is unknown, missing, malformed or out of range.
    """
    name, options = split_spec(text)
    factory = manager().methods.get(name)
    parameters = inspect.signature(factory).parameters.values()
    named = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(named) == len(parameters):  # else it takes what it does not name, as `ours` does
        for option in options:
            if option not in named:
                hint = nearest(option, named) if named else "It takes none."
                raise OptionError(f"method {name!r} has no option {option!r}. {hint}")
    required = [p.name for p in parameters if p.default is p.empty and p.name in named]
    for option in required:
        if option not in options:
            raise OptionError(f"method {name!r} needs {option}: write {name}:{option}=...")
    values: dict[str, Any] = options
    return factory(**values)


def label(text: str) -> str:
    """The text as tables show it.

    >>> label("ours:policy=interleave,every=2")
    'ours policy=interleave every=2'
    """
    name, options = split_spec(text)
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])
