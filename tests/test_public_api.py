"""The front door is a list, and stays one."""

from __future__ import annotations

import subprocess
import sys

import tgate_sampling as tg


def test_the_front_door_is_sorted_and_complete() -> None:
    """Every name in __all__ exists, once, in order."""
    assert tg.__all__ == sorted(set(tg.__all__))
    assert all(hasattr(tg, name) for name in tg.__all__)


def test_every_public_name_has_a_docstring() -> None:
    """help() says something about each name a user types."""
    assert [n for n in tg.__all__ if not (getattr(tg, n).__doc__ or "").strip()] == []


def test_the_core_imports_neither_diffusers_nor_k_diffusion() -> None:
    """Importing the library and listing policies needs torch and pluggy alone."""
    code = (
        "import sys, tgate_sampling as tg; tg.policies();"
        "print([m for m in ('diffusers', 'transformers', 'k_diffusion', 'DeepCache', 'typer')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
