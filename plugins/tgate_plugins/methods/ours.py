"""`ours`: any registered policy by name, with its options, the gate's, and `compose`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tgate_sampling as tg
from tgate_plugins.cli.spec import Spec
from tgate_plugins.methods._pipes import one_branch
from tgate_sampling.errors import TGateError
from tgate_sampling.hookspecs import RegisterMethod
from tgate_sampling.method import Applied, Method, Setting
from tgate_sampling.policy import Policy


@dataclass(frozen=True)
class Ours(Method):
    """A policy of this library.

    Args:
        spec: the policy, its options and the gate's.
        compose: further policies by name, each closing gates of its own.
    """

    spec: Spec
    compose: Sequence[str] = field(default=())
    part = "ours"
    source = "tgate_sampling"

    @property
    def policies(self) -> list[Policy]:
        """The members of the stack."""
        first = tg.get_policy(self.spec.name, **self.spec.options)
        return [first, *(tg.get_policy(name) for name in self.compose)]

    def gate(self, pipe: Any) -> tg.Gating:
        """The gating, not yet entered."""
        said = {**self.spec.options, **self.spec.filling}
        return tg.gate(pipe, self.spec.name, compose=self.compose, **said)

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        reason = one_branch(pipe, setting)
        gates = {gate for policy in self.policies for gate in policy.gates}
        if reason is not None and gates == {"guidance"}:
            only = f"{self.spec.name} closes the guidance gate alone"
            return f"{only}, and this run has one branch: {reason}."
        try:
            with self.gate(pipe):  # it checks all there is, and leaves no trace
                return None
        except TGateError as error:
            return str(error)

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        with self.gate(pipe) as gating:
            yield Applied(
                setting.steps,
                setting.guidance_scale,
                report=lambda: gating.runs[-1] if gating.runs else None,
            )


@dataclass(frozen=True)
class OursAdapting(Ours):
    """A policy that measures, so that each picture costs what it needs."""

    adapts = True


def ours(policy: str = "interleave", compose: str = "", **options: Any) -> Ours:
    """A policy of this library as a method.

    Args:
        policy: its name.
        compose: further policies, joined by `+`, each with its own defaults.
        **options: the policy's own, and `estimator`, `refresh` and `merge` of the gate.

    Raises:
        OptionError: a name is unknown, or an option out of range.

    >>> ours("fixed_step", fraction=0.4, gates="guidance+cross").spec.label
    'fixed_step fraction=0.4 gates=guidance+cross'
    """
    names = tuple(name for name in compose.split("+") if name)
    made = Ours(Spec.make(policy, options), names)
    measures = any(member.signals for member in made.policies)
    return OursAdapting(made.spec, names) if measures else made


def register(add: RegisterMethod) -> None:
    """Name it."""
    add("ours", ours)
