"""A way to make a pipeline cheaper, as a value that a study can apply, count and undo.

Ours and everybody else's stand behind the same three verbs, so that a comparison favours nobody.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from tgate_sampling.report import Report

#: What part a method plays: `baseline` (the bare pipeline, fewer steps), `ours`, `related` (other
#: people's), `figure` (it explains something and saves nothing).
Part: TypeAlias = Literal["baseline", "ours", "related", "figure"]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all methods of one comparison share.

    Args:
        steps: of the ungated run.
        guidance_scale: classifier-free guidance, or the embedded one of a distilled model.
    """

    steps: int
    guidance_scale: float


def no_report() -> Report | None:
    """What a method that is no gating has to say of its last run."""
    return None


@dataclass(frozen=True, slots=True)
class Applied:
    """How to call the pipeline while a method is applied to it.

    Args:
        steps: for the call, the setting's unless the method is about steps.
        guidance_scale: for the call.
        arguments: further keyword arguments of the call.
        report: gives the last run's report, or None where the method is no gating of ours.
    """

    steps: int
    guidance_scale: float
    arguments: Mapping[str, Any] = field(default_factory=dict)
    report: Callable[[], Report | None] = no_report


class Method(abc.ABC):
    """A way to speed a pipeline up; a frozen dataclass, its fields are its options.

    Attributes:
        part: its part in a comparison.
        source: the paper or package it is from.
        adapts: its cost differs from picture to picture, so that one count does not serve all.
    """

    part: ClassVar[Part]
    source: ClassVar[str] = ""
    adapts: ClassVar[bool] = False

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        """Why it cannot run on this pipeline in this setting, in a sentence; None where it can.

        Looks, and touches nothing.
        """
        return None

    @abc.abstractmethod
    def apply(self, pipe: Any, setting: Setting) -> AbstractContextManager[Applied]:
        """Apply it inside a `with` block; leaving the block leaves the pipeline as it was.

        The block may hold several calls of the pipeline, one after the other.
        """
