"""`plugins`: everything registered, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tgate_plugins.cli import plugins
from tgate_plugins.cli.screen import console
from tgate_sampling._manager import BUILTINS, PluginFailure, new_manager
from tgate_sampling.policy import policies

Cli = Callable[..., Any]


def test_json_lists_every_kind_with_owner_and_version(cli: Cli) -> None:
    answer = cli("plugins", "--json")
    listing = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert {p["name"] for p in listing["policies"]} >= {"never", "fixed_step", "tgate"}
    assert {p["name"] for p in listing["policies"]} == set(policies())
    unet = next(a for a in listing["adapters"] if a["name"] == "diffusers-unet")
    assert "UNet2DConditionModel" in unet["models"]
    assert unet["owner"] == "tgate_adapters.diffusers_unet"
    assert unet["distribution"] == "tgate-sampling"
    assert {d["name"] for d in listing["drivers"]} >= {"diffusers", "loop", "k_diffusion"}
    assert {e["name"] for e in listing["layers"]} >= {"deepcache"}
    assert "dpmpp_2m" in {s["name"] for s in listing["samplers"]}
    assert {p["name"] for p in listing["plugins"]} >= set(BUILTINS)


def test_a_policy_is_listed_with_its_options_and_defaults() -> None:
    listing = plugins.to_dict(new_manager())
    fixed = next(p for p in listing["policies"] if p["name"] == "fixed_step")
    assert fixed["options"]["gate_step"] is None
    assert fixed["options"]["gates"] == ["cross", "guidance"]


def test_an_option_without_a_default_is_required_and_those_of_the_gate_are_not_listed() -> None:
    def factory(needed: int, *, estimator: str = "hold") -> None: ...

    assert plugins.options(factory) == {"needed": "required"}


def test_a_plugin_that_was_left_out_is_listed_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = new_manager()
    broken.failures.append(PluginFailure("odd", "tgate-odd", "1.2", "ImportError: no such thing"))
    assert plugins.to_dict(broken)["failures"] == [
        {
            "name": "odd",
            "distribution": "tgate-odd",
            "version": "1.2",
            "reason": "ImportError: no such thing",
        }
    ]
    plugins.print_plugins(broken, console())
    out = capsys.readouterr().out
    assert all(word in out for word in ("left out", "odd", "tgate-odd", "1.2", "no such thing"))


def test_the_tables_name_everything(cli: Cli) -> None:
    answer = cli("plugins")
    for word in ("policies", "fixed_step", "UNet2DConditionModel", "deepcache", "dpmpp_2m", "lms"):
        assert word in answer.out
    assert "left out" not in answer.out


def test_what_was_registered_in_this_session_has_no_version(
    new_policy: Callable[..., None],
) -> None:
    new_policy("mine", lambda: None)
    mine = plugins.to_dict(plugins.quiet_manager())["policies"][-1]
    assert (mine["name"], mine["owner"], mine["version"]) == ("mine", "tests/cli", "-")
