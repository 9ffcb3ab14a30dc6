"""`compare`: one comparison, and what its record, its table and its picture say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tgate_sampling as tg
from tgate_plugins.cli.compare import default_policies

Cli = Callable[..., Any]
Read = Callable[[Path], Mapping[str, Any]]

STEPS = 8


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


@dataclass(frozen=True)
class Made:
    """A finished comparison."""

    answer: Any
    folder: Path
    record: Mapping[str, Any]

    @property
    def methods(self) -> Mapping[str, Any]:
        return {m["method"]: m for m in self.record["methods"]}


@pytest.fixture(scope="module")
def made(cli: Cli, tiny: Path, tmp_path_factory: pytest.TempPathFactory, read: Read) -> Made:
    """Two prompts, two seeds; three policies, two of which cost the same."""
    out = tmp_path_factory.mktemp("out")
    answer = cli(
        *("compare", "a cat", "a dog", "--model", tiny, "--out", out, "--steps", STEPS),
        *("--seeds", 2, "--seed", 7, "--policy", "fixed_step:gate_step=4"),
        *("--policy", "fixed_step:gate_step=4,estimator=none", "--policy", "never"),
    )
    return Made(answer, out, read(out / "compare.json"))


def test_it_ends_well_and_names_the_picture_last(made: Made) -> None:
    assert (made.answer.code, made.answer.err) == (0, "")
    last = made.answer.out.rstrip().splitlines()[-1]
    assert last.split() == ["picture", str(made.folder / "compare.png")]


def test_every_method_draws_every_prompt_and_seed(made: Made) -> None:
    drawn = {(i["method"], i["prompt"], i["seed"]) for i in made.record["images"]}
    expected = {(m, p, s) for m in made.methods for p in ("a cat", "a dog") for s in (7, 8)}
    assert drawn == expected
    assert len(made.record["images"]) == len(expected)


def test_each_gated_method_has_a_rival_of_no_higher_cost_and_one_more_step_would_cost_more(
    made: Made,
) -> None:
    methods = made.methods
    per_step = methods[f"ungated, {STEPS} steps"]["macs"] / STEPS
    for method in methods.values():
        if method["kind"] == "gated":
            rival = methods[method["rival"]]
            assert rival["macs"] <= method["macs"] * (1 + 1e-9)
            assert rival["macs"] + per_step > method["macs"]
            assert rival["steps"] * per_step == pytest.approx(rival["macs"])


def test_equal_step_counts_are_drawn_once(made: Made) -> None:
    kinds = [m["kind"] for m in made.record["methods"]]
    assert kinds == ["ungated", "gated", "gated", "fewer steps", "gated"]


def test_the_ungated_run_is_the_measure_of_all(made: Made) -> None:
    base = made.methods[f"ungated, {STEPS} steps"]
    assert made.record["reference"] == base["method"]
    assert (base["macs_speedup"], base["seconds_speedup"], base["identical"]) == (1.0, 1.0, 4)
    assert base["ssim"] == {"mean": 1.0, "worst": 1.0}


def test_a_policy_that_never_closes_is_identical_and_saves_nothing(made: Made) -> None:
    never = made.methods["never"]
    assert (never["macs_speedup"], never["identical"]) == (pytest.approx(1.0), 4)
    assert never["group"] == "saves less than one step"


def test_the_record_holds_rows_macs_and_gates_of_every_picture(made: Made) -> None:
    for image in made.record["images"]:
        if image["method"] == "fixed_step gate_step=4":
            assert image["rows"] == 2 * 4 + 4
            assert image["closed"] == {"guidance": [4, 5, 6, 7], "cross": [4, 5, 6, 7]}
            assert image["psnr"] > 20
    speedup = made.methods["fixed_step gate_step=4"]["macs_speedup"]
    assert 16 / 12 < speedup < 1.5


def test_the_record_holds_what_was_asked(made: Made) -> None:
    settings = made.record["settings"]
    assert settings["prompts"] == ["a cat", "a dog"]
    assert settings["policies"][1] == "fixed_step gate_step=4 estimator=none"
    assert (settings["steps"], settings["seeds"], settings["seed"]) == (STEPS, 2, 7)
    assert made.record["complete"]
    assert made.record["failures"] == []


def test_the_table_shows_every_method_and_the_sentence_judges_them(made: Made) -> None:
    for method in made.methods:
        assert method in made.answer.out
    assert "vs fewer steps" in made.answer.out
    assert "of 2 gated methods come nearer to the reference than fewer steps" in made.answer.out
    assert "The model is tiny" in made.answer.out


def test_the_picture_has_a_row_for_each_prompt_and_seed_and_a_column_for_each_method(
    made: Made,
) -> None:
    picture = opened(made.folder / "compare.png")
    assert picture.width > len(made.methods) * 192 > picture.width * 0.7
    assert picture.height > 4 * 192 > picture.height * 0.7


def test_another_reference_measures_the_ungated_run_too(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    answer = cli(
        *("compare", "a cat", "--model", tiny, "--out", tmp_path, "--steps", 4),
        *("--reference-steps", 9, "--policy", "fixed_step:gate_step=2"),
    )
    assert answer.code == 0
    record = read(tmp_path / "compare.json")
    assert record["reference"] == "reference, 9 steps"
    reference, ungated = record["methods"][:2]
    assert reference["identical"] == 1
    assert ungated["identical"] == 0
    assert ungated["psnr"]["mean"] > 0
    assert reference["macs_speedup"] == pytest.approx(4 / 9)


def test_every_time_has_an_ungated_one_beside_it(made: Made) -> None:
    beside: dict[str, set[float]] = {}
    for image in made.record["images"]:
        assert image["ungated_seconds_beside"] > 0
        beside.setdefault(image["method"], set()).add(image["ungated_seconds_beside"])
    kinds = {m["method"]: m["kind"] for m in made.record["methods"]}
    first = [seconds for method, seconds in beside.items() if kinds[method] != "fewer steps"]
    later = [seconds for method, seconds in beside.items() if kinds[method] == "fewer steps"]
    assert first.count(first[0]) == len(first)
    assert all(seconds.isdisjoint(first[0]) for seconds in later)


def test_the_default_list_has_the_librarys_own_policy_first_and_gates_at_two_fifths() -> None:
    labels = [spec.label for spec in default_policies(25)]
    assert labels[0] == tg.policy.__globals__["DEFAULT_POLICY"]
    assert "fixed_step gate_step=10" in labels
    assert "fixed_step gate_step=10 estimator=none" in labels
    assert "tgate gate_step=10" in labels
    assert [s.options["gate_step"] for s in default_policies(1) if s.options] == [1, 1, 1]


@dataclass(frozen=True)
class Moody(tg.Policy):
    """Fails or interrupts in the run after so many."""

    good: int = 0
    error: str = "fail"

    def begin(self) -> Any:
        runs.append(self)
        return super().begin()

    def decide(self, step: tg.StepContext, signals: tg.Signals) -> bool:
        if len(runs) > self.good and step.index == 2:
            raise KeyboardInterrupt if self.error == "interrupt" else RuntimeError("it broke")
        return step.index >= 2


runs: list[Moody] = []


@pytest.fixture
def _moody(new_policy: Callable[..., None]) -> None:
    runs.clear()
    new_policy("moody", Moody)


@pytest.mark.usefixtures("_moody")
def test_a_failure_is_said_and_the_others_go_on(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    answer = cli(
        *("compare", "a cat", "a dog", "--model", tiny, "--out", tmp_path, "--steps", 5),
        *("--policy", "moody:good=1", "--policy", "fixed_step:gate_step=2"),
    )
    record = read(tmp_path / "compare.json")
    assert answer.code == 1
    assert answer.err == "failed: moody good=1, 'a dog', seed 0: RuntimeError: it broke\n"
    assert record["failures"] == [
        {"method": "moody good=1", "prompt": "a dog", "seed": 0, "error": "RuntimeError: it broke"}
    ]
    methods = {m["method"]: (m["images"], m["failed"]) for m in record["methods"]}
    assert methods["moody good=1"] == (1, 1)
    assert methods["fixed_step gate_step=2"] == (2, 0)
    assert "moody good=1 (1 failed)" in answer.out
    assert (tmp_path / "compare.png").exists()


@pytest.mark.usefixtures("_moody")
def test_a_method_that_always_fails_leaves_a_row_and_no_rival(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    answer = cli(
        *("compare", "a cat", "--model", tiny, "--out", tmp_path, "--steps", 5),
        *("--policy", "moody"),
    )
    row = read(tmp_path / "compare.json")["methods"][-1]
    assert answer.code == 1
    assert (row["images"], row["failed"], row["psnr"], row["rival"]) == (0, 1, None, None)


@pytest.mark.usefixtures("_moody")
def test_an_interrupt_keeps_what_was_drawn_and_says_so(
    cli: Cli, tiny: Path, tmp_path: Path, read: Read
) -> None:
    answer = cli(
        *("compare", "a cat", "a dog", "--model", tiny, "--out", tmp_path, "--steps", 5),
        *("--policy", "moody:good=1,error=interrupt"),
    )
    record = read(tmp_path / "compare.json")
    assert answer.code == 130
    assert not record["complete"]
    assert "Interrupted" in answer.out
    # Ungated and gated of the first prompt, ungated of the second.
    assert [i["prompt"] for i in record["images"]] == ["a cat", "a cat", "a dog"]
    assert (tmp_path / "compare.png").exists()
