"""`never`: no gate ever closes. The baseline of every comparison, and proof that open is free."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_sampling.decision import Answer
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Never(Policy):
    """Compute everything."""

    name = "never"
    gates: Collection[str] = ()

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return False

    def plan(self, total: int) -> Sequence[Answer]:
        return [False] * total


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("never", Never)
