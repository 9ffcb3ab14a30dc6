"""Tests of what older versions of diffusers have not: they are skipped there, and say so."""

from __future__ import annotations

import diffusers
import pytest
from packaging.version import Version


def needs_diffusers(version: str, why: str) -> pytest.MarkDecorator:
    """Skip a test below a version of diffusers, with the version in the reason."""
    old = Version(diffusers.__version__) < Version(version)
    return pytest.mark.skipif(old, reason=f"needs diffusers {version}: {why}")
