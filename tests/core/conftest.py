"""What the tests of the core share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tgate_sampling._manager import manager


@pytest.fixture(autouse=True)
def _session_policies() -> Iterator[None]:
    """Policies that a test registers for its session go with it."""
    registry = manager().policies
    before = registry._entries.copy()
    yield
    registry._entries = before
