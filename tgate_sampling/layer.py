"""Layers that skip whole blocks beneath the guidance gate, such as DeepCache.

Gates have an order: guidance outside, blocks next, attention inside. A layer that reuses features
of the last call must run in full when the rows change or when a step has to store attention.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class Layer(ABC):
    """Something else that skips work inside the same backbone."""

    name: str = ""

    @classmethod
    @abstractmethod
    def detect(cls, backbone: nn.Module) -> Layer | None:
        """The layer that is active on this backbone now, or None."""

    @abstractmethod
    def refresh(self) -> None:
        """Make the next backbone call run in full."""

    @abstractmethod
    def skipped(self, backbone: nn.Module) -> frozenset[str]:
        """Names of the topmost modules that the last backbone call did not run."""

    @classmethod
    def missing(cls) -> str:
        """The sentence for `compose=` when `detect` finds nothing."""
        return (
            f"compose names {cls.name!r}, and it is not active on this backbone: enable it first."
        )
