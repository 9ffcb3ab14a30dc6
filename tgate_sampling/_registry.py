"""Names that plugins give to their things: a private dict with a read-only face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tgate_sampling.errors import PluginError, UnknownNameError, nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered thing and who registered it."""

    name: str
    value: T
    owner: str
    models: tuple[str, ...] = ()


class Registry(Mapping[str, T]):
    """Things of one kind by name.

    Args:
        kind: what they are called in messages ("policy").
        failures: gives a clause on plugins that were left out, for the unknown-name message.
    """

    def __init__(self, kind: str, failures: Callable[[], str] = lambda: "") -> None:
        self._kind, self._failures = kind, failures
        self._entries: dict[str, Entry[T]] = {}

    def add(
        self,
        name: str,
        value: T,
        *,
        owner: str,
        models: tuple[str, ...] = (),
        replace: bool = False,
    ) -> None:
        """Register `value`.

        Raises:
            PluginError: the name is taken; both owners are named.
        """
        taken = self._entries.get(name)
        if taken is not None and not (replace and taken.owner == owner):
            raise PluginError(
                f"{owner} registered the {self._kind} {name!r}, which {taken.owner} registered "
                "before: give it another name."
            )
        self._entries[name] = Entry(name, value, owner, models)

    def forget(self, owner: str) -> None:
        """Drop everything `owner` registered."""
        self._entries = {n: e for n, e in self._entries.items() if e.owner != owner}

    def entries(self) -> tuple[Entry[T], ...]:
        """All entries, in the order of registration."""
        return tuple(self._entries.values())

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name].value
        except KeyError:
            message = f"no {self._kind} is called {name!r}. {nearest(str(name), self._entries)}"
            raise UnknownNameError(f"{message}{self._failures()}") from None

    def get(self, name: str) -> T:  # type: ignore[override]  # an unknown name is an error, not a default
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
