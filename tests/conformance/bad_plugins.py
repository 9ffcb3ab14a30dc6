"""Plugins with one sin each, as the text of a module."""

from __future__ import annotations

import importlib.abc
import importlib.util
from collections.abc import Callable
from types import ModuleType

from tests.conftest import load_helper

Offender = load_helper("conformance/offender.py").Offender

HEAD = """
import tgate_sampling as tg
from tgate_sampling.adapter import Adapter
from tgate_sampling.driver import Driver
from tgate_sampling.layer import Layer

class Mine(tg.Policy):
    def decide(self, step, signals):
        return step.index > 3
"""

GOOD = """
@tg.hookimpl
def tgate_register_policies(register):
    register("mine", Mine)
"""


class _Source(importlib.abc.InspectLoader):
    """Loads a module from a text."""

    def __init__(self, source: str) -> None:
        self._source = source

    def get_source(self, fullname: str) -> str:
        return self._source


def module(source: str, name: str = "offender") -> ModuleType:
    """A module with this text."""
    spec = importlib.util.spec_from_loader(name, _Source(HEAD + source))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def registers(hook: str, what: str) -> Callable[[], ModuleType]:
    """A module that registers one thing."""
    source = f"@tg.hookimpl\ndef tgate_register_{hook}(register):\n    register({what})\n"
    return lambda: module(source)


#: Registers at import, and so again at every import.
AT_IMPORT = """
@tg.policy
def at_import(step):
    return step.index > 3
"""

BY_THE_BACK_DOOR = """
from tgate_sampling._manager import manager

@tg.hookimpl
def tgate_register_policies(register):
    manager().policies.add("stray", Mine, owner="stray", replace=True)
"""

ONLY_ONCE = """
DONE = []

@tg.hookimpl
def tgate_register_policies(register):
    if DONE:
        raise RuntimeError("registered before")
    DONE.append(1)
    register("mine", Mine)
"""

KIND = "check_registered_things_are_of_their_kind"

PLUGINS = {
    "registers at import": Offender(
        "check_it_imports_twice",
        lambda: module(AT_IMPORT + GOOD),
        "importing it registered the policy 'at_import'",
    ),
    "misspells a hook": Offender(
        "check_hooks_are_known",
        lambda: module(GOOD.replace("policies", "polices")),
        "Did you mean 'tgate_register_policies'?",
    ),
    "forgets the mark": Offender(
        "check_hooks_are_marked",
        lambda: module(GOOD.replace("@tg.hookimpl", "")),
        "tgate_register_policies is not marked",
    ),
    "has no hook": Offender("check_hooks_are_marked", lambda: module(""), "implements no hook"),
    "has a default": Offender(
        "check_hook_arguments_are_required",
        lambda: module(GOOD.replace("(register)", "(register=None)", 1)),
        "leave the default out",
    ),
    "asks for more": Offender(
        "check_hook_arguments_are_required",
        lambda: module(GOOD.replace("(register)", "(register, config)", 1)),
        "the hook has no such argument",
    ),
    "takes a name": Offender(
        "check_names_are_free",
        registers("policies", '"never", Mine'),
        "the policy 'never' is tgate_plugins.never's",
    ),
    "by the back door": Offender(
        "check_it_comes_and_goes",
        lambda: module(BY_THE_BACK_DOOR),
        "registering it in a manager of its own changed the process's",
    ),
    "only once": Offender(
        "check_it_comes_and_goes", lambda: module(ONLY_ONCE), "it did not register"
    ),
    "a policy that is none": Offender(
        KIND, registers("policies", '"mine", dict'), "the policy 'mine' builds dict"
    ),
    "a policy that cannot be built": Offender(
        KIND, registers("policies", '"mine", lambda: 1 / 0'), "cannot be built with its defaults"
    ),
    "a policy and not its factory": Offender(
        KIND, registers("policies", '"mine", Mine()'), "which cannot be called"
    ),
    "an adapter that is none": Offender(
        KIND, registers("adapters", '"mine", Mine, models=("UNet",)'), "register a class that"
    ),
    "an adapter of nothing": Offender(
        KIND,
        registers("adapters", '"mine", type("Own", (Adapter,), {}), models=()'),
        "name the classes it knows",
    ),
    "a driver that cannot drive": Offender(
        KIND,
        registers("drivers", '"mine", type("Own", (Driver,), {})'),
        "does not define locate",
    ),
    "a layer that is none": Offender(KIND, registers("layers", '"mine", 3'), "is 3: register"),
    "a sampler that is none": Offender(
        KIND, registers("samplers", '"mine", lambda: 3'), "the sampler 'mine' loads int"
    ),
}
