"""The hooks, from `tgate_sampling.hookspecs`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from _generate.docstrings import arguments, first_sentence, prose
from _generate.markdown import code, table
from tgate_sampling import hookspecs

#: Where pluggy's marker leaves its options.
MARK = f"{hookspecs.PROJECT}_spec"


def hook_table(source: ModuleType = hookspecs) -> str:
    """Every hook with its signature, its kind, and its first sentence."""
    rows = [(code(_signature(h)), _kind(h), first_sentence(h)) for h in _hooks(source)]
    return table(("hook", "kind", "what it is for"), rows)


def hook_sections(source: ModuleType = hookspecs) -> str:
    """A heading for every hook, with its arguments."""
    return "\n".join(_section(hook, source) for hook in _hooks(source))


def _section(hook: Callable[..., Any], source: ModuleType) -> str:
    lines = [f"- `{name}`: {text}" for name, text in arguments(hook).items()]
    for name, parameter in inspect.signature(hook).parameters.items():
        handed = getattr(source, str(parameter.annotation), None)
        if handed is not None and getattr(handed, "_is_protocol", False):
            # Annotations are strings here, and shown without their quotes.
            called = str(inspect.signature(handed.__call__)).replace("'", "")
            lines.append(f"- signature: `{name}{called.replace('(self, ', '(')}`")
    return f"### {code(hook.__name__)}\n\n{prose(hook)}\n\n" + "\n".join(lines) + "\n"


def _hooks(source: ModuleType) -> list[Callable[..., Any]]:
    return [value for value in vars(source).values() if hasattr(value, MARK)]


def _signature(hook: Callable[..., Any]) -> str:
    return f"{hook.__name__}({', '.join(inspect.signature(hook).parameters)})"


def _kind(hook: Callable[..., Any]) -> str:
    historic = getattr(hook, MARK)["historic"]
    return "registers, when the plugin loads" if historic else "observes, in every run"
