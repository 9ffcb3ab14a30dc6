"""The command line, up to where the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tgate_zoo.__main__ import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "emoji-xl", "--out", "OUT"], "the zoo can train emoji-sd"),
        (["train", "emoji-sd", "--out", "OUT", "--stage", "paint"], "scenes, vae, classifier"),
        (["train", "emoji-sd", "--out", "OUT", "--font", "/nowhere.ttf"], "apt-get install"),
        (["train", "emoji-sd", "--out", "OUT", "--stage", "export"], "--stage unet"),
        (["evaluate", "emoji"], "the nearest is emoji-sd."),
    ],
)
def test_what_cannot_be_done_ends_with_one_sentence(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = [str(tmp_path) if argument == "OUT" else argument for argument in arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_evaluate_draws_measures_and_saves_a_grid(tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    arguments = ["evaluate", "emoji-sd", "--captions", "4", "--steps", "2", "--grid", str(grid)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    for word in ("background", "single", "95%", "70%"):
        assert word in result.output
    assert grid.stat().st_size > 0
