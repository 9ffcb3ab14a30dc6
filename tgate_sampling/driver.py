"""Drivers: whoever knows where in a run a backbone call stands."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tgate_sampling.adapter import Call
from tgate_sampling.layout import Layout
from tgate_sampling.steps import Outside, Position


class Driver(ABC):
    """Tells the clock. Reads what it finds; patches nothing."""

    name: str = ""

    def __init__(self, target: Any) -> None:
        self.target = target

    @classmethod
    def matches(cls, target: Any) -> bool:
        """Whether this driver drives `target`; drivers that need more are never asked."""
        return False

    @classmethod
    def backbone(cls, target: Any, known: Callable[[Any], bool]) -> nn.Module:
        """The module of `target` that is called at each evaluation.

        Args:
            target: what the user gave.
            known: whether an adapter knows a module.
        """
        found: nn.Module = target
        return found

    @abstractmethod
    def locate(self, call: Call) -> Position | Outside:
        """Where this backbone call stands; asked once per call, before it."""

    def context(self, call: Call) -> str | None:
        """What the caller names this call; asked after `locate`."""
        return call.context

    def layout(self, call: Call) -> Layout | None:
        """How the branches lie in this call, or None if the driver cannot know."""
        return None

    def separate(self, backbone: nn.Module) -> bool:
        """Whether the target may call the backbone once for each branch; asked when attaching."""
        return False

    def guidance_scale(self) -> float | None:
        """The scale that the caller combines the branches with, or None if unknown."""
        return None

    def prediction_type(self) -> str | None:
        """What a variance-preserving backbone predicts, or None if unknown."""
        return None

    def compiled(self, backbone: nn.Module) -> bool:
        """Whether the target calls `backbone` through `torch.compile(backbone)`."""
        return getattr(self.target, "_orig_mod", None) is backbone

    def evaluations(self, steps: int) -> Sequence[int]:
        """How often each step of a run of `steps` evaluates the backbone."""
        return [1] * steps

    def opaque(self) -> str | None:
        """Why the guidance gate must stay open here, or None."""
        return None

    def aside(self) -> str | None:
        """Why no gate at all may close here, or None."""
        return None

    def remark(self, backbone: nn.Module) -> str | None:
        """What a user of this target should know of every run, or None."""
        return None

    def finished(self) -> bool:
        """Whether the sampler itself says that it has made its last step."""
        return False

    def close(self) -> None:  # noqa: B027  # most drivers hold nothing
        """The gating is being detached, or the driver's run is over."""
