"""The lower bounds of pyproject.toml are the versions that `make test-lowest` runs with."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text()
PINS = (ROOT / "constraints-lowest.txt").read_text() + (ROOT / "constraints.txt").read_text()


def bounds(project: str) -> dict[str, set[Version | None]]:
    """The `>=` of each package that the distribution or an extra names; None where there is none.

    An extra may name the distribution itself, to include another extra.
    """
    table = tomllib.loads(project)["project"]
    extras = table["optional-dependencies"].values()
    named = [*table["dependencies"], *(need for extra in extras for need in extra)]
    found: dict[str, set[Version | None]] = defaultdict(set)
    for need in map(Requirement, named):
        if need.name == table["name"]:
            continue
        low = [Version(s.version) for s in need.specifier if s.operator == ">="]
        found[canonicalize_name(need.name)].update(low or [None])
    return found


def pins(text: str) -> dict[str, Version]:
    """The versions of a file of lines like `name==1.2.0`, comments left out."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def disagreements(project: str, constraints: str) -> list[str]:
    """Each package that the two name differently, in a sentence."""
    asked, given = bounds(project), pins(constraints)
    return [
        f"{name}: {sorted(map(str, asked.get(name, ())))} in pyproject, {given.get(name)} is run"
        for name in sorted({*asked, *given})
        if asked.get(name) != {given.get(name)} or None in asked[name]
    ]


def test_what_pyproject_promises_is_what_is_run() -> None:
    """Every runtime dependency, of the core and of all extras, and nothing else."""
    assert disagreements(PROJECT, PINS) == []


@pytest.mark.parametrize(
    ("pattern", "by", "said"),
    [
        (r"pluggy>=1\.5,", "pluggy>=1.4,", "pluggy: ['1.4'] in pyproject, 1.5.0 is run"),
        (r"pluggy>=1\.5,", "pluggy", "pluggy: ['None'] in pyproject, 1.5.0 is run"),
        (
            r"\"pillow>=10\.1\"",
            '"pillow>=10"',
            "pillow: ['10', '10.1'] in pyproject, 10.1.0 is run",
        ),
        (r"\"torchsde>=[0-9.]+\",", "", "torchsde: [] in pyproject, 0.2.6 is run"),
        (r"\"torchsde>", '"new>=1", "torchsde>', "new: ['1'] in pyproject, None is run"),
    ],
    ids=["lower than is run", "no bound", "two bounds", "no longer needed", "never run"],
)
def test_a_planted_disagreement_is_found(pattern: str, by: str, said: str) -> None:
    """One line of pyproject changed: one sentence."""
    planted, changed = re.subn(pattern, by, PROJECT, count=1)
    assert changed == 1
    assert disagreements(planted, PINS) == [said]


def test_ci_runs_it() -> None:
    """After the tests with the newest versions, which find more at once."""
    words = re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert words.index("test-lowest") == words.index("test") + 1


@pytest.mark.skipif(Path(sys.prefix).name != ".venv-lowest", reason="for `make test-lowest`")
def test_the_versions_that_run_are_the_lowest() -> None:
    """Installed is what the constraints say, to the last digit."""
    installed = {name: Version(importlib.metadata.version(name)).public for name in pins(PINS)}
    assert installed == {name: str(version) for name, version in pins(PINS).items()}
