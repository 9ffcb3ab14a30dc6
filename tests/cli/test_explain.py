"""`explain`: predictions on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Cli = Callable[..., Any]


def test_a_folder_is_explained_per_gate(cli: Cli, tiny: Path) -> None:
    """Gates, shares and cache are printed; nothing is loaded but configurations."""
    answer = cli("explain", tiny, "--policy", "fixed_step:gate_step=2", "--steps", 4)
    assert (answer.code, answer.err) == (0, "")
    assert "guidance" in answer.out
    assert "backbone rows  6 of 8" in answer.out


def test_json_is_for_programs(cli: Cli, tiny: Path) -> None:
    """The same numbers, and a stack."""
    words = ("explain", tiny, "--policy", "interleave", "--compose", "block", "--json")
    predicted = json.loads(cli(*words).out)
    assert predicted["policy"].startswith("interleave() + block()")


def test_a_model_that_is_not_here_is_a_sentence(cli: Cli) -> None:
    """A hub id is not downloaded for a prediction."""
    answer = cli("explain", "nobody/nothing")
    assert (answer.code, answer.out) == (2, "")
    assert "downloads nothing" in answer.err
