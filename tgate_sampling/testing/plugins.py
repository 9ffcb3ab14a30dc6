"""`check_plugin`: whether a plugin comes in as it should, and goes without a trace."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Final

from tgate_sampling import hookspecs
from tgate_sampling._manager import Manager, manager
from tgate_sampling.errors import PluginError, nearest
from tgate_sampling.testing.plugin_case import HOOKS, PluginCase, registered_in
from tgate_sampling.testing.plugin_kinds import check_registered_things_are_of_their_kind
from tgate_sampling.testing.results import (
    CheckResult,
    ConformanceError,
    DoesNotApplyError,
    OnFail,
    claim,
    run_checks,
)


def check_it_imports_twice(case: PluginCase) -> None:
    """Its code may run again, as under another name, and registers nothing by itself."""
    plugin = case.load()
    spec = getattr(plugin, "__spec__", None)
    if not isinstance(plugin, ModuleType) or spec is None or spec.loader is None:
        raise DoesNotApplyError("this plugin is no module that could be imported again")
    before = registered_in(manager())
    # Beside the first, and not by reload(): what is registered keeps its classes.
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    for kind, entry in registered_in(manager()):
        claim(
            (kind, entry) in before,
            f"importing it registered the {kind} {entry.name!r}: register in the hook alone",
        )


def check_hooks_are_known(case: PluginCase) -> None:
    """What is marked as a hookimpl is the name of a hook."""
    for name in case.hookimpls():
        claim(name in HOOKS, f"{name}() is no hook. {nearest(name, HOOKS)}")


def check_hooks_are_marked(case: PluginCase) -> None:
    """There is a hookimpl, and no function has a hook's name without the mark."""
    plugin, marked = case.load(), case.hookimpls()
    bare = [n for n in HOOKS if inspect.isroutine(getattr(plugin, n, None)) and n not in marked]
    claim(
        not bare,
        f"{', '.join(bare)} is not marked, so that nobody calls it: write @tgate_sampling.hookimpl "
        "above it",
    )
    claim(bool(marked), f"it implements no hook. There are: {', '.join(HOOKS)}")


def check_hook_arguments_are_required(case: PluginCase) -> None:
    """Hookimpls take arguments of the hook, without defaults."""
    for name, function in case.hookimpls().items():
        spec = getattr(hookspecs, name, None)
        known = list(inspect.signature(spec).parameters) if spec is not None else []
        for parameter in inspect.signature(function).parameters.values():
            said = f"{name}(..., {parameter})"
            claim(
                parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name in known,
                f"{said}: the hook has no such argument. {nearest(parameter.name, known)}",
            )
            claim(
                parameter.default is parameter.empty,
                f"{said}: leave the default out, since versions of pluggy differ in whether an "
                "argument with a default is passed",
            )


def check_names_are_free(case: PluginCase) -> None:
    """No name it registers is one of ours."""
    alone = Manager()
    with case.visiting(alone):
        own = [(kind, entry.name) for kind, entry in registered_in(alone)]
    ours = {(kind, entry.name): entry.owner for kind, entry in registered_in(case.without())}
    for kind, name in own:
        owner = ours.get((kind, name))
        claim(owner is None, f"the {kind} {name!r} is {owner}'s: give yours another name")


def check_it_comes_and_goes(case: PluginCase) -> None:
    """It registers in a fresh manager, leaves it as before, and may come again."""
    fresh = case.without()
    before, outside = registered_in(fresh), registered_in(manager())
    for _ in range(2):
        try:
            with case.visiting(fresh):
                pass
        except PluginError as error:
            raise ConformanceError(f"it did not register: {error}") from error
        claim(
            registered_in(fresh) == before,
            "names stay behind after it was unregistered: use the `register` that the hook is "
            "given, and keep it nowhere",
        )
    claim(
        registered_in(manager()) == outside,
        "registering it in a manager of its own changed the process's: use the `register` that the "
        "hook is given",
    )


#: All of them, the simplest first.
PLUGIN_CHECKS: Final[tuple[Callable[[PluginCase], None], ...]] = (
    check_it_imports_twice,
    check_hooks_are_known,
    check_hooks_are_marked,
    check_hook_arguments_are_required,
    check_names_are_free,
    check_it_comes_and_goes,
    check_registered_things_are_of_their_kind,
)


def check_plugin(
    plugin: object, *, on_fail: OnFail = "raise", skip: Collection[str] = ()
) -> list[CheckResult]:
    """Run every check on a plugin; what it registers has checks of its own.

    Args:
        plugin: the name of an entry point of group `tgate_sampling`, the name of a module, or the
            module.
        on_fail: "raise" stops at the first failure, "collect" returns them all.
        skip: names of checks to leave out.

    Raises:
        ConformanceError: a check failed, and `on_fail` is "raise".

    Example:
        >>> {r.passed for r in check_plugin("tgate_plugins.fixed_step")}
        {True}
    """
    return run_checks(PLUGIN_CHECKS, PluginCase(plugin), on_fail=on_fail, skip=skip)
