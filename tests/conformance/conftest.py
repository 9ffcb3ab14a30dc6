"""What the tests of the conformance kit share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tgate_sampling._manager import manager


@pytest.fixture(autouse=True)
def _session_policies() -> Iterator[None]:
    """Policies that an offender smuggles in go with its test."""
    registry = manager().policies
    before = registry._entries.copy()
    yield
    registry._entries = before
