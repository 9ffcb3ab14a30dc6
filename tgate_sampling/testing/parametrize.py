"""The checks as pytest items: one for each object and check. Pytest is imported when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tgate_sampling.errors import OptionError, nearest
from tgate_sampling.policy import Policy
from tgate_sampling.testing.adapters import ADAPTER_CHECKS
from tgate_sampling.testing.cases import AdapterCase
from tgate_sampling.testing.made_up import PolicyCase
from tgate_sampling.testing.plugin_case import PluginCase
from tgate_sampling.testing.plugins import PLUGIN_CHECKS
from tgate_sampling.testing.policies import POLICY_CHECKS
from tgate_sampling.testing.results import DoesNotApplyError, check_names, name_of

Test = TypeVar("Test", bound=Callable[..., None])

#: For each object, the checks that are known to fail, and why.
Expected = Mapping[str, Mapping[str, str]]


def parametrize_policy_checks(
    factories: Mapping[str, Callable[[], Any] | Policy],
    *,
    expected_failures: Expected | None = None,
) -> Callable[[Test], Test]:
    """Make of `test(case, check)` one item for each policy and check.

    Args:
        factories: by name, what `check_policy` takes.
        expected_failures: `{"mine": {"check_x": "why"}}`; such an item is a strict xfail, so that a
            fault that has been mended is noticed.

    Example::

        @parametrize_policy_checks({"mine": Mine})
        def test_policies(case, check):
            check(case)
    """
    cases = {name: PolicyCase(factory) for name, factory in factories.items()}
    return _parametrize(cases, POLICY_CHECKS, expected_failures or {})


def parametrize_adapter_checks(
    cases: Mapping[str, AdapterCase], *, expected_failures: Expected | None = None
) -> Callable[[Test], Test]:
    """Make of `test(case, check)` one item for each adapter and check.

    Args:
        cases: by name, adapters with the models to try them on.
        expected_failures: as for policies.

    Example::

        @parametrize_adapter_checks({"mine": AdapterCase(MyAdapter, tiny_model)})
        def test_adapters(case, check):
            check(case)
    """
    return _parametrize(cases, ADAPTER_CHECKS, expected_failures or {})


def parametrize_plugin_checks(
    plugins: Iterable[object], *, expected_failures: Expected | None = None
) -> Callable[[Test], Test]:
    """Make of `test(case, check)` one item for each plugin and check.

    Args:
        plugins: names of entry points or modules, or modules.
        expected_failures: as for policies, by name of the plugin.

    Example::

        @parametrize_plugin_checks(["my_plugin"])
        def test_plugins(case, check):
            check(case)
    """
    cases = [PluginCase(plugin) for plugin in plugins]
    return _parametrize({c.label: c for c in cases}, PLUGIN_CHECKS, expected_failures or {})


def _parametrize(
    cases: Mapping[str, Any], checks: Sequence[Callable[[Any], None]], expected: Expected
) -> Callable[[Test], Test]:
    import pytest

    for name, failures in expected.items():
        if name not in cases:
            raise OptionError(f"expected_failures names {name!r}. {nearest(name, cases)}")
        check_names(failures, checks, f"expected_failures[{name!r}]")
    items = [
        pytest.param(
            case,
            _as_item(check),
            id=f"{name}-{name_of(check)}",
            marks=[pytest.mark.xfail(reason=expected[name][name_of(check)], strict=True)]
            if name_of(check) in expected.get(name, {})
            else [],
        )
        for name, case in cases.items()
        for check in checks
    ]
    made: Callable[[Test], Test] = pytest.mark.parametrize(("case", "check"), items)
    return made


def _as_item(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A check that skips its item where it does not apply."""

    def run(case: Any) -> None:
        __tracebackhide__ = True
        try:
            check(case)
        except DoesNotApplyError as reason:
            import pytest

            pytest.skip(str(reason))

    return run
