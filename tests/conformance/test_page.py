"""docs/conformance.md runs as it stands, and lists every check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_helper
from tgate_sampling.testing import ADAPTER_CHECKS, PLUGIN_CHECKS, POLICY_CHECKS

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
BLANK = "\n\n"


def test_the_page_runs_and_prints_what_it_says() -> None:
    """Every block, in order, in one session."""
    load_helper("pages.py").run(PAGE)


@pytest.mark.parametrize(
    "checks", [POLICY_CHECKS, ADAPTER_CHECKS, PLUGIN_CHECKS], ids=["policy", "adapter", "plugin"]
)
def test_each_check_stands_on_the_page_with_its_sentence(checks: tuple[Any, ...]) -> None:
    """In the order in which they run."""
    rows = [
        f"| `{check.__name__}` | {check.__doc__.partition(BLANK)[0].strip()} |" for check in checks
    ]
    assert "\n".join(rows) in PAGE.read_text()
