"""`tgate-sampling study`: from words to a folder with a report, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conftest import load_helper
from tgate_plugins.study import folder as places
from tgate_plugins.study.log import read
from tgate_sampling._manager import manager
from tgate_sampling.method import Applied, Method, Setting

kit = load_helper("study/kit.py")

Cli = Callable[..., Any]


def words(tiny: Path, out: Path, *methods: str) -> tuple[str, ...]:
    """A small study of a folder of a user's own."""
    named = [word for method in methods for word in ("--method", method)]
    return (
        *("study", "--model", str(tiny), "--out", str(out), "--steps", "3"),
        *("--converged-steps", "4", "--prompt", "a cat", "--prompt", "a dog", *named),
    )


@dataclass(frozen=True)
class Moody(Method):
    """Fails, refuses, or interrupts, as its option says; and leaves something behind when it does.

    Args:
        at: the picture, counted from 1, at which it does so.
    """

    does: str = "fail"
    at: int = 1
    part = "related"
    calls: ClassVar[list[Any]] = []

    def refuses(self, pipe: Any, setting: Setting) -> str | None:
        if self.does == "stumble":
            raise RuntimeError("I do not know")
        return "it will not" if self.does == "refuse" else None

    @contextmanager
    def apply(self, pipe: Any, setting: Setting) -> Iterator[Applied]:
        self.calls.append(pipe)
        if len(self.calls) == self.at:
            pipe.unet.left_behind = True
            raise KeyboardInterrupt if self.does == "interrupt" else RuntimeError("it broke")
        yield Applied(setting.steps, setting.guidance_scale)


@pytest.fixture
def moody() -> Iterator[type[Moody]]:
    owner = "tests/study"
    manager().methods.add("moody", Moody, owner=owner)
    Moody.calls.clear()
    yield Moody
    manager().methods.forget(owner)


@pytest.fixture(scope="module")
def made(cli: Cli, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("made")
    return cli(*words(tiny, out, "ours", "deepcache:interval=2")), out


def test_a_folder_of_ones_own_is_studied_and_the_report_is_named_last(made: Any) -> None:
    answer, out = made
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1].split() == ["report", str(out / "report.html")]
    assert {p.name for p in out.iterdir()} == {*places.OURS} - {"fid"}


def test_the_summary_and_the_table_say_what_was_made(made: Any) -> None:
    _, out = made
    summary = json.loads((out / places.SUMMARY).read_text())
    (model,) = summary["models"]
    labels = [m["label"] for m in model["methods"]]
    assert labels[:3] == ["ungated", "ours", "deepcache interval=2"]
    assert labels[3] == "converged steps=4"
    assert summary["complete"]
    assert all(m["pictures"] == 2 and m["macs"] > 0 for m in model["methods"])
    assert "object" in summary["left_out"]
    (ungated, *_, converged) = [
        m for m in model["methods"] if m["name"] in ("ungated", "converged")
    ]
    assert (ungated["macs_speedup"], ungated["seconds_speedup"]) == (1.0, 1.0)
    assert converged["seconds"] is None
    curves = json.loads((out / places.CURVES).read_text())[model["name"]]
    assert all(len(values) == curves["steps"] == 3 for values in curves["sites"].values())


