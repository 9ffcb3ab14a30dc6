"""A policy as it is written on a command line: `name` or `name:key=value,key=value`."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import tgate_sampling as tg
from tgate_plugins.cli.values import split_spec
from tgate_sampling._manager import manager
from tgate_sampling.decision import check_filling
from tgate_sampling.policy import DEFAULT_POLICY

#: Options of the gate itself, which go beside the policy's own.
FILLING: Final = ("estimator", "refresh", "merge")


@dataclass(frozen=True)
class Spec:
    """A policy by name, its options, and how its closed gates are filled.

    Args:
        name: of a registered policy.
        options: the policy's own.
        filling: those of `FILLING` that were said.

    >>> Spec.parse("fixed_step:gate_step=10,estimator=none").label
    'fixed_step gate_step=10 estimator=none'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    filling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name:key=value,key=value`.

        Raises:
            OptionError: a name is unknown, or an option malformed; the nearest is named.
        """
        return cls.make(*split_spec(text))

    @classmethod
    def make(cls, name: str, said: Mapping[str, Any]) -> Self:
        """Sort what was said into the policy's options and the gate's.

        Raises:
            OptionError: the policy is unknown, or refuses an option.
        """
        filling = {k: v for k, v in said.items() if k in FILLING}
        options = _as_collections(name, {k: v for k, v in said.items() if k not in FILLING})
        tg.get_policy(name, **options)
        check_filling(filling.get("estimator"), filling.get("merge"))
        return cls(name, options, filling)

    @property
    def label(self) -> str:
        """Name and options, a blank between them."""
        said = {**self.options, **self.filling}
        return " ".join([self.name, *(f"{k}={_show(v)}" for k, v in said.items())])

    def gate(self, pipe: Any) -> tg.Gating:
        """The gating, not yet entered."""
        return tg.gate(pipe, self.name, **self.options, **self.filling)

    def check(self, pipe: Any) -> None:
        """Attach and detach at once, so that what cannot go together is heard before any work.

        Raises:
            TGateError: as `tgate_sampling.gate` does.
        """
        with self.gate(pipe):
            pass


def default_spec() -> Spec:
    """The library's own default: what `gate(pipe)` does without a policy."""
    return Spec.make(DEFAULT_POLICY, {})


def _as_collections(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options whose default is a collection are written `cross+guidance`."""
    parameters = inspect.signature(manager().policies.get(name)).parameters
    return {
        key: tuple(value.split("+"))
        if isinstance(value, str) and key in parameters and _is_collection(parameters[key].default)
        else value
        for key, value in options.items()
    }


def _is_collection(value: object) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str)


def _show(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)
