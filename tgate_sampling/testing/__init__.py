"""The conformance kit: what our own policies, adapters and plugins must pass, for everybody's.

In a script or a notebook, results are values::

    from tgate_sampling.testing import check_policy

    for result in check_policy(MyPolicy, on_fail="collect"):
        print(result)

In a test suite, every check is an item of its own::

    from tgate_sampling.testing import parametrize_policy_checks

    @parametrize_policy_checks({"mine": MyPolicy})
    def test_policies(case, check):
        check(case)

`check_adapter(MyAdapter, tiny_model)` and `check_plugin("my_plugin")` are the same two doors to
adapters and plugins. Beside them there are fakes, which need no weights and no network:

>>> results = check_adapter(FakeAdapter, fake_backbone, on_fail="collect")
>>> [result.name for result in results if not result.passed]
[]
"""

from tgate_sampling.testing.adapters import ADAPTER_CHECKS, check_adapter
from tgate_sampling.testing.cases import AdapterCase
from tgate_sampling.testing.fakes import FakeAdapter, FakeBackbone, fake_backbone
from tgate_sampling.testing.made_up import PolicyCase
from tgate_sampling.testing.parametrize import (
    parametrize_adapter_checks,
    parametrize_plugin_checks,
    parametrize_policy_checks,
)
from tgate_sampling.testing.plugin_case import PluginCase
from tgate_sampling.testing.plugins import PLUGIN_CHECKS, check_plugin
from tgate_sampling.testing.policies import POLICY_CHECKS, check_policy
from tgate_sampling.testing.results import CheckResult, ConformanceError, DoesNotApplyError
from tgate_sampling.testing.tiny import tiny_denoiser, tiny_unet, unet_inputs

__all__ = [
    "ADAPTER_CHECKS",
    "AdapterCase",
    "CheckResult",
    "ConformanceError",
    "DoesNotApplyError",
    "FakeAdapter",
    "FakeBackbone",
    "PLUGIN_CHECKS",
    "POLICY_CHECKS",
    "PluginCase",
    "PolicyCase",
    "check_adapter",
    "check_plugin",
    "check_policy",
    "fake_backbone",
    "parametrize_adapter_checks",
    "parametrize_plugin_checks",
    "parametrize_policy_checks",
    "tiny_denoiser",
    "tiny_unet",
    "unet_inputs",
]
