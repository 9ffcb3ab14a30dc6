"""Pieces of work: what a worker is given, and what it gives back. Plain values, easily sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class Output:
    """One finished thing.

    Args:
        record: for the log.
        file: that belongs to it, from the study's folder; None where there is none.
        data: of the file.
    """

    record: dict[str, Any]
    file: str | None = None
    data: bytes | None = None


@dataclass(frozen=True)
class Survey:
    """Load a model; say which methods run on it, and what one backbone call costs."""

    model: str

    @property
    def id(self) -> str:
        return f"survey/{self.model}"


@dataclass(frozen=True)
class Round:
    """One prompt and seed, drawn by several methods one after the other.

    A machine that is busy now and idle later must favour nobody: methods take turns, and each time
    is set beside the ungated run's of the same round.

    Args:
        prompt: its number.
        specs: methods as written.
    """

    model: str
    prompt: int
    seed: int
    specs: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"round/{self.model}/{self.prompt}-{self.seed}"


@dataclass(frozen=True)
class Count:
    """What a method computes for a picture, where it has no report of its own.

    Args:
        spec: as written.
        prompt, seed: of the picture that is drawn again and counted.
    """

    model: str
    spec: str
    prompt: int
    seed: int

    @property
    def id(self) -> str:
        return f"count/{self.model}/{self.spec}"


@dataclass(frozen=True)
class Curves:
    """How much each cross-attention site still changes, step by step, in one ungated run."""

    model: str

    @property
    def id(self) -> str:
        return f"curves/{self.model}"


@dataclass(frozen=True)
class Batch:
    """Pictures of captions for FID, of which only the features are kept.

    Args:
        spec: the method as written.
        number: of the batch.
        captions: what to draw.
        seeds: of each.
    """

    model: str
    spec: str
    number: int
    captions: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def id(self) -> str:
        return f"batch/{self.model}/{self.spec}/{self.number}"


Item: TypeAlias = Survey | Round | Count | Curves | Batch
