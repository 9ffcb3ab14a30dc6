"""The docs name what the code has."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import pytest

from tgate_sampling import hookspecs
from tgate_sampling._manager import new_manager

ROOT = Path(__file__).parents[1]
HOOKS = sorted(n for n in vars(hookspecs) if n.startswith(hookspecs.PREFIX))


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_stands_in_the_docs_with_its_signature(hook: str) -> None:
    """docs/hooks.md shows every hook exactly as it is called."""
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    assert f"`{hook}({arguments})`" in (ROOT / "docs" / "hooks.md").read_text()


def test_the_docs_name_no_hook_that_does_not_exist() -> None:
    """A renamed hook does not live on in the docs."""
    named = re.findall(r"`(tgate_\w+)\(", (ROOT / "docs" / "hooks.md").read_text())
    assert sorted(set(named)) == HOOKS


def test_each_policy_stands_in_the_readme() -> None:
    """README names every policy we ship."""
    text = (ROOT / "README.md").read_text()
    assert [p for p in new_manager().policies if f"`{p}" not in text] == []


def test_each_dependency_has_its_reason() -> None:
    """docs/why.md says why each package in pyproject.toml is there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    names = {re.split(r"[<>=\[]", r)[0] for requirements in lists for r in requirements}
    why = (ROOT / "docs" / "why.md").read_text()
    assert sorted(n for n in names - {"tgate-sampling"} if n not in why) == []
