"""The checks as pytest items: one each, known failures as strict xfails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_helper
from tgate_sampling.errors import OptionError
from tgate_sampling.testing import POLICY_CHECKS, parametrize_policy_checks

offenders = load_helper("conformance/offenders.py")


def items(decorate: Any) -> list[Any]:
    """What a decorator makes of a test."""

    @decorate
    def test(case: Any, check: Any) -> None:
        check(case)

    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    return list(mark.args[1])


def test_there_is_an_item_for_each_object_and_check() -> None:
    """Named by both."""
    made = items(
        parametrize_policy_checks({"a": offenders.policies.Locks, "b": offenders.policies.Adapts})
    )
    assert [i.id for i in made] == [f"{n}-{c.__name__}" for n in "ab" for c in POLICY_CHECKS]
    assert [list(i.marks) for i in made] == [[]] * len(made)


def test_a_known_failure_is_a_strict_xfail_with_its_reason() -> None:
    """Of that object and that check alone."""
    expected = {"b": {"check_options_stay": "it adapts"}}
    made = items(
        parametrize_policy_checks(
            {"a": offenders.policies.Locks, "b": offenders.policies.Adapts},
            expected_failures=expected,
        )
    )
    marked = {i.id: [(m.name, m.kwargs) for m in i.marks] for i in made if i.marks}
    xfail = ("xfail", {"reason": "it adapts", "strict": True})
    assert marked == {"b-check_options_stay": [xfail]}


@pytest.mark.parametrize(
    "expected", [{"mien": {}}, {"mine": {"check_option_stays": "why"}}], ids=["object", "check"]
)
def test_a_misspelt_expectation_is_refused(expected: dict[str, dict[str, str]]) -> None:
    """It would expect nothing."""
    with pytest.raises(OptionError, match=r"Did you mean '(mine|check_options_stay)'"):
        parametrize_policy_checks({"mine": offenders.policies.Adapts}, expected_failures=expected)


SUITE = """
import dataclasses
import tgate_sampling as tg
from tgate_sampling.testing import parametrize_policy_checks

@dataclasses.dataclass(frozen=True)
class Good(tg.Policy):
    def decide(self, step, signals):
        return step.index > 2

class TooMuch(Good):
    gates = ("guidance",)

@parametrize_policy_checks(
    {"good": Good, "bad": TooMuch, "known": TooMuch},
    expected_failures={
        "known": {"check_only_declared_gates_close": "a known fault",
                  "check_first_step_is_computed": "the same"},
        "good": {"check_options_stay": "mended long ago"},
    },
)
def test_policies(case, check):
    check(case)
"""


class Outcomes:
    """A pytest plugin that writes outcomes down."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.skipped:
            item = report.nodeid.partition("[")[2].rstrip("]")
            expected = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            self.seen[item] = expected
            self.reasons[item] = str(report.longrepr)


def test_pytest_tells_them_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault fails, a known one is expected, a mended one is noticed, the rest passes or skips."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    outcomes = Outcomes()
    options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    pytest.main([*options, "-c", str(tmp_path / "pytest.ini"), str(tmp_path)], plugins=[outcomes])
    capsys.readouterr()
    seen = outcomes.seen
    assert len(seen) == 3 * len(POLICY_CHECKS)
    assert seen["bad-check_only_declared_gates_close"] == "failed"
    assert seen["known-check_only_declared_gates_close"] == "xfailed"
    assert seen["good-check_options_stay"] == "failed"
    assert "[XPASS(strict)] mended long ago" in outcomes.reasons["good-check_options_stay"]
    assert seen["good-check_answers_are_legal"] == "passed"
    assert seen["good-check_plan_agrees_with_decide"] == "skipped"
    assert "has no plan" in outcomes.reasons["good-check_plan_agrees_with_decide"]


def test_pytest_is_not_imported_before_it_is_asked_for() -> None:
    """Scripts and notebooks use the kit without it, and without diffusers."""
    code = (
        "import sys\n"
        "import tgate_sampling.testing\n"
        "print([m for m in ('pytest', 'diffusers') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