def test_the_same_words_again_draw_nothing_and_change_no_byte(
    made: Any, cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    _, out = made
    monkeypatch.setattr("tgate_plugins.study.worker.load", nobody)
    before = {name: (out / name).read_bytes() for name in (places.LOG, places.TABLE)}
    assert cli(*words(tiny, out, "ours", "deepcache:interval=2")).code == 0
    assert cli("study", "--resume", "--out", out).code == 0
    assert cli("study", "--out", out).code == 0
    assert before == {name: (out / name).read_bytes() for name in before}


def test_another_study_in_the_same_folder_is_refused(made: Any, cli: Cli, tiny: Path) -> None:
    _, out = made
    answer = cli(*words(tiny, out, "ours"))
    assert answer.code == 2
    assert "holds another study (its methods are" in answer.err
    assert answer.err.count("\n") == 1


def test_failed_pictures_are_rows_and_the_study_goes_on_with_a_clean_model(
    cli: Cli, tiny: Path, tmp_path: Path, moody: type[Moody]
) -> None:
    answer = cli(*words(tiny, tmp_path, "moody", "ours"))
    assert answer.code == 1
    assert answer.err.splitlines() == [f"failed: {tiny}, moody: RuntimeError: it broke"]
    rows = {m["label"]: m for m in kit_summary(tmp_path)["models"][0]["methods"]}
    assert (rows["moody"]["pictures"], rows["moody"]["failed"]) == (1, 1)
    assert (rows["ours"]["pictures"], rows["ours"]["failed"]) == (2, 0)
    # The pipeline on which it failed was thrown away, with what was left behind in it.
    assert len({id(pipe) for pipe in moody.calls}) == 2
    assert [hasattr(pipe.unet, "left_behind") for pipe in moody.calls[:2]] == [True, False]


@pytest.mark.parametrize(
    ("does", "why"),
    [("refuse", "it will not"), ("stumble", "could not say whether it runs")],
)
def test_a_method_that_cannot_run_is_a_row_that_says_why_and_no_failure(
    cli: Cli, tiny: Path, tmp_path: Path, moody: type[Moody], does: str, why: str
) -> None:
    answer = cli(*words(tiny, tmp_path, f"moody:does={does}"))
    assert (answer.code, answer.err) == (0, "")
    assert why in answer.out
    refused = [r for r in read(tmp_path / places.LOG) if r["kind"] == "refused"]
    assert [r["method"] for r in refused] == [f"moody does={does}"]
    assert moody.calls == []


def test_ctrl_c_keeps_what_is_drawn_and_says_how_to_go_on(
    cli: Cli, tiny: Path, tmp_path: Path, moody: type[Moody], whole: Any
) -> None:
    asked = words(tiny, tmp_path, "moody:does=interrupt,at=2", "ours")
    answer = cli(*asked)
    assert answer.code == 130
    assert answer.err.endswith(f"`tgate-sampling study --resume --out {tmp_path}`.\n")
    before = read(tmp_path / places.LOG)
    assert cli("study", "--resume", "--out", tmp_path).code == 0
    after = read(tmp_path / places.LOG)
    assert after[: len(before)] == before
    assert len(moody.calls) == 3 + 1  # two pictures, the one that was interrupted, the count


def test_a_model_that_cannot_be_loaded_is_said_and_tried_again_next_time(
    cli: Cli, tiny: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny, tmp_path / "model"))
    weights = next((model / "unet").glob("*.safetensors"))
    good = weights.read_bytes()
    weights.write_bytes(good[:100])
    out = tmp_path / "out"
    answer = cli(*words(model, out, "ours"))
    assert answer.code == 1
    assert answer.err.startswith(f"failed: {model}: ")
    weights.write_bytes(good)
    assert cli(*words(model, out, "ours")).code == 0


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("--suite", "zo"), "no suite is called 'zo'"),
        (("nowhere.yaml",), "the spec 'nowhere.yaml' cannot be read"),
        (("nowhere.yaml", "--suite", "zoo"), "two specs"),
        (("--model", "emoji-sdd"), "no model is called 'emoji-sdd'"),
        (("--model", "./nowhere"), "there is no folder './nowhere'"),
        (("--method", "deepcach"), "Did you mean 'deepcache'?"),
        (("--metric", "psn"), "Did you mean 'psnr'?"),
        (("--engine", "rya"), "--engine 'rya' is unknown. Did you mean 'ray'?"),
        (("--address", "auto"), "add --engine ray"),
        (("--sampler", "eulr"), "Did you mean 'euler'?"),
        (("--dtype", "float8"), "--dtype 'float8' is unknown"),
        (("--device", "tpu"), "try --device cpu"),
        (("--prompts", "nowhere.txt"), "cannot be read"),
        (("--prompt", " "), "a prompt is empty"),
        (("--fid", 5), "ask for 2000 or more"),
        (("--resume",), "holds no study to go on with"),
        (("--resume", "--steps", 3), "--resume goes on with the spec that is in the folder"),
        (("--seeds", 0), "'--seeds'"),
        (("--workers", 0), "'--workers'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(
    cli: Cli, tmp_path: Path, asked: Sequence[object], sentence: str
) -> None:
    answer = cli("study", "--out", tmp_path / "out", *asked)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("tgate-sampling: ")
    assert sentence in answer.err
    assert answer.err.count("\n") == 1
    assert not (tmp_path / "out" / places.LOG).exists()


def test_help_has_examples(cli: Cli) -> None:
    answer = cli("study", "--help")
    assert (answer.code, answer.err) == (0, "")
    assert "tgate-sampling study --suite zoo --quick" in answer.out
    assert "--engine ray" in answer.out


@pytest.mark.parametrize("missing", ["pyarrow", "plotly", "torchmetrics"])
def test_a_missing_package_is_a_sentence_with_the_install_line(
    cli: Cli, tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    answer = cli("study", "--out", tmp_path)
    assert answer.code == 1
    assert answer.err == (
        f"tgate-sampling: tgate-sampling study needs {missing}, which is not installed: "
        "pip install 'tgate-sampling[study]'\n"
    )


def test_without_ray_its_engine_says_so_and_the_study_does_not_begin(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    answer = cli("study", "--engine", "ray", "--out", tmp_path / "out")
    assert answer.code == 1
    assert "pip install 'tgate-sampling[ray]'" in answer.err
    assert not (tmp_path / "out").exists()


def test_a_study_killed_without_warning_goes_on_to_the_same_table(
    whole: Any, cli: Cli, tmp_path: Path
) -> None:
    """A real process, killed for good in the middle of a picture or between two."""
    spec, log = tmp_path / "spec.yaml", tmp_path / "out" / places.LOG
    shutil.copy(whole.folder / places.SPEC, spec)
    order = (
        sys.executable,
        "-m",
        "tgate_plugins.cli",
        "study",
        str(spec),
        "--out",
        str(log.parent),
    )
    process = subprocess.Popen(order, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (log.exists() and len(read(log)) >= 5):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    cut = read(log)
    assert len(cut) < len(read(whole.folder / places.LOG))
    assert cli("study", spec, "--out", log.parent).code == 0
    assert read(log)[: len(cut)] == cut
    again = kit.Done(whole.spec, log.parent, kit_summary(log.parent))
    assert kit.same_pictures(whole, again)


def kit_summary(folder: Path) -> Any:
    return json.loads((folder / places.SUMMARY).read_text())
