"""The command line, up to where the work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tgate_zoo import card, loader
from tgate_zoo.__main__ import app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "emoji-xl", "--out", "OUT"], "the zoo can train emoji-sd, emoji-sdxl, emoji-"),
        (["train", "emoji-lcm", "--out", "OUT", "--stage", "unet"], "scenes, match, distill"),
        (["train", "emoji-lcm", "--out", "OUT", "--stage", "distill"], "--stage match"),
        (["train", "emoji-pixart", "--out", "OUT", "--stage", "export"], "--stage transformer"),
        (["train", "all", "--out", "OUT", "--font", "/nowhere.ttf"], "apt-get install"),
        (["train", "emoji-sd", "--out", "OUT", "--stage", "paint"], "scenes, vae, classifier"),
        (["train", "emoji-sd", "--out", "OUT", "--font", "/nowhere.ttf"], "apt-get install"),
        (["train", "emoji-sd", "--out", "OUT", "--stage", "export"], "--stage unet"),
        (["evaluate", "emoji"], "the nearest is emoji-sd,"),
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


@pytest.mark.parametrize(
    ("name", "bar"), [("emoji-sd", "85%"), ("emoji-sdxl", "85%"), ("emoji-lcm", "75%")]
)
def test_evaluate_draws_measures_and_saves_a_grid(tmp_path: Path, name: str, bar: str) -> None:
    grid = tmp_path / "grid.png"
    arguments = ["evaluate", name, "--captions", "4", "--steps", "2", "--grid", str(grid)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    for word in ("background", "single", "97%", bar):
        assert word in result.output
    assert grid.stat().st_size > 0


def test_evaluate_takes_the_models_own_steps_and_records_them(tmp_path: Path) -> None:
    folder = tmp_path / "emoji-lcm"
    shutil.copytree(loader.MODELS / "emoji-lcm", folder)
    arguments = ["evaluate", "emoji-lcm", "--model", str(folder), "--captions", "4", "--record"]
    result = CliRunner().invoke(app, [*arguments, "--seen", "--seed", "5"])
    assert result.exit_code == 0
    run = card.read_facts(folder)["measured"]["seen"]
    assert (run["captions"], run["steps"], run["guidance"], run["seed"]) == (4, 4, 4.0, 5)
