"""`generate`: pictures, the record beside them, and what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tgate_sampling as tg
from tgate_plugins.cli.generate import slug

Cli = Callable[..., Any]
Read = Callable[[Path], Mapping[str, Any]]


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def test_pictures_and_record_are_written_and_the_report_is_shown(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    out = tmp_path / "deep" / "folder"
    answer = cli(
        *("generate", "a cat", "a dog", "--model", tiny, "--out", out, "--steps", 6),
        *("--policy", "fixed_step", "-o", "gate_step=2", "--num-images", 2, "--seed", 5),
    )
    assert (answer.code, answer.err) == (0, "")
    record = read(out / "report.json")
    assert record["policy"] == "fixed_step gate_step=2"
    assert [run["prompt"] for run in record["runs"]] == ["a cat", "a dog"]
    assert record["runs"][0]["files"] == ["01-a-cat-seed5.png", "01-a-cat-seed6.png"]
    for run in record["runs"]:
        assert run["report"]["rows"] == {"ran": 16, "asked": 24}
        for file in run["files"]:
            assert opened(out / file).size == (16, 16)
            assert file in answer.out
    assert "guidance" in answer.out
    assert "..####" in answer.out
    assert str(out / "report.json") in answer.out


def test_a_seed_draws_the_same_picture_alone_and_among_others(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    common = ("generate", "a cat", "--model", tiny, "--steps", 3, "--policy", "never")
    cli(*common, "--out", tmp_path / "many", "--num-images", 3)
    cli(*common, "--out", tmp_path / "one", "--seed", 2)
    many, one = (opened(tmp_path / folder / "01-a-cat-seed2.png") for folder in ("many", "one"))
    assert max(abs(a - b) for a, b in zip(many.tobytes(), one.tobytes(), strict=True)) <= 1


def test_without_a_policy_the_librarys_default_is_taken(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    from tgate_sampling.policy import DEFAULT_POLICY

    cli("generate", "a cat", "--model", tiny, "--out", tmp_path, "--steps", 3, "--refresh", 4)
    assert read(tmp_path / "report.json")["policy"] == f"{DEFAULT_POLICY} refresh=4"


# diffusers' schedulers hand tensors to NumPy functions, by a protocol torch is behind with.
@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")
def test_options_of_sampler_and_picture_reach_the_pipeline(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    answer = cli(
        *("generate", "a cat", "--model", tiny, "--out", tmp_path, "--steps", 3, "--size", "32x24"),
        *("--sampler", "euler", "--negative-prompt", "dog", "--guidance-scale", 1, "--policy"),
        *("fixed_step", "-o", "gate_step=1", "--estimator", "none", "--merge", "mean"),
    )
    assert answer.code == 0
    assert opened(tmp_path / "01-a-cat-seed0.png").size == (32, 24)
    record = read(tmp_path / "report.json")
    assert record["settings"]["sampler"] == "euler"
    assert record["policy"] == "fixed_step gate_step=1 estimator=none merge=mean"
    assert record["runs"][0]["report"]["rows"] == {"ran": 3, "asked": 3}


def test_events_of_the_run_are_shown(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    answer = cli(
        *("generate", "a cat", "--model", tiny, "--out", tmp_path, "--steps", 3),
        *("--policy", "fixed_step", "-o", "gate_step=9"),
    )
    assert "no gate closed" in answer.out


@dataclass(frozen=True)
class Interrupting(tg.Policy):
    """Ctrl-C in the second run."""

    def begin(self) -> Any:
        runs.append(self)
        return super().begin()

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        if len(runs) == 2 and step.index == 1:
            raise KeyboardInterrupt
        return False


runs: list[Interrupting] = []


@pytest.mark.usefixtures("new_policy")
def test_an_interrupt_keeps_what_was_drawn(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read, new_policy: Callable[..., None]
) -> None:
    runs.clear()
    new_policy("interrupting", Interrupting)
    answer = cli(
        *("generate", "a cat", "a dog", "--model", tiny, "--out", tmp_path, "--steps", 3),
        *("--policy", "interrupting"),
    )
    assert answer.code == 130
    assert "Traceback" not in answer.err
    assert [run["prompt"] for run in read(tmp_path / "report.json")["runs"]] == ["a cat"]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["01-a-cat-seed0.png"]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("A cat!", "a-cat"), ("...", "picture"), ("é x", "x"), ("a" * 99, "a" * 48)],
)
def test_a_prompt_becomes_a_file_name(prompt: str, name: str) -> None:
    assert slug(prompt) == name
