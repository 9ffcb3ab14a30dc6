"""Planted offenders: small things with one sin each, and the check that must catch it."""

from __future__ import annotations

from tests.conftest import load_helper

policies = load_helper("conformance/bad_policies.py")

ADAPTERS = load_helper("conformance/bad_adapters.py").ADAPTERS
POLICIES = policies.POLICIES
PLUGINS = load_helper("conformance/bad_plugins.py").PLUGINS
