"""The program itself: help, version, bad input in one sentence, and what a missing extra says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tgate_plugins import cli as package
from tgate_sampling.errors import MissingExtraError

Cli = Callable[..., Any]

GENERATE = ("generate", "a cat")


def test_the_version_is_the_distributions(cli: Cli) -> None:
    answer = cli("--version")
    assert (answer.code, answer.out) == (0, f"tgate-sampling {version('tgate-sampling')}\n")


@pytest.mark.parametrize("command", ["generate", "compare", "plugins"])
def test_every_command_has_help_with_examples(cli: Cli, command: str) -> None:
    answer = cli(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "Examples" in answer.out
    assert f"tgate-sampling {command}" in answer.out


def test_help_names_the_commands_and_so_does_calling_it_bare(cli: Cli) -> None:
    assert cli("--help").code == 0
    bare = cli()
    for command in ("generate", "compare", "plugins"):
        assert command in cli("--help").out
        assert command in bare.out
    assert bare.err == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*GENERATE, "--model", "./nowhere"), "there is no folder './nowhere'"),
        ((*GENERATE, "--model", "emoji_sd"), "no model is called 'emoji_sd'"),
        ((*GENERATE, "--policy", "fixd_step"), "Did you mean 'fixed_step'?"),
        ((*GENERATE, "--policy", "tgate", "-o", "gate_stp=1"), "Did you mean 'gate_step'?"),
        ((*GENERATE, "--policy", "tgate", "-o", "gate_step"), "write key=value"),
        ((*GENERATE, "--policy", "tgate", "-o", "refresh=2"), "write --refresh 2"),
        ((*GENERATE, "-o", "gate_step=1"), "--option gate_step belongs to no policy"),
        ((*GENERATE, "--estimator", "hld"), "Did you mean 'hold'?"),
        ((*GENERATE, "--sampler", "eulr"), "Did you mean 'euler'?"),
        ((*GENERATE, "--steps", 0), "'--steps'"),
        ((*GENERATE, "--steps", "many"), "'--steps'"),
        ((*GENERATE, "--num-images", 0), "'--num-images'"),
        ((*GENERATE, "--size", "big"), "is no size: write 512"),
        ((*GENERATE, "--modl", "x"), "--modl"),
        (("generate",), "PROMPT..."),
        (("compare", "--policy", "fixd_step"), "Did you mean 'fixed_step'?"),
        (("compare", "--policy", "tgate:gate_step"), "write key=value"),
        (("compare", "--policy", "tgate:estimator=hld"), "Did you mean 'hold'?"),
        (("compare", "--model", "./nowhere"), "there is no folder"),
        (("compare", "--sampler", "eulr"), "Did you mean 'euler'?"),
        (("compare", "--steps", 0), "'--steps'"),
        (("compare", "--seeds", 0), "'--seeds'"),
        (("compare", "--reference-steps", 0), "'--reference-steps'"),
        (("generat",), "generat"),
        (("plugins", "extra"), "extra"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(
    cli: Cli, words: tuple[str, ...], sentence: str
) -> None:
    answer = cli(*words)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("tgate-sampling: ")
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--size", "33"), "divisible by 8"),
        (("--dtype", "float8"), "Did you mean 'float32'?"),
        (("--device", "tpu"), "try --device cpu"),
    ],
)
@pytest.mark.parametrize("command", ["generate", "compare"])
def test_bad_input_that_needs_the_model_is_one_sentence_too(
    cli: Cli, tiny: Path, tmp_path: Path, command: str, words: tuple[str, ...], sentence: str
) -> None:
    answer = cli(command, "a cat", "--model", tiny, "--out", tmp_path, *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["generate", "compare"])
def test_a_folder_that_cannot_be_written_is_known_before_the_model_is_loaded(
    cli: Cli, tiny: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(f"tgate_plugins.cli.{command}.load_pipeline", load)
    (tmp_path / "file").touch()
    answer = cli(command, "a cat", "--model", tiny, "--out", tmp_path / "file" / "out")
    assert answer.code == 2
    assert "cannot be written to" in answer.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_cannot_be_written(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    answer = cli(*GENERATE, "--model", tiny, "--out", tmp_path)
    assert (answer.code, "cannot be written to" in answer.err) == (2, True)


@pytest.mark.parametrize("missing", ["typer", "rich", "PIL", "skimage", "diffusers"])
def test_a_missing_extra_is_one_sentence_with_the_install_line(
    cli: Cli, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: Any) -> int:
        raise ModuleNotFoundError(f"No module named '{missing}.sub'", name=f"{missing}.sub")

    monkeypatch.setattr("tgate_plugins.cli.app.run", absent)
    answer = cli("plugins")
    assert answer.code == 1
    assert answer.err == (
        f"tgate-sampling needs {missing}, which is not installed: "
        "pip install 'tgate-sampling[cli]'\n"
    )


def test_a_missing_module_of_our_own_is_a_bug_and_is_raised(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(_: Any) -> int:
        raise ModuleNotFoundError("No module named 'tgate_oops'", name="tgate_oops")

    monkeypatch.setattr("tgate_plugins.cli.app.run", absent)
    with pytest.raises(ModuleNotFoundError, match="tgate_oops"):
        cli("plugins")


def test_an_extra_that_a_plugin_misses_is_its_own_sentence(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingExtraError("k-diffusion is missing: pip install it")

    monkeypatch.setattr("tgate_plugins.cli.plugins.quiet_manager", absent)
    answer = cli("plugins")
    assert (answer.code, answer.err) == (
        1,
        "tgate-sampling: k-diffusion is missing: pip install it\n",
    )


def test_without_typer_the_real_program_says_so(tmp_path: Path) -> None:
    """In a process of its own: typer is shadowed by a module that is not there."""
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from tgate_plugins.cli import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tgate-sampling needs typer, which is not installed: {package.INSTALL}\n"


def test_the_program_runs_from_end_to_end_as_a_module(tiny: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tgate_plugins.cli", "compare", "a cat"),
            *("--model", str(tiny), "--out", str(tmp_path), "--steps", "4"),
            *("--policy", "fixed_step:gate_step=2"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().endswith(str(tmp_path / "compare.png"))
    assert {p.name for p in tmp_path.iterdir()} == {"compare.json", "compare.png"}
