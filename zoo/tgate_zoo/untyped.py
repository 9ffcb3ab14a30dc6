"""Libraries without type hints, imported when asked for; their values count as Any."""

from __future__ import annotations

from typing import Any


def diffusers() -> Any:
    """The diffusers library."""
    import diffusers as module

    return module


def transformers() -> Any:
    """The transformers library."""
    import transformers as module

    return module


def progress_bar(total: int | None, initial: int, label: str) -> Any:
    """A tqdm bar that redraws every few seconds, so that logs stay short."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]  # stubs are optional

    return tqdm(total=total, initial=initial, desc=label, mininterval=5.0)
