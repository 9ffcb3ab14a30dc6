"""What a plugin's checks look at: a plugin, and managers of their own to try it in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final, TypeAlias

from tgate_sampling import hookspecs
from tgate_sampling._manager import Manager, new_manager
from tgate_sampling._registry import Entry
from tgate_sampling.testing.results import ConformanceError

#: What stands in a manager: the kind of a thing, and its entry.
Registered: TypeAlias = tuple[str, Entry[Any]]

#: Every hook there is.
HOOKS: Final = tuple(n for n in vars(hookspecs) if n.startswith(hookspecs.PREFIX))


@dataclass(frozen=True)
class PluginCase:
    """A plugin to look at.

    Args:
        plugin: the name of an entry point of group `tgate_sampling`, or of a module, or the module
            itself (or an instance with hookimpls).
    """

    plugin: object

    @property
    def label(self) -> str:
        """What to call it in a message."""
        if isinstance(self.plugin, str):
            return self.plugin
        return str(getattr(self.plugin, "__name__", type(self.plugin).__name__))

    def load(self) -> object:
        """The plugin as it would be registered."""
        if not isinstance(self.plugin, str):
            return self.plugin
        found = metadata.entry_points(group=hookspecs.PROJECT, name=self.plugin)
        for entry in found:
            return entry.load()
        try:
            return importlib.import_module(self.plugin)
        except ModuleNotFoundError as error:
            known = metadata.entry_points(group=hookspecs.PROJECT).names
            raise ConformanceError(
                f"{self.plugin!r} is neither an entry point of group {hookspecs.PROJECT!r} nor a "
                f"module that imports ({error}): install it first. Entry points: "
                f"{', '.join(sorted(known)) or 'none'}"
            ) from error

    def hookimpls(self) -> dict[str, Callable[..., Any]]:
        """Functions marked `@tgate_sampling.hookimpl`, by name."""
        plugin, ask = self.load(), Manager()
        names = [n for n in dir(plugin) if n.startswith(hookspecs.PREFIX)]
        return {n: getattr(plugin, n) for n in names if ask.parse_hookimpl_opts(plugin, n)}

    def without(self) -> Manager:
        """A manager of its own, with our plugins but for this one."""
        fresh, plugin = new_manager(), self.load()
        if fresh.is_registered(plugin):
            fresh.unregister(plugin)
        return fresh

    @contextmanager
    def visiting(self, fresh: Manager) -> Iterator[str]:
        """The plugin in a manager for the length of a block, under a name of its own."""
        plugin, label = self.load(), f"{self.label} (under test)"
        fresh.register(plugin, label)
        try:
            yield label
        finally:
            fresh.unregister(plugin, label)


def registered_in(manager: Manager) -> list[Registered]:
    """Everything that plugins registered, kind by kind."""
    return [(r._kind, entry) for r in manager.registries for entry in r.entries()]
