"""Our own plugins, and the example of an outsider's, come in as everybody's should."""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tgate_sampling._manager import BUILTINS
from tgate_sampling.testing import PLUGIN_CHECKS, check_plugin, parametrize_plugin_checks

EXAMPLE = Path(__file__).parents[2] / "docs" / "example-plugin"


@parametrize_plugin_checks(BUILTINS)
def test_built_in_plugins(case: Any, check: Any) -> None:
    """One item for each plugin and check."""
    check(case)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of docs/example-plugin, imported from its folder."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.delitem(sys.modules, "tgate_second_half", raising=False)
    return import_module("tgate_second_half")


def test_the_example_plugin_passes(example: ModuleType) -> None:
    """As a module, and by the module's name; nothing is left out."""
    for plugin in (example, "tgate_second_half"):
        results = check_plugin(plugin)
        assert [r.name for r in results if r.applies] == [c.__name__ for c in PLUGIN_CHECKS]


def test_a_plugin_is_found_by_its_entry_point(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that its distribution gives it, which need not be a module's."""
    entry = metadata.EntryPoint("second_half", "tgate_second_half", "tgate_sampling")
    found = metadata.EntryPoints([entry])
    monkeypatch.setattr(metadata, "entry_points", lambda **named: found.select(**named))
    assert all(r.passed for r in check_plugin("second_half"))


def test_a_name_that_leads_nowhere_says_so() -> None:
    """Neither an entry point nor a module."""
    first, *_ = check_plugin("tgate_nowhere", on_fail="collect")
    assert not first.passed
    assert "neither an entry point" in first.message
    assert "install it first" in first.message
